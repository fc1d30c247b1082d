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
from temporalio.common import RawValue, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import CancelledError, ChildWorkflowError, FailureError

from ..errors import CheckpointError, InvalidRequest
from .contract import (
    PREPARE_CHILD,
    SUPERSEDE,
    SUPERSEDED,
    BranchRequest,
    ChildStatus,
    PrepareChild,
    PreparedChild,
    RewindRequest,
    SeedHeader,
    StartedChild,
    Supersede,
)
from .rewindable import resume_of
from .session import Request, Session

__all__ = ["Refused", "Supervisor"]

_PATIENCE = timedelta(seconds=10)
_QUICK: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=60),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
    ),
}


class Refused(InvalidRequest):
    """The engine refused a request; carries the kind that it gave."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind  # type: ignore[misc]


class Supervisor:
    """Runs ``body`` and carries out the requests of its session meanwhile.

    Args:
        session: The bookkeeping.
        body: Calls the user's ``run``.
        args: Its arguments, given again to every child.
        seeds: Where the outbound interceptor looks up the header of a child by its workflow id.
    """

    def __init__(
        self,
        session: Session,
        body: Callable[[], Awaitable[Any]],
        args: Sequence[Any],
        seeds: dict[str, SeedHeader],
    ) -> None:
        self._session = session
        self._body = body
        self._args = args
        self._seeds = seeds
        self._running: asyncio.Future[Any] = asyncio.ensure_future(body())
        self._handling: asyncio.Task[None] | None = None
        self._cancelled = False
        self._nothing_runs = False

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
                self._handling = None
            if self._session.requests:
                request = self._session.requests.popleft()
                self._handling = asyncio.create_task(self._handle(request))
                continue
            if self._running.done() and self._session.waiting == 0:
                self._session.phase = "closing"
                return await self._outcome()

    def _something_to_do(self) -> bool:
        if self._handling is not None:
            return self._handling.done()
        return bool(self._session.requests) or (self._running.done() and self._session.waiting == 0)

    def _pass_on_cancellation(self) -> None:
        self._cancelled = True
        if workflow.cancellation_reason() == SUPERSEDED:
            self._session.stopped, self._session.phase = True, "closing"
        self._running.cancel()

    async def _outcome(self) -> Any:
        try:
            return await self._running
        except ChildWorkflowError as err:
            if self._session.active is None or not isinstance(err.cause, FailureError):
                raise
            raise err.cause from None  # the address fails as the agent failed

    async def _handle(self, request: Request) -> None:
        session = self._session
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
        prepared = await self._prepare("rewind", request, child_id)
        self._nothing_runs = True
        await self._stop(request)
        if self._cancelled:
            raise InvalidRequest("the session was cancelled before the rewind took effect")
        assert prepared.seed is not None
        seed = prepared.seed.model_copy(update={"supervisor": workflow.info().workflow_id})
        handle, _ = await asyncio.gather(
            self._start(child_id, seed, workflow.ParentClosePolicy.TERMINATE),
            workflow.execute_activity(
                SUPERSEDE,
                Supersede(thread=old_thread, by=seed.thread).model_dump(mode="json"),
                **_QUICK,
            ),
        )
        child = self._started("rewind", handle, seed, prepared.target, request.request_id)
        self._running, self._nothing_runs = handle, False
        session.phase = "supervising"
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
            self._running.cancel(SUPERSEDED)
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

    # Branch

    async def _branch(self, request: BranchRequest) -> StartedChild:
        child_id = f"{workflow.info().workflow_id}/{request.name}-{self._session.draw_suffix()}"
        prepared = await self._prepare("branch", request, child_id)
        assert prepared.seed is not None
        handle = await self._start(child_id, prepared.seed, workflow.ParentClosePolicy.ABANDON)
        return self._started("branch", handle, prepared.seed, prepared.target, request.request_id)

    # Both

    async def _prepare(
        self, kind: str, request: RewindRequest | BranchRequest, child_id: str
    ) -> PreparedChild:
        session, info = self._session, workflow.info()
        ask = PrepareChild.model_validate(
            {
                "kind": kind,
                kind: request,
                "session": session.session,
                "active_thread": session.active.thread if session.active else session.thread,
                "thread": child_id,
                "checkpoint": session.draw_id(),
                "run": {
                    "namespace": info.namespace,
                    "workflow_id": child_id,
                    "workflow_type": info.workflow_type,
                    "task_queue": info.task_queue,
                    "supervisor": info.workflow_id if kind == "rewind" else None,
                },
                "resume": resume_of(workflow.instance()),
                "origin": session.origin,
            }
        )
        answer = await workflow.execute_activity(
            PREPARE_CHILD, ask.model_dump(mode="json"), **_QUICK
        )
        prepared = PreparedChild.model_validate(answer)
        if prepared.seed is None:
            raise Refused(prepared.refused_kind, prepared.refused)
        return prepared

    async def _start(
        self, child_id: str, seed: SeedHeader, close: workflow.ParentClosePolicy
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        info = workflow.info()
        again = self._session.heard_before(seed.prefix.upto) if seed.prefix else []
        self._seeds[child_id] = seed.with_signals(len(again))
        handle = await workflow.start_child_workflow(
            info.workflow_type,
            args=list(self._args),
            id=child_id,
            task_queue=info.task_queue,
            result_type=RawValue,
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            parent_close_policy=close,
            execution_timeout=info.execution_timeout,
            run_timeout=info.run_timeout,
            task_timeout=info.task_timeout,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo=workflow.memo() or None,
            search_attributes=info.typed_search_attributes or None,
            priority=info.priority,
            static_summary=f"{seed.kind} {seed.branch} of {seed.session}",
        )
        for signal in again:
            await handle.signal(signal.name, args=list(signal.args))
        return handle

    def _started(
        self,
        kind: str,
        handle: workflow.ChildWorkflowHandle[Any, Any],
        seed: SeedHeader,
        target: list[str],
        request_id: str,
    ) -> StartedChild:
        child = ChildStatus.model_validate(
            {
                "kind": kind,
                "workflow_id": handle.id,
                "run_id": handle.first_execution_run_id or "",
                "thread": seed.thread,
                "branch": seed.branch,
                "seed": target,
                "request_id": request_id,
            }
        )
        self._session.children.append(child)
        handle.add_done_callback(lambda done: self._ended(handle.id, done))
        return StartedChild.model_validate(child.model_dump(exclude={"state"}))

    def _ended(self, workflow_id: str, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            self._mark(workflow_id, "canceled")
            return
        err = done.exception()
        if err is None:
            self._mark(workflow_id, "completed")
        elif isinstance(err, ChildWorkflowError) and isinstance(err.cause, CancelledError):
            self._mark(workflow_id, "canceled")
        else:
            self._mark(workflow_id, "failed")

    def _mark(self, workflow_id: str, state: str) -> None:
        children = self._session.children
        for at, child in enumerate(children):
            if child.workflow_id == workflow_id and child.state == "running":
                children[at] = child.model_copy(update={"state": state})
