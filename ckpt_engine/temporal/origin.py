"""Step 0: how the workflow was started, so that a session can be rewound to its very start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest

from ..model import SnapshotTrigger, StepCommit, WorkflowRun
from .contract import Origin
from .payloads import to_stored

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["ORIGIN_NODE", "ensure_origin"]

ORIGIN_NODE = "start"


async def ensure_origin(
    engine: CheckpointEngine, client: Client, thread: str, origin: Origin, run: WorkflowRun
) -> None:
    """Make the thread and commit its step 0, unless that has been done.

    The input is taken from the first event of the workflow's history, encoded as the server has
    it, so that it never travels a second time and an encrypted application stays encrypted.
    """
    await engine.create_thread(thread)
    if await engine.find_committed(origin.id) is not None:
        return
    response = await client.workflow_service.get_workflow_execution_history(
        GetWorkflowExecutionHistoryRequest(
            namespace=run.namespace,
            execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=origin.run_id),
            maximum_page_size=1,
        )
    )
    started = response.history.events[0].workflow_execution_started_event_attributes
    await engine.commit_step(
        StepCommit(
            checkpoint_id=origin.id,
            thread_id=thread,
            step=0,
            parents=(),
            tools_result=[to_stored(payload) for payload in started.input.payloads],
            trigger=SnapshotTrigger.TASK_BOUNDARY,
            node=ORIGIN_NODE,
            metadata={
                "fingerprint": "start",
                "workflow_type": run.workflow_type,
                "task_queue": started.task_queue.name,
                "workflow_id": run.workflow_id,
                "run_id": origin.run_id,
                "resume": origin.resume,
            },
        )
    )
