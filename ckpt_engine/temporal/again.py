"""What a run was given before a seed, read from its history: its input, signals and updates.

Everything is decoded with the context of the run it was sent to and encoded with that of the
child, so that an application's codec sees what it expects.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from temporalio.api.common.v1 import Header, Payload, Payloads, WorkflowExecution
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.update.v1 import Input, Meta, Request, WaitPolicy
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    SignalWorkflowExecutionRequest,
    UpdateWorkflowExecutionRequest,
)
from temporalio.converter import WorkflowSerializationContext
from temporalio.service import RPCError, RPCStatusCode

from .contract import SendAgain
from .headers import HEADER, read_header, sent_again
from .rewindable import OWN_SIGNALS, OWN_UPDATES

if TYPE_CHECKING:
    from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
    from temporalio.client import Client

__all__ = ["count_again", "decoded", "how_it_started", "send_again"]


@dataclass(frozen=True)
class _Message:
    kind: Literal["signal", "update"]
    name: str
    args: Sequence[Payload]


async def how_it_started(
    client: Client, workflow_id: str, run_id: str
) -> WorkflowExecutionStartedEventAttributes | None:
    """Return the first event of a run; ``None`` past the namespace's retention."""
    try:
        response = await client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=client.namespace,
                execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                maximum_page_size=1,
            )
        )
    except RPCError as err:
        if err.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            return None
        raise
    return response.history.events[0].workflow_execution_started_event_attributes


async def decoded(client: Client, workflow_id: str, payloads: Sequence[Payload]) -> list[Payload]:
    """Return payloads of a workflow as its code would see them."""
    context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=workflow_id)
    codec = client.data_converter.with_context(context).payload_codec
    return list(await codec.decode(payloads) if codec else payloads)


async def _encoded(client: Client, workflow_id: str, payloads: Sequence[Payload]) -> Payloads:
    context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=workflow_id)
    codec = client.data_converter.with_context(context).payload_codec
    return Payloads(payloads=await codec.encode(payloads) if codec else payloads)


async def count_again(client: Client, ask: SendAgain) -> int:
    """Return how many messages of the user's a run had had before the seed.

    Past the namespace's retention there is no history, and none is sent again.
    """
    return sum([1 async for _ in _before(client, ask)])


async def send_again(client: Client, ask: SendAgain) -> None:
    """Send the messages from before the seed to its child, in their order; safe to do again."""
    number = 0
    async for message in _before(client, ask):
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{ask.child}/{number}"))
        args = await _encoded(client, ask.child, await decoded(client, ask.source, message.args))
        if message.kind == "signal":
            await _signal(client, ask.child, message.name, args, key)
        else:
            await _update(client, ask.child, message.name, args, key)
        number += 1


async def _signal(client: Client, child: str, name: str, args: Payloads, key: str) -> None:
    await client.workflow_service.signal_workflow_execution(
        SignalWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=child),
            signal_name=name,
            input=args,
            request_id=key,
            identity=client.identity,
            header=Header(fields={HEADER: sent_again()}),
        )
    )


async def _update(client: Client, child: str, name: str, args: Payloads, key: str) -> None:
    accepted = Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_ACCEPTED
    request = UpdateWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=child),
        wait_policy=WaitPolicy(lifecycle_stage=accepted),
        request=Request(
            meta=Meta(update_id=key, identity=client.identity),
            input=Input(header=Header(fields={HEADER: sent_again()}), name=name, args=args),
        ),
    )
    while (await client.workflow_service.update_workflow_execution(request)).stage < accepted:
        pass


async def _before(client: Client, ask: SendAgain) -> AsyncIterator[_Message]:
    """Yield what a run was sent before its step ``ask.step`` was scheduled, oldest first."""
    step = 0
    handle = client.get_workflow_handle(ask.source, run_id=ask.run_id)
    try:
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_scheduled_event_attributes"):
                headers = event.activity_task_scheduled_event_attributes.header.fields
                fields = read_header(headers.get(HEADER)) or {}
                step = max(step, int(fields.get("step", 0)))
            elif step < ask.step and (message := _message(event)) is not None:
                yield message
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise


def _message(event: HistoryEvent) -> _Message | None:
    if event.HasField("workflow_execution_signaled_event_attributes"):
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name not in OWN_SIGNALS:
            return _Message("signal", signal.signal_name, list(signal.input.payloads))
    if event.HasField("workflow_execution_update_accepted_event_attributes"):
        update = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
        if update.name not in OWN_UPDATES:
            return _Message("update", update.name, list(update.args.payloads))
    return None
