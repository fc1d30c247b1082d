"""Checkpoints, rewind and branch for any Temporal application.

One line makes every activity a checkpointed step, and one mixin makes a workflow rewindable::

    client = await Client.connect(address, plugins=[CheckpointPlugin("sqlite:///checkpoints.db")])

    @workflow.defn
    class MyAgent(Rewindable): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import NotAStep, Step, current_step
    from .contract import (
        BranchRequest,
        Overrides,
        Refusal,
        RewindRequest,
        SessionStatus,
        StartedChild,
        Target,
    )
    from .encryption import EncryptionCodec
    from .headers import SeedHeader
    from .plugin import CheckpointPlugin
    from .policy import StepAdapter, StepPolicy
    from .rewindable import Rewindable
    from .session import line
    from .sessions import Sessions

__all__ = [
    "BranchRequest",
    "CheckpointPlugin",
    "EncryptionCodec",
    "NotAStep",
    "Overrides",
    "Refusal",
    "RewindRequest",
    "Rewindable",
    "SeedHeader",
    "SessionStatus",
    "Sessions",
    "StartedChild",
    "Step",
    "StepAdapter",
    "StepPolicy",
    "Target",
    "current_step",
    "line",
]

_CONTRACT = "BranchRequest Overrides Refusal RewindRequest SessionStatus StartedChild Target"
_HOME = {
    **dict.fromkeys(_CONTRACT.split(), "contract"),
    **dict.fromkeys(("NotAStep", "Step", "current_step"), "context"),
    "CheckpointPlugin": "plugin",
    "EncryptionCodec": "encryption",
    "Rewindable": "rewindable",
    "SeedHeader": "headers",
    "Sessions": "sessions",
    **dict.fromkeys(("StepAdapter", "StepPolicy"), "policy"),
    "line": "session",
}


def __getattr__(name: str) -> Any:
    # Workflows import from here as well: what they do not use must not be loaded for them.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
