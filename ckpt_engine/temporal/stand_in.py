"""Waiting for a child of which, after continue-as-new, only the workflow id is left."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    is_cancelled_exception,
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

    async def outcome(self) -> Any:
        """Return the child's result, or raise as it failed; a cancellation is passed on to it."""
        while True:
            try:
                await self._ended()
                break
            except (asyncio.CancelledError, ActivityError) as err:
                if not is_cancelled_exception(err):
                    raise
                self._look_every = _WHILE_LEAVING
                await self._cancel(str(err.args[0]) if err.args else "")
        try:
            return await workflow.execute_activity(OUTCOME, self._id, result_type=RawValue, **QUICK)
        except ActivityError as err:
            told = err.cause
            if isinstance(told, ApplicationError) and told.type == CANCELED:
                raise CancelledError("the run that stood in was cancelled") from None
            if isinstance(told, ApplicationError) and told.type == OUTCOME_FAILED:
                raise (told.cause or told) from None
            raise

    async def _ended(self) -> None:
        try:
            handle = workflow.get_external_workflow_handle(self._id)
            await handle.signal(REPORT, workflow.info().workflow_id)
        except FailureError:
            return  # it has ended
        while self._id not in self._session.ended:
            try:
                await workflow.wait_condition(
                    lambda: self._id in self._session.ended, timeout=self._look_every
                )
            except TimeoutError:
                if await workflow.execute_activity(HAS_ENDED, self._id, **QUICK):
                    return

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
