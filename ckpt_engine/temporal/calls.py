"""Sub-workflows of users' workflows: called like a step, each with a thread of its own.

The call has a number in the caller's line. When the sub-workflow has ended, a checkpoint on the
caller's thread joins its line and keeps its result; on the way to a seed the call is answered
with that result, and the sub-workflow does not run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ActivityError
from temporalio.worker import StartChildWorkflowInput

from .children import QUICK
from .contract import JOIN_CALL, RECALL
from .headers import HEADER, Caller, CallHeader, SessionHeader, header_payload
from .session import Line, Session, fingerprint_of, new_id

__all__ = ["SUB_WORKFLOWS", "JoinCall", "Recall", "call_sub_workflow", "never_asked_for"]

SUB_WORKFLOWS = "ckpt-sub-workflows"
"""Patch id: workflows that began before the plugin was there go on without joins."""


class JoinCall(BaseModel):
    """Asks the engine to join a sub-workflow that has ended into its caller's line.

    Attributes:
        call: What it was started with.
        sub: The line of the caller, if that is a sub-workflow's as well.
        base: Number of the last step before the caller's code began.
        id: Checkpoint id of the join.
        first: Whether it is the first-scheduled child of the caller's frontier.
        line: Its line and its place there (see ``StepHeader``).
        workflow_type: What was called.
        workflow_id: Its workflow id.
        run_id: Its first run.
        fingerprint: Digest of type and arguments.
    """

    call: CallHeader
    sub: str | None = None
    base: int = 0
    id: str
    first: bool = True
    line: tuple[str, int] | None = None
    workflow_type: str
    workflow_id: str
    run_id: str
    fingerprint: str


class Recall(BaseModel):
    """Asks for the stored result of a sub-workflow that was called before the seed.

    Attributes:
        thread: The caller's thread.
        sub: The caller's line.
        call: Number of the call.
        step: Number under which the result is stored; ``None`` where no call was.
        workflow_type: What the code asks for now; nothing when it has ended.
        fingerprint: Digest of type and arguments, as the code asks now.
    """

    thread: str
    sub: str | None = None
    call: int
    step: int | None = None
    workflow_type: str = ""
    fingerprint: str


@dataclass(frozen=True)
class _Call:
    """One call, as the caller's bookkeeping knows it."""

    header: CallHeader
    join: str
    fingerprint: str
    first: bool
    replay: bool
    line: Line
    place: tuple[str, int] | None
    session: Session

    def joined(self, step: int) -> None:
        """Let the caller go on from the join, which has this number."""
        session = self.session
        session.step = max(session.step, step)
        session.advance(self.line, self.header.parents, self.join, step)


class _Handle(workflow.ChildWorkflowHandle[Any, Any]):
    """What the caller awaits: the sub-workflow's result, once its line is joined."""

    def __init__(
        self,
        session: Session,
        child_id: str,
        work: Coroutine[Any, Any, Any],
        inner: workflow.ChildWorkflowHandle[Any, Any] | None = None,
    ) -> None:
        super().__init__(work)
        self._child_id = child_id
        self._inner = inner
        session.calls.add(self)  # an event loop alone does not keep its tasks
        self.add_done_callback(session.calls.discard)

    @property
    def id(self) -> str:
        return self._child_id

    @property
    def first_execution_run_id(self) -> str | None:
        return self._inner.first_execution_run_id if self._inner else None

    async def signal(self, signal: Any, *args: Any, **more: Any) -> None:
        if self._inner is not None:  # else it has ended, and heard it then
            await self._inner.signal(signal, *args, **more)

    def cancel(self, msg: Any = None) -> bool:
        if self._inner is not None and not self._inner.done():
            return self._inner.cancel(msg)
        return super().cancel(msg)


async def call_sub_workflow(
    session: Session,
    input: StartChildWorkflowInput,
    start: Callable[[StartChildWorkflowInput], Awaitable[workflow.ChildWorkflowHandle[Any, Any]]],
) -> workflow.ChildWorkflowHandle[Any, Any]:
    """Start a sub-workflow on a thread of its own, or answer with what is stored of it.

    Raises:
        asyncio.CancelledError: A rewind has stopped the caller's line.
    """
    if (way := session.must_wait(input.workflow, input.args, call=True)) is not None:
        await way.wait()
    call = _number(session, input.workflow, input.args)
    if call.replay:
        return _Handle(session, input.id, _recalled(call, input))
    ours: Mapping[str, Payload] = {HEADER: header_payload(SessionHeader(call=call.header))}
    input.headers = {**input.headers, **ours}
    child = await start(input)
    return _Handle(session, input.id, _result(call, input, child), child)


def _number(session: Session, workflow_type: str, args: Sequence[Any]) -> _Call:
    """Give a call its number, its thread and the id of its join."""
    if session.stopped:
        raise asyncio.CancelledError("this line was left by a rewind")
    session.settle()
    info, line = workflow.info(), session.current_line()
    fingerprint = fingerprint_of(workflow_type, args)
    number = session.find(line, fingerprint, call=True)
    replay = number is not None
    if number is None:
        number = session.next_number(line)
    parents = line.parents()
    first = parents[0] not in session.extended
    if not replay:
        session.extended.add(parents[0])
    place = session.place_on(line, number)
    line.place += 1
    branch = f"{workflow_type}:{session.draw_suffix()}"
    header = CallHeader(
        id=session.draw_id(),
        session=session.session,
        thread=f"{info.workflow_id}/{branch}",
        branch=branch,
        parents=parents,
        step=number,
        caller=Caller(
            thread=session.thread,
            workflow_id=info.workflow_id,
            run_id=info.run_id,
            workflow_type=info.workflow_type,
            task_queue=info.task_queue,
            origin=session.origin,
        ),
    )
    join = new_id(session.rng)
    return _Call(header, join, fingerprint, first, replay, line, place, session)


async def _result(
    call: _Call, input: StartChildWorkflowInput, child: workflow.ChildWorkflowHandle[Any, Any]
) -> Any:
    result = await child
    ask = JoinCall(
        call=call.header,
        sub=call.session.sub,
        base=call.session.base,
        id=call.join,
        first=call.first,
        line=call.place,
        workflow_type=input.workflow,
        workflow_id=child.id,
        run_id=child.first_execution_run_id or "",
        fingerprint=call.fingerprint,
    )
    with call.session.flight():
        try:
            step: int = await workflow.execute_activity(
                JOIN_CALL, ask.model_dump(mode="json"), result_type=int, **QUICK
            )
        except ActivityError as err:
            workflow.logger.warning("what %s did is not joined: %s", child.id, err.cause)
        else:
            call.joined(step)
    return result


async def _recalled(call: _Call, input: StartChildWorkflowInput) -> Any:
    session = call.session
    assert session.seed is not None
    assert session.seed.prefix is not None
    step = session.seed.prefix.calls.get(call.header.step)
    ask = Recall(
        thread=session.thread,
        sub=session.sub,
        call=call.header.step,
        step=step,
        workflow_type=input.workflow,
        fingerprint=call.fingerprint,
    )
    assert session.way is not None
    session.way.answering += 1
    with session.flight():
        try:
            result = await workflow.execute_activity(
                RECALL, ask.model_dump(mode="json"), result_type=input.ret_type, **QUICK
            )
        finally:
            session.way.answering -= 1
        if step is not None:
            session.way.passed(step)
            session.advance_on_way(call.line, call.header.parents, call.header.step, step)
    await session.way.turn(call.header.step)
    return result


async def never_asked_for(session: Session, step: int) -> NoReturn:
    """Fail the run of code that has ended without a step from before the seed.

    Raises:
        ActivityError: Always; its cause names the step (``diverged``).
    """
    assert session.seed is not None
    assert session.seed.prefix is not None
    stored = session.seed.prefix.calls.get(step, step)
    ask = Recall(thread=session.thread, sub=session.sub, call=step, step=stored, fingerprint="")
    await workflow.execute_activity(RECALL, ask.model_dump(mode="json"), **QUICK)
    raise AssertionError("no step has an empty fingerprint")
