"""The promises of a store and of an engine as tests, for this package's backends and anybody's.

Needs ``pytest``, ``pytest-asyncio`` (in auto mode) and ``hypothesis``.
"""

from .engine_contract import EngineContract
from .machine import EngineMachine
from .store_contract import StoreContract

__all__ = ["EngineContract", "EngineMachine", "StoreContract"]
