"""Everything the engine raises, sorted by what a caller would do next.

One base class, :class:`CheckpointError`. Below it three branches: fix the input
(:class:`InvalidRequest`), try again (:class:`Retryable`), give up and look (:class:`Damaged`).
Every class has a stable ``kind``, which crosses the wire as the type of a Temporal failure.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "CheckpointError",
    "CheckpointNotFound",
    "Conflict",
    "Corrupted",
    "Damaged",
    "EngineClosed",
    "Erased",
    "IdReused",
    "InvalidRequest",
    "MergeConflictError",
    "NameTaken",
    "NotInSession",
    "Retryable",
    "SchemaMismatch",
    "StoreBusy",
    "StoreUnavailable",
    "ThreadNotFound",
    "TooLarge",
    "Unstorable",
    "WrongKey",
    "shown",
]


def shown(value: Any, most: int = 60) -> str:
    """Return how a value reads, cut off; what Python does not spell out goes by its type."""
    try:
        return repr(value)[:most]
    except Exception:  # noqa: BLE001  (too many digits, too deep, or what its own class raises)
        return f"a {type(value).__name__}"


class CheckpointError(Exception):
    """Base of every error of this package; ``kind`` is stable across releases."""

    kind: ClassVar[str] = "checkpoint-error"


class InvalidRequest(CheckpointError, ValueError):
    """The request can never succeed as it is: fix the input."""

    kind = "invalid-request"


class CheckpointNotFound(InvalidRequest, KeyError):
    """No checkpoint has this id, step, prefix or tag."""

    kind = "checkpoint-not-found"
    __str__ = Exception.__str__  # KeyError would show the message quoted


class ThreadNotFound(InvalidRequest, KeyError):
    """No thread has this id."""

    kind = "thread-not-found"
    __str__ = Exception.__str__


class NotInSession(InvalidRequest):
    """The checkpoint exists, but belongs to another session."""

    kind = "not-in-session"


class NameTaken(InvalidRequest):
    """A branch, thread or tag of this name exists already."""

    kind = "name-taken"


class Unstorable(InvalidRequest, TypeError):
    """A value cannot be stored; the message gives the path to it."""

    kind = "unstorable"


class TooLarge(InvalidRequest):
    """The snapshot is above ``max_snapshot_size_mb``; nothing was stored."""

    kind = "too-large"


class Erased(InvalidRequest):
    """The content was erased by ``forget``; only its tombstone is left."""

    kind = "erased"


class IdReused(InvalidRequest):
    """A committed checkpoint has this id, but it records another step."""

    kind = "id-reused"


class MergeConflictError(InvalidRequest):
    """A merge has conflicts that no strategy resolves; ``conflicts`` lists them."""

    kind = "merge-conflict"

    def __init__(self, message: str, conflicts: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.conflicts = conflicts


class WrongKey(InvalidRequest):
    """What is encrypted cannot be read with the keys that were given."""

    kind = "wrong-key"


class Retryable(CheckpointError):
    """The same request may succeed later."""

    kind = "retryable"


class Conflict(Retryable):
    """Somebody else moved the head first: read it again and decide."""

    kind = "conflict"


class StoreBusy(Retryable, TimeoutError):
    """Another process holds the store's write lock for longer than the timeout."""

    kind = "store-busy"


class StoreUnavailable(Retryable, ConnectionError):
    """The store cannot be reached or written: connection lost, disk full, read-only file."""

    kind = "store-unavailable"


class Damaged(CheckpointError):
    """Something is broken that neither another input nor another try will mend."""

    kind = "damaged"


class Corrupted(Damaged):
    """A stored row does not match its digest or is missing."""

    kind = "corrupted"


class SchemaMismatch(Damaged):
    """The database was written by another version of the schema; the message says what to run."""

    kind = "schema-mismatch"


class EngineClosed(Damaged, RuntimeError):
    """The engine was closed before this call."""

    kind = "engine-closed"
