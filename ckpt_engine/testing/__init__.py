"""The promises of a store and of an engine as tests, for this package's backends and anybody's.

Needs ``pytest``, ``pytest-asyncio`` (in auto mode) and ``hypothesis``.
"""

from .engine_contract import EngineContract
from .machine import EngineMachine
from .machine_collecting import CollectingMachine
from .store_contract import StoreContract

__all__ = ["CollectingMachine", "EngineContract", "EngineMachine", "StoreContract"]
