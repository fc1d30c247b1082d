"""Rewind and branch for durable AI agents.

The names below are the public ones. Those that need more than the standard library are loaded when
they are first used, so that importing this package loads no database driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    CheckpointError,
    CheckpointNotFound,
    Conflict,
    Corrupted,
    Damaged,
    EngineClosed,
    Erased,
    IdReused,
    InvalidRequest,
    MergeConflictError,
    NameTaken,
    NotInSession,
    Retryable,
    SchemaMismatch,
    StoreBusy,
    StoreUnavailable,
    ThreadNotFound,
    TooLarge,
    Unstorable,
    WrongKey,
)
from .model import (
    Checkpoint,
    CheckpointDiff,
    CheckpointInfo,
    CheckpointTree,
    CommittedStep,
    HeadMove,
    JoinedContent,
    KeyChange,
    SnapshotTrigger,
    StepCommit,
    Thread,
    TimeTravelResult,
    TreeEdge,
    TreeNode,
    WorkflowRun,
    new_checkpoint_id,
)
from .reports import CollectReport, ForgetReport, MergeResult, OptimizeReport, Problem, VerifyReport

if TYPE_CHECKING:
    from .config import SnapshotConfig
    from .engine import CheckpointEngine
    from .keys import Keyring
    from .merge import MISSING, MergeConflict
    from .quickstart import check_url, create_checkpoint_engine
    from .retention import KEEP_AGE, KEEP_ALL, KEEP_LAST_N, KEEP_MILESTONES, RetentionPolicy
    from .retention_words import parse_retention
    from .scopes import current_scope

__all__ = [
    "KEEP_AGE",
    "KEEP_ALL",
    "KEEP_LAST_N",
    "KEEP_MILESTONES",
    "MISSING",
    "Checkpoint",
    "CheckpointDiff",
    "CheckpointEngine",
    "CheckpointError",
    "CheckpointInfo",
    "CheckpointNotFound",
    "CheckpointTree",
    "CollectReport",
    "CommittedStep",
    "Conflict",
    "Corrupted",
    "Damaged",
    "EngineClosed",
    "Erased",
    "ForgetReport",
    "HeadMove",
    "IdReused",
    "InvalidRequest",
    "JoinedContent",
    "KeyChange",
    "Keyring",
    "MergeConflict",
    "MergeConflictError",
    "MergeResult",
    "NameTaken",
    "NotInSession",
    "OptimizeReport",
    "Problem",
    "RetentionPolicy",
    "Retryable",
    "SchemaMismatch",
    "SnapshotConfig",
    "SnapshotTrigger",
    "StepCommit",
    "StoreBusy",
    "StoreUnavailable",
    "Thread",
    "ThreadNotFound",
    "TimeTravelResult",
    "TooLarge",
    "TreeEdge",
    "TreeNode",
    "Unstorable",
    "VerifyReport",
    "WorkflowRun",
    "WrongKey",
    "check_url",
    "create_checkpoint_engine",
    "current_scope",
    "new_checkpoint_id",
    "parse_retention",
]

_LAZY = {
    "KEEP_AGE": "retention",
    "KEEP_ALL": "retention",
    "KEEP_LAST_N": "retention",
    "KEEP_MILESTONES": "retention",
    "MISSING": "merge",
    "CheckpointEngine": "engine",
    "Keyring": "keys",
    "MergeConflict": "merge",
    "RetentionPolicy": "retention",
    "SnapshotConfig": "config",
    "check_url": "quickstart",
    "create_checkpoint_engine": "quickstart",
    "current_scope": "scopes",
    "parse_retention": "retention_words",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
