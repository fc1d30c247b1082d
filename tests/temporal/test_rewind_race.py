"""A hundred rewinds, each in the same workflow task as the completion of the step it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine.temporal import (
    CheckpointPlugin,
    Overrides,
    Rewindable,
    RewindRequest,
    Target,
    current_step,
)

REWIND = RewindRequest(
    to=Target(step=0), overrides=Overrides(messages=[{"role": "user", "content": "again"}])
)


GATES: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
"""By workflow id: set when its step has begun, and what lets that go on."""


@activity.defn
async def hold(root: str) -> str:
    """Wait for the gate, once; a child's step finds none."""
    if (held := GATES.pop(root, None)) is not None:
        held[0].set()
        await held[1].wait()
    return "held"


@activity.defn
async def words() -> list[str]:
    return [message["content"] for message in (await current_step()).messages]


async def _do(step: Any, *args: Any) -> Any:
    return await workflow.execute_activity(
        step, args=args, start_to_close_timeout=timedelta(minutes=2)
    )


@workflow.defn
class LastStep(Rewindable, resume="next_node"):
    """Its body returns in the task that hears of its only step."""

    @workflow.run
    async def run(self, root: str) -> list[str]:
        await _do(hold, root)
        return ["again"] if self.seed is not None else ["never stopped"]


@workflow.defn
class OneMore(Rewindable, resume="next_node"):
    """Its body asks for another step in that task."""

    @workflow.run
    async def run(self, root: str) -> list[str]:
        await _do(hold, root)
        said: list[str] = await _do(words)
        return said


@asynccontextmanager
async def deciding(client: Client, queue: str, **options: Any) -> AsyncIterator[None]:
    """A worker that only runs workflow code."""
    async with Worker(
        client,
        task_queue=queue,
        workflows=[LastStep, OneMore],
        no_remote_activities=True,
        **options,
    ):
        yield


@pytest.mark.timeout(400)  # 200 workflows on whatever machine
async def test_a_hundred_rewinds_that_meet_a_steps_completion_are_all_honoured(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    plugin = CheckpointPlugin(f"sqlite:///{tmp_path}/ckpt.db")
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host, plugins=[plugin]
    )
    said, met = [], []
    async with Worker(client, task_queue=task_queue, activities=[hold, words]):
        for begin in range(0, 100, 25):  # all at once, a small machine is too slow for the server
            # Without a cache, so that no task waits for the worker that has gone.
            async with deciding(client, task_queue, max_cached_workflows=0):
                stopped = await asyncio.gather(
                    *(_at_its_step(client, task_queue, begin + n) for n in range(25))
                )
            # Nobody decides now: what happens meanwhile is all in the next workflow task.
            await asyncio.gather(*(_meet(n, *both) for n, both in enumerate(stopped)))
            async with deciding(client, task_queue):
                said += await asyncio.gather(*(handle.result() for handle, _ in stopped))
            histories = await asyncio.gather(*(handle.fetch_history() for handle, _ in stopped))
            met += [_met(history.events) for history in histories]
    lost = [words for words in said if words != ["again"]]
    assert not lost, f"{len(lost)} of {len(said)} rewinds were lost: {lost[0]}"
    assert met == [True] * 100


async def _at_its_step(
    client: Client, queue: str, n: int
) -> tuple[WorkflowHandle[Any, list[str]], asyncio.Event]:
    name = f"{queue}-{n}"
    reached, opened = GATES.setdefault(name, (asyncio.Event(), asyncio.Event()))
    handle = await client.start_workflow(
        "OneMore" if n % 2 else "LastStep", name, id=name, task_queue=queue
    )
    await reached.wait()
    return handle, opened


async def _meet(n: int, handle: WorkflowHandle[Any, Any], opened: asyncio.Event) -> None:
    """Have the step complete and the signal arrive, in one order or the other."""
    if n % 4 < 2:
        await handle.signal("rewind", REWIND.model_dump(mode="json"))
    opened.set()
    while (await handle.describe()).raw_description.pending_activities:
        await asyncio.sleep(0.05)
    if n % 4 >= 2:
        await handle.signal("rewind", REWIND.model_dump(mode="json"))


def _met(events: Any) -> bool:
    """Whether no workflow task began between the step's completion and the signal."""
    kinds = [event.event_type for event in events]
    done = kinds.index(EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
    asked = kinds.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
    between = kinds[min(done, asked) : max(done, asked)]
    return EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED not in between
