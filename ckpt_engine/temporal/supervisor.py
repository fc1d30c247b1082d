"""The loop around a rewindable workflow's ``run``: it alone acts on requests.

``run`` is the first thing it watches. A rewind stops it for good, and the child that takes its
place is watched instead; the workflow stays the session's address and returns what the last
child returns. A branch is started beside it and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, cast

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    is_cancelled_exception,
)

from ..errors import CheckpointError, InvalidRequest
from .children import QUICK, Children
from .contract import (
    SUPERSEDE,
    SUPERSEDED,
    BranchRequest,
    ChildStatus,
    PreparedChild,
    RewindRequest,
    StartedChild,
    Supersede,
)
from .rewindable import Rewindable
from .session import Request, Session
from .stand_in import StandIn

__all__ = ["Supervisor"]

_PATIENCE = timedelta(seconds=10)
_NEXT_TASK = timedelta(milliseconds=1)


class Supervisor:
    """Runs ``body`` and carries out the requests of its session meanwhile.

    Args:
        session: The bookkeeping.
        body: Calls the user's ``run``.
        args: Its arguments, given again to every child.
    """

    def __init__(
        self,
        session: Session,
        body: Callable[[], Awaitable[Any]],
        args: Sequence[Any],
    ) -> None:
        self._session = session
        self._args = args
        self._children = Children(session, args)
        self._handling: asyncio.Task[None] | None = None
        self._cancelled = False
        self._nothing_runs = False
        instance = workflow.instance()
        assert isinstance(instance, Rewindable)
        stands_in = session.seed is not None and session.seed.supervisor is not None
        self._parks = instance.ckpt_on_failure == "park" and not stands_in
        self._running: asyncio.Future[Any]
        self._stand_in: StandIn | None = None
        if session.active is None:
            self._running = asyncio.ensure_future(body())
        else:
            self._stand_in = StandIn(session, session.active.workflow_id, instance.ckpt_look_every)
            self._running = asyncio.ensure_future(self._stand_in.outcome())
            self._follow(session.active.workflow_id)

    async def run(self) -> Any:
        """Return what the session returns: the result of ``run``, or of the last rewind's child."""
        while True:
            try:
                await workflow.wait_condition(self._something_to_do)
            except asyncio.CancelledError:
                self._pass_on_cancellation()
                continue
            if self._handling is not None:
                self._handling.result()
                self._handling, self._session.handling = None, ()
            if self._continues():
                workflow.continue_as_new(args=list(self._args))
            if self._session.requests:
                request = self._session.requests.popleft()
                self._session.handling = (request,)
                self._handling = asyncio.create_task(self._handle(request))
            elif self._is_over():
                self._session.phase = "closing"
                return await self._outcome()

    def _something_to_do(self) -> bool:
        if self._handling is not None:
            return self._handling.done()
        return bool(self._session.requests) or self._is_over() or self._continues()

    def _is_over(self) -> bool:
        if not self._running.done() or self._session.waiting:
            return False
        return self._cancelled or not self._parks or not self._is_parked()

    def _is_parked(self) -> bool:
        """Say whether what ran has failed, which is shown while it waits for a rewind."""
        err = None if self._running.cancelled() else self._running.exception()
        if not isinstance(err, FailureError) or is_cancelled_exception(err):
            return False
        shown: BaseException = err
        while isinstance(shown, FailureError) and shown.cause is not None:
            shown = shown.cause
        self._session.phase, self._session.failure = "parked", str(shown)[:2000]
        return True

    def _continues(self) -> bool:
        """Say whether to continue as new: only while a child stands in, which lives on."""
        session = self._session
        return (
            session.phase == "supervising"
            and not self._cancelled
            and not self._running.done()
            and workflow.info().is_continue_as_new_suggested()
            and session.can_be_carried
        )

    def _pass_on_cancellation(self) -> None:
        self._cancelled = True
        if workflow.cancellation_reason() == SUPERSEDED:
            self._session.stopped, self._session.phase = True, "closing"
        self._leave("")

    async def _outcome(self) -> Any:
        if self._session.failure:
            raise CancelledError("cancelled while it waited for a rewind")
        try:
            return await self._running
        except (ActivityError, ChildWorkflowError) as err:
            if self._session.active is None or not isinstance(err.cause, FailureError):
                raise
            raise err.cause from None  # the address fails as the agent failed

    async def _handle(self, request: Request) -> None:
        session = self._session
        if session.being_reset:
            await workflow.sleep(_NEXT_TASK)  # what has ended in this task is heard of after it
        try:
            if self._cancelled:
                raise InvalidRequest("the session is being cancelled")
            if request.kind == "rewind":
                child = await self._rewind(cast(RewindRequest, request.body))
            else:
                child = await self._branch(cast(BranchRequest, request.body))
        except (CheckpointError, FailureError, asyncio.CancelledError) as err:
            if self._nothing_runs and not self._cancelled:
                raise  # the old line has ended and no child has begun: fail where people look
            cause = err.__cause__ if isinstance(err, FailureError) and err.__cause__ else err
            request.refusal = session.refuse(request.kind, request.body.request_id, cause)
        else:
            session.answer(request, child)

    # Rewind

    async def _rewind(self, request: RewindRequest) -> StartedChild:
        session = self._session
        old_thread = session.active.thread if session.active else session.thread
        child_id = f"{workflow.info().workflow_id}/rewind-{session.draw_suffix()}"
        prepared = await self._children.prepare("rewind", request, child_id)
        self._nothing_runs = True
        await self._stop(request)
        if self._cancelled:
            raise InvalidRequest("the session was cancelled before the rewind took effect")
        handle, _ = await asyncio.gather(
            self._children.start(child_id, prepared),
            workflow.execute_activity(
                SUPERSEDE,
                Supersede(thread=old_thread, by=child_id).model_dump(mode="json"),
                **QUICK,
            ),
        )
        child = self._started("rewind", handle, prepared, request.request_id)
        self._running, self._stand_in, self._nothing_runs = handle, None, False
        session.phase, session.failure = "supervising", ""
        if self._cancelled:
            handle.cancel()
        return child

    async def _stop(self, request: RewindRequest) -> None:
        """End what runs now, so that it schedules no further step; its late result is ignored."""
        session = self._session
        session.stopped = True
        self._running.add_done_callback(lambda left: left.cancelled() or left.exception())
        if session.active is not None:
            self._mark(session.active.workflow_id, "superseded")
            self._leave(SUPERSEDED)
            await workflow.wait([cast("asyncio.Task[Any]", self._running)])
            return
        if request.in_flight == "wait":
            try:
                await workflow.wait_condition(
                    lambda: session.in_flight == 0 or self._running.done(),
                    timeout=timedelta(seconds=request.wait_seconds),
                )
            except TimeoutError:
                workflow.logger.warning("a step in flight did not end in time; it is cancelled")
        if request.in_flight == "abandon":
            return
        self._running.cancel()
        # User code may take its time to clean up, or swallow the cancellation; it can do no harm.
        await workflow.wait([cast("asyncio.Task[Any]", self._running)], timeout=_PATIENCE.seconds)

    def _leave(self, reason: str) -> None:
        if self._stand_in is not None:
            self._stand_in.leave(reason)
        else:
            self._running.cancel(reason)

    # Branch

    async def _branch(self, request: BranchRequest) -> StartedChild:
        child_id = f"{workflow.info().workflow_id}/{request.name}-{self._session.draw_suffix()}"
        prepared = await self._children.prepare("branch", request, child_id)
        handle = await self._children.start(child_id, prepared)
        return self._started("branch", handle, prepared, request.request_id)

    # Both

    def _started(
        self,
        kind: str,
        handle: workflow.ChildWorkflowHandle[Any, Any],
        prepared: PreparedChild,
        request_id: str,
    ) -> StartedChild:
        assert prepared.seed is not None
        child = ChildStatus.model_validate(
            {
                "kind": kind,
                "workflow_id": handle.id,
                "run_id": handle.first_execution_run_id or "",
                "thread": prepared.seed.thread,
                "branch": prepared.seed.branch,
                "seed": prepared.target,
                "request_id": request_id,
            }
        )
        self._session.children.append(child)
        handle.add_done_callback(lambda done: self._ended(handle.id, done))
        return StartedChild.model_validate(child.model_dump(exclude={"state"}))

    def _follow(self, workflow_id: str) -> None:
        self._running.add_done_callback(lambda done: self._ended(workflow_id, done))

    def _ended(self, workflow_id: str, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            self._mark(workflow_id, "canceled")
            return
        err = done.exception()
        if err is None:
            self._mark(workflow_id, "completed")
        elif is_cancelled_exception(err):
            self._mark(workflow_id, "canceled")
        else:
            self._mark(workflow_id, "failed")

    def _mark(self, workflow_id: str, state: str) -> None:
        children = self._session.children
        for at, child in enumerate(children):
            if child.workflow_id == workflow_id and child.state == "running":
                children[at] = child.model_copy(update={"state": state})
