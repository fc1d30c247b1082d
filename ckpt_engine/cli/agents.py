"""Start the shipped agent's workflow, and find out how it ended."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from .errors import CliError, Exit

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from ckpt_agent.workflows.messages import AgentInput
    from ckpt_engine import CheckpointEngine

__all__ = ["Outcome", "has_worker", "name_taken", "outcome_of", "start_agent", "why_stuck"]

_RECENT_SECONDS = 90  # a worker polls at least once a minute
_STUCK_ATTEMPTS = 2  # it failed once, or was lost with its worker, which leaves no reason
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """How an agent ended.

    Attributes:
        answer: Its answer.
        error: Why it failed, else ``None``.
        checkpoint: Its newest checkpoint, if it answered.
    """

    answer: str | None = None
    error: str | None = None
    checkpoint: str | None = None


async def start_agent(
    client: Client,
    start: AgentInput,
    workflow_id: str | None,
    task_queue: str,
    *,
    again: bool = False,
) -> WorkflowHandle[Any, Any]:
    """Start an agent and return its handle.

    Args:
        client: A client of the server.
        start: What it is asked.
        workflow_id: Its id; drawn when absent.
        task_queue: Where its worker listens.
        again: Begin another session under an id whose workflow has ended.

    Raises:
        CliError: A workflow of this id runs already, or has ended; or the server refuses.
    """
    from temporalio.common import WorkflowIDReusePolicy
    from temporalio.exceptions import WorkflowAlreadyStartedError
    from temporalio.service import RPCError

    from ckpt_agent.workflows.agent import AgentWorkflow

    name = workflow_id or f"agent-{secrets.token_hex(3)}"
    reuse = WorkflowIDReusePolicy
    try:
        return await client.start_workflow(
            AgentWorkflow.run,
            start,
            id=name,
            task_queue=task_queue,
            id_reuse_policy=reuse.ALLOW_DUPLICATE if again else reuse.REJECT_DUPLICATE,
        )
    except WorkflowAlreadyStartedError:
        raise await name_taken(client, name) from None
    except RPCError as err:
        raise CliError(f"the server refuses to start it: {err.message}", "") from None


async def name_taken(client: Client, name: str, *, known: bool = False) -> CliError:
    """Return what to say of a workflow id that is in use: it runs, or it has ended.

    Args:
        client: A client of the server.
        name: The id.
        known: Whether there are checkpoints of it.
    """
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.service import RPCError, RPCStatusCode

    runs = False
    try:
        found = await client.get_workflow_handle(name).describe()
        runs = found.status == WorkflowExecutionStatus.RUNNING
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
    if runs:
        return CliError(
            f"a workflow {name!r} runs already", f"see it: ckpt log {quote(name)}", Exit.USAGE
        )
    at = quote(name)
    look = f"see it: ckpt tree {at}; go on from it: ckpt rewind {at} --back 0 --say TEXT; "
    return CliError(
        f"the session {name!r} was there already, and has ended",
        (look if known else "") + "begin another one under this id: --again",
        Exit.USAGE,
    )


async def outcome_of(engine: CheckpointEngine, handle: WorkflowHandle[Any, Any]) -> Outcome:
    """Wait for an agent to end and return how; an answer too long for Temporal is looked up."""
    from pydantic import ValidationError
    from temporalio.client import WorkflowFailureError

    from ckpt_agent.workflows.messages import AgentResult

    try:
        result = await handle.result()
    except WorkflowFailureError as err:
        return Outcome(error=_reason(err))
    try:
        ended = AgentResult.model_validate(result, from_attributes=True)
    except ValidationError:  # another application's workflow
        return Outcome(answer=result if isinstance(result, str) else json.dumps(result))
    answer = ended.answer
    if answer is None:
        answer = _last_text(await engine.get(ended.checkpoint))
    return Outcome(answer=answer, checkpoint=ended.checkpoint)


async def has_worker(client: Client, task_queue: str) -> bool:
    """Return whether a worker has asked for workflow tasks lately."""
    import time

    from temporalio.api.enums.v1 import TaskQueueType
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    newest = max((p.last_access_time.ToSeconds() for p in answer.pollers), default=0)
    return time.time() - newest < _RECENT_SECONDS


async def why_stuck(handle: WorkflowHandle[Any, Any]) -> str:
    """Wait until a workflow's own code fails again and again, and return with what.

    Temporal tries such code for ever, so that a corrected worker can go on with it.
    """
    import asyncio

    while True:
        seen = await handle.describe()
        if seen.raw_description.pending_workflow_task.attempt >= _STUCK_ATTEMPTS:
            reason = ""
            async for event in handle.fetch_history_events():
                if event.HasField("workflow_task_failed_event_attributes"):
                    reason = event.workflow_task_failed_event_attributes.failure.message
            if reason:
                return reason
        await asyncio.sleep(_LOOK_SECONDS)


def _reason(err: BaseException) -> str:
    """Return the first failure that says something: the others name who passed it on."""
    from temporalio.exceptions import ActivityError, ChildWorkflowError

    found = err.__cause__ or err
    while isinstance(found, ActivityError | ChildWorkflowError) and found.__cause__ is not None:
        found = found.__cause__
    return str(getattr(found, "message", None) or found)


def _last_text(checkpoint: Any) -> str | None:
    for message in reversed(checkpoint.messages):
        parts = message.get("parts", []) if isinstance(message, dict) else []
        texts = [p.get("content") for p in parts if p.get("part_kind") == "text"]
        if texts:
            return "\n\n".join(map(str, texts))
    return None
