"""The one place where the engine's errors become Temporal's, and retryable or not is decided."""

from __future__ import annotations

from temporalio.exceptions import ApplicationError

from ..errors import CheckpointError, Retryable

__all__ = ["to_failure"]


def to_failure(err: CheckpointError) -> ApplicationError:
    """Return the failure that tells Temporal of an engine's error; its type is the error's kind."""
    return ApplicationError(str(err), type=err.kind, non_retryable=not isinstance(err, Retryable))
