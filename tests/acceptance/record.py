"""What the server's history says of a session's steps, what the store says, and that they agree."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from ckpt_engine import Checkpoint, CheckpointEngine
from ckpt_engine.temporal.payloads import from_stored

ENDED = {
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: "completed",
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: "failed",
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "timed_out",
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED: "canceled",
}


@dataclass
class History:
    """The recorded steps of one run, by the checkpoint id that each was given.

    Attributes:
        results: Encoded results of those that were completed.
        otherwise: How the others ended.
        local: Encoded results of local activities, in the order of the history.
    """

    results: dict[str, Payload] = field(default_factory=dict)
    otherwise: dict[str, str] = field(default_factory=dict)
    local: list[Payload] = field(default_factory=list)


async def history_of(client: Client, workflow_id: str) -> History:
    history = History()
    given: dict[int, str] = {}
    for event in (await client.get_workflow_handle(workflow_id).fetch_history()).events:
        kind = event.event_type
        if kind == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            fields = event.activity_task_scheduled_event_attributes.header.fields
            header = json.loads(fields["ckpt"].data) if "ckpt" in fields else {"record": False}
            if header.get("record", True):
                given[event.event_id] = str(header["id"])
        elif kind == EventType.EVENT_TYPE_MARKER_RECORDED:
            details = event.marker_recorded_event_attributes.details
            if "result" in details:
                history.local.append(details["result"].payloads[0])
        elif kind in ENDED:
            attributes = getattr(event, event.WhichOneof("attributes") or "")
            step = given.pop(attributes.scheduled_event_id, None)
            if step is not None and ENDED[kind] == "completed":
                history.results[step] = attributes.result.payloads[0]
            elif step is not None:
                history.otherwise[step] = ENDED[kind]
    return history


@dataclass
class Stored:
    """Every checkpoint of a session, and which of them are steps of a workflow."""

    checkpoints: dict[str, Checkpoint]

    @property
    def steps(self) -> dict[str, Checkpoint]:
        return {k: c for k, c in self.checkpoints.items() if "attempt" in c.metadata}

    def result(self, checkpoint_id: str) -> Payload:
        payload = from_stored(self.checkpoints[checkpoint_id].tools_result)
        assert payload is not None
        return payload

    def story(self) -> list[tuple[Any, ...]]:
        """Everything in which two runs of the same agent must be alike."""
        number = {c.id: c.step for c in self.checkpoints.values()}
        return sorted(
            (
                c.step,
                c.node,
                c.next_node,
                [message["content"] for message in c.messages],
                c.state,
                [number[parent] for parent in c.parents],
            )
            for c in self.checkpoints.values()
        )


async def stored_of(engine: CheckpointEngine, workflow_id: str, *, verify: bool = True) -> Stored:
    found = await engine.find_run(workflow_id)
    assert found is not None, f"no thread for {workflow_id}"
    tree = await engine.get_checkpoint_tree(found[0].id)
    if verify:
        report = await engine.verify()
        assert report.ok, report
    return Stored({node.info.id: await engine.get(node.info.id) for node in tree.nodes})


def check_agreement(history: History, stored: Stored) -> None:
    """Every completed step has one checkpoint, with the history's result and its own message."""
    if history.local:
        in_order = sorted(stored.steps.values(), key=lambda c: c.step)
        assert history.local == [stored.result(c.id) for c in in_order]
    else:
        assert history.results.keys() == stored.steps.keys()
    for checkpoint_id, payload in history.results.items():
        assert stored.result(checkpoint_id) == payload
    check_tokens(stored)


def check_tokens(stored: Stored) -> None:
    """The message that a step left is that of the run of its body whose result is stored."""
    for checkpoint_id, checkpoint in stored.steps.items():
        parcel = json.loads(stored.result(checkpoint_id).data)
        assert parcel["token"] in [message["token"] for message in checkpoint.messages]
        assert checkpoint.state["last"] == parcel["node"]
