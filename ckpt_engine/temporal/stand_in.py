"""Waiting for a child of which, after continue-as-new, only the workflow id is left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
)

from .children import QUICK
from .contract import CANCELED, ENDED, HAS_ENDED, OUTCOME, OUTCOME_FAILED, REPORT
from .session import Session

__all__ = ["StandIn", "tell_supervisor"]

_WHILE_LEAVING = timedelta(seconds=5)


class StandIn:
    """The child that runs in a session's place, seen from a later run of its address.

    Args:
        session: The address's bookkeeping, where the child's report arrives.
        workflow_id: The child.
        look_every: How often to look, in case it was terminated and could not report.
    """

    def __init__(self, session: Session, workflow_id: str, look_every: timedelta) -> None:
        self._session = session
        self._id = workflow_id
        self._look_every = look_every
        self._reason: str | None = None
        self._told = False

    def leave(self, reason: str = "") -> None:
        """Have the child cancelled; its outcome is still waited for.

        Cancelling the task that waits would not do: a signal that is being sent swallows it.
        """
        self._reason = reason if self._reason is None else self._reason

    @property
    def _is_left(self) -> bool:
        return self._reason is not None and not self._told

    async def outcome(self) -> Any:
        """Return the child's result, or raise as it failed."""
        while not await self._ended():
            self._told, self._look_every = True, _WHILE_LEAVING
            await self._cancel(self._reason or "")
        try:
            return await workflow.execute_activity(OUTCOME, self._id, result_type=RawValue, **QUICK)
        except ActivityError as err:
            told = err.cause
            if isinstance(told, ApplicationError) and told.type == CANCELED:
                raise CancelledError("the run that stood in was cancelled") from None
            if isinstance(told, ApplicationError) and told.type == OUTCOME_FAILED:
                raise (told.cause or told) from None
            raise

    async def _ended(self) -> bool:
        """Wait until the child has ended; return ``False`` where it is to be cancelled first."""
        try:
            handle = workflow.get_external_workflow_handle(self._id)
            await handle.signal(REPORT, workflow.info().workflow_id)
        except FailureError:
            return True  # it has ended
        while self._id not in self._session.ended:
            try:
                await workflow.wait_condition(
                    lambda: self._is_left or self._id in self._session.ended,
                    timeout=self._look_every,
                )
            except TimeoutError:
                if await workflow.execute_activity(HAS_ENDED, self._id, **QUICK):
                    return True
            if self._is_left:
                return False
        return True

    async def _cancel(self, reason: str) -> None:
        try:
            await workflow.get_external_workflow_handle(self._id).cancel(reason=reason)
        except FailureError:
            workflow.logger.info("%s has ended before it was cancelled", self._id)


async def tell_supervisor(session: Session) -> None:
    """Let the session's address know that this run is about to end, if it asked for that."""
    if not session.report or session.seed is None or session.seed.supervisor is None:
        return
    handle = workflow.get_external_workflow_handle(session.seed.supervisor)
    try:
        await handle.signal(ENDED, workflow.info().workflow_id)
    except FailureError:
        workflow.logger.info("%s has closed meanwhile", session.seed.supervisor)
