"""Step 0: how the workflow was started, so that a session can be rewound to its very start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest

from ..errors import ThreadNotFound
from ..model import SnapshotTrigger, StepCommit, WorkflowRun
from .headers import Caller, Origin, Reset
from .payloads import to_stored

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["ORIGIN_NODE", "ensure_caller", "ensure_origin", "ensure_thread", "free_name"]

ORIGIN_NODE = "start"


async def ensure_thread(
    engine: CheckpointEngine,
    client: Client,
    thread: str,
    origin: Origin | None,
    reset: Reset | None,
    run: WorkflowRun,
) -> None:
    """Make a workflow's thread with its first step, unless it is there; say what runs it."""
    if origin is not None:
        await ensure_origin(engine, client, reset.of if reset else thread, origin, run)
    if reset is not None:
        await _ensure_reset(engine, thread, reset)
    await engine.register_run(thread, run)


async def ensure_origin(
    engine: CheckpointEngine, client: Client, thread: str, origin: Origin, run: WorkflowRun
) -> None:
    """Make the thread and commit its first step, unless that has been done.

    The input is taken from the first event of the workflow's history, encoded as the server has
    it, so that it never travels a second time and an encrypted application stays encrypted.
    """
    if origin.caller is not None:
        await ensure_caller(engine, client, origin.caller, run.namespace)
    if origin.parents:
        await _make_thread(engine, thread, origin)
    else:
        await engine.create_thread(thread)
    if await engine.find_committed(origin.id) is not None:
        return
    response = await client.workflow_service.get_workflow_execution_history(
        GetWorkflowExecutionHistoryRequest(
            namespace=run.namespace,
            execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=origin.run_id),
            maximum_page_size=1,
        ),
        retry=True,
    )
    started = response.history.events[0].workflow_execution_started_event_attributes
    await engine.commit_step(
        StepCommit(
            checkpoint_id=origin.id,
            thread_id=thread,
            step=origin.step,
            parents=tuple(origin.parents),
            tools_result=[to_stored(payload) for payload in started.input.payloads],
            trigger=SnapshotTrigger.TASK_BOUNDARY,
            node=ORIGIN_NODE,
            metadata={
                "fingerprint": "start",
                "summary": f"{run.workflow_type} begins",
                "workflow_type": run.workflow_type,
                "task_queue": started.task_queue.name,
                "workflow_id": run.workflow_id,
                "run_id": origin.run_id,
                "resume": origin.resume,
                **({"base": origin.base} if origin.base else {}),
                **({"sub": origin.sub} if origin.sub else {}),
            },
            fallback_to_head=True,
        )
    )


async def ensure_caller(
    engine: CheckpointEngine, client: Client, caller: Caller, namespace: str
) -> None:
    """Make the thread of a caller that may not have done a step yet, and say what runs it."""
    if caller.origin is None:
        return
    run = WorkflowRun(
        namespace=namespace,
        workflow_id=caller.workflow_id,
        run_id=caller.run_id,
        workflow_type=caller.workflow_type,
        task_queue=caller.task_queue,
    )
    await ensure_origin(engine, client, caller.thread, caller.origin, run)
    if caller.run_id:
        await engine.register_run(caller.thread, run)


async def _make_thread(engine: CheckpointEngine, thread: str, origin: Origin) -> None:
    """Make a thread that begins from other steps of the session, unless that has been done."""
    with contextlib.suppress(ThreadNotFound):
        await engine.get_thread(thread)
        return
    for parent in origin.parents:
        if await engine.find_committed(parent) is not None:
            await engine.branch(parent, origin.branch, thread_id=thread)
            return
    assert origin.caller is not None
    below = await engine.frontier_at(origin.caller.thread, origin.step - 1)
    await engine.branch(below[0], origin.branch, thread_id=thread)


async def _ensure_reset(engine: CheckpointEngine, thread: str, reset: Reset) -> None:
    """Make the thread of a workflow that Temporal's reset has put back, unless it is there.

    It branches from what the workflow kept and takes the place of the thread that was left, whose
    later checkpoints stay as they are.
    """
    kept = await engine.get_info(reset.parents[-1])
    name = await free_name(engine, kept.session_id, thread, "reset")
    made = await engine.branch(kept.id, name, thread_id=thread)
    if made.step == kept.step:  # nothing done on it yet; later, another reset may have followed
        await engine.supersede(reset.of, thread)


async def free_name(engine: CheckpointEngine, session: str, thread: str, kind: str) -> str:
    """Return the name of a thread if there is such a thread, else the next free one of a kind."""
    threads = await engine.list_threads(session)
    for one in threads:
        if one.id == thread:
            return one.branch
    taken = {one.branch for one in threads}
    number = 1
    while f"{kind}-{number}" in taken:
        number += 1
    return f"{kind}-{number}"
