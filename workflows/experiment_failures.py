"""What went wrong in a trial, and what it may have cost all the same."""

from __future__ import annotations

from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError
from temporalio.exceptions import TimeoutError as TimeoutFailure

from ckpt_engine.experiments.budget import Amount

from .experiment_messages import Measured

__all__ = ["cause_of", "charged_by", "settled_with"]


def cause_of(err: BaseException) -> BaseException:
    """Return the innermost failure: what really went wrong."""
    while isinstance(err, FailureError) and err.cause is not None:
        err = err.cause
    return err


def charged_by(cause: BaseException) -> Amount | None:
    """Return what a failed step says it may have cost, if it says."""
    if isinstance(cause, ApplicationError) and cause.details:
        charge = cause.details[0]
        if isinstance(charge, dict) and "tokens" in charge:
            return Amount(0, int(charge["tokens"]), int(charge["nanos"]))
    return None


def settled_with(measured: Measured, failure: BaseException | None, steps: int) -> Amount | None:
    """Return what a trial cost its lease; ``None`` where that cannot be known."""
    step = failure
    while isinstance(step, FailureError) and not isinstance(step, ActivityError):
        step = step.cause
    if isinstance(step, ActivityError) and step.activity_type == "call_model":
        charged = charged_by(cause_of(step))
        return None if charged is None else charged + Amount(steps, 0, 0)
    if failure is not None and isinstance(cause_of(failure), CancelledError | TimeoutFailure):
        return None
    return Amount(steps, *measured.settled)
