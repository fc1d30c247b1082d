"""A sub-workflow that has ended joins its caller's line; its result answers a later replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import HistoryEventFilterType
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.common import RawValue
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError

from ..model import CheckpointInfo, SnapshotTrigger, StepCommit, Thread, WorkflowRun
from .calls import JoinCall, Recall
from .diverged import diverged
from .headers import Origin
from .origin import ensure_caller, ensure_origin
from .payloads import from_stored, to_stored

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["join_call", "line_of", "newest_thread", "recall"]


def line_of(info: CheckpointInfo) -> str | None:
    """Return the sub-workflow whose line a checkpoint is in; ``None`` for the session's own."""
    sub = info.metadata.get("sub")
    return sub if isinstance(sub, str) else None


async def newest_thread(engine: CheckpointEngine, thread_id: str) -> Thread:
    """Return the thread that rewinds have put in the place of this one, itself if none."""
    thread = await engine.get_thread(thread_id)
    while thread.superseded_by is not None:
        thread = await engine.get_thread(thread.superseded_by)
    return thread


async def join_call(engine: CheckpointEngine, client: Client, ask: JoinCall) -> int:
    """Commit the join of a sub-workflow on its caller's thread; return its number.

    Its parents are the caller's frontier at the call and what the sub-workflow did; the result
    is taken from the sub-workflow's history, so that it does not travel a second time.
    """
    known = await engine.find_committed(ask.id)
    if known is not None:
        return (await engine.get_info(ask.id)).step
    call, caller = ask.call, ask.call.caller
    await ensure_caller(engine, client, caller, client.namespace)
    runs, result = await _ended(client, ask)
    thread = await _thread_of(engine, client, ask, runs)
    tips = await engine.frontier_at(thread.id, thread.step)
    step = max([(await engine.get_info(tip)).step for tip in tips]) + 1
    await engine.commit_step(
        StepCommit(
            checkpoint_id=ask.id,
            thread_id=caller.thread,
            step=step,
            parents=(*call.parents, *tips),
            first=ask.first,
            tools_result=to_stored(result),
            trigger=SnapshotTrigger.TASK_BOUNDARY,
            node=ask.workflow_type,
            metadata={
                "fingerprint": ask.fingerprint,
                "call": call.step,
                "called": ask.workflow_id,
                "workflow_id": caller.workflow_id,
                "run_id": caller.run_id,
                **({"base": ask.base} if ask.base else {}),
                **({"sub": ask.sub} if ask.sub else {}),
                **({"line": list(ask.line)} if ask.line else {}),
            },
            fallback_to_head=True,
        )
    )
    return step


async def _ended(client: Client, ask: JoinCall) -> tuple[list[str], Payload]:
    """Return the runs of a sub-workflow, oldest first, and its encoded result."""
    runs = [ask.run_id]
    while True:
        response = await client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=client.namespace,
                execution=WorkflowExecution(workflow_id=ask.workflow_id, run_id=runs[-1]),
                history_event_filter_type=(
                    HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
                ),
            )
        )
        last = response.history.events[-1]
        if last.HasField("workflow_execution_completed_event_attributes"):
            done = last.workflow_execution_completed_event_attributes
            return runs, next(iter(done.result.payloads), _nothing())
        follows = (
            last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            or last.workflow_execution_failed_event_attributes.new_execution_run_id
            or last.workflow_execution_timed_out_event_attributes.new_execution_run_id
        )
        if not follows:
            raise ApplicationError(
                f"sub-workflow {ask.workflow_id!r} ended without a result", non_retryable=True
            )
        runs.append(follows)


def _nothing() -> Payload:
    return Payload(metadata={"encoding": b"binary/null"})


async def _thread_of(
    engine: CheckpointEngine, client: Client, ask: JoinCall, runs: list[str]
) -> Thread:
    """Return the thread of the run that ended; made here when it did no step."""
    ran = {run.run_id: name for name, run in (await engine.runs(ask.call.session)).items()}
    for run_id in reversed(runs):
        if run_id in ran:
            return await newest_thread(engine, ran[run_id])
    call = ask.call
    run = WorkflowRun(
        namespace=client.namespace,
        workflow_id=ask.workflow_id,
        run_id=runs[-1],
        workflow_type=ask.workflow_type,
        task_queue="",
    )
    origin = Origin(
        id=call.id,
        run_id=runs[-1],
        step=call.step,
        base=call.step,
        parents=call.parents,
        branch=call.branch,
        sub=call.id,
        caller=call.caller,
    )
    await ensure_origin(engine, client, call.thread, origin, run)
    return await newest_thread(engine, call.thread)


async def recall(engine: CheckpointEngine, client: Client, ask: Recall) -> RawValue:
    """Return the stored result of a sub-workflow that was called before the seed.

    Raises:
        ApplicationError: The code asks for something else than what is stored (``diverged``).
    """
    at = ask.step if ask.step is not None else ask.call
    tips = await engine.frontier_at(ask.thread, at)
    infos = [await engine.get_info(tip) for tip in tips]
    infos = [info for info in infos if line_of(info) == ask.sub and info.step == at]
    found = next((i for i in infos if i.metadata.get("call", i.step) == ask.call), None)
    same = found is not None and found.metadata["fingerprint"] == ask.fingerprint
    if found is None or not same or ask.step is None:
        stored = f"{found.node!r} ({found.id[:8]})" if found else "nothing that is stored"
        now = f"now the code calls {ask.workflow_type!r} there"
        if not ask.workflow_type:
            now = "now the code has ended without it"
        raise await diverged(engine, ask.thread, ask.call, stored, now)
    done = await engine.find_committed(found.id)
    payload = from_stored(done.tools_result) if done else None
    if payload is None:
        raise ApplicationError(
            f"the result of the call in step {ask.call} ({found.node}) was not kept; rewind to "
            "before it",
            type="result-not-kept",
            non_retryable=True,
        )
    context = WorkflowSerializationContext(
        namespace=client.namespace, workflow_id=str(found.metadata["called"])
    )
    codec = client.data_converter.with_context(context).payload_codec
    return RawValue((await codec.decode([payload]))[0] if codec else payload)
