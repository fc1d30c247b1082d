"""How much Temporal history a step costs, early and late, and what becomes of a plain workflow."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Worker

from ckpt_engine.temporal import CheckpointPlugin

from .common import Bench, Figure
from .talks import ACTIVITIES, WORKFLOWS, PlainTalk, Talk
from .temporal_server import quiet_runtime, temporal_server

STEPS, SIZE = 5_000, 10_500
"""A conversation of more than 50 MB."""

CALLS, RESULT, OPENING = 100, 5_000, 836_000
"""The case of sdk-python issue 1890: some 209,000 tokens, 5 KB a result, 100 calls in one turn."""

QUEUE = "bench-histories"


@dataclass
class History:
    """What the runs of one workflow left in Temporal.

    Attributes:
        runs: Bytes of history, run by run.
        steps: Bytes of history, step by step.
        status: How the last run ended.
    """

    runs: list[int]
    steps: list[int]
    status: str

    def around(self, step: int) -> float:
        """Return the mean bytes of the twenty steps around one."""
        return statistics.fmean(self.steps[step - 10 : step + 10])


async def run(bench: Bench) -> list[Figure]:
    """Run both shapes of both conversations."""
    async with temporal_server() as address, _worker(bench, address) as client:
        return [*await _long(bench, client), *await _one_turn(bench, client)]


@asynccontextmanager
async def _worker(bench: Bench, address: str) -> AsyncIterator[Client]:
    plugin = CheckpointPlugin(f"sqlite:///{bench.folder / 'histories.db'}")
    client = await Client.connect(address, plugins=[plugin], runtime=quiet_runtime())
    async with Worker(client, task_queue=QUEUE, workflows=WORKFLOWS, activities=ACTIVITIES):
        yield client


async def _long(bench: Bench, client: Client) -> list[Figure]:
    steps = bench.size(STEPS, 600)
    late = steps * 4 // 5
    ours = await _talk(bench, client, Talk, steps, SIZE, 0)
    plain = await _talk(bench, client, PlainTalk, steps, SIZE, 0)
    megabytes = steps * SIZE / 1e6
    early, later = ours.around(12), ours.around(late)
    return [
        Figure(
            f"Temporal history a step, at step {late}",
            1.5,
            later / 1000,
            "KB",
            note=f"{early / 1000:.3g} KB at step 10; {steps} steps, {megabytes:.0f} MB said",
        ),
        Figure("the same / at step 10", 1.1, later / early),
        Figure(
            f"largest single history of {steps} steps",
            50.0,
            max(ours.runs) / 1e6,
            "MB",
            note=f"{len(ours.runs)} runs by continue-as-new, {ours.status}",
        ),
        Figure(
            "steps of a plain workflow that carries the conversation",
            None,
            len(plain.steps),
            "steps",
            note=f"of {steps}; {plain.status} at {sum(plain.runs) / 1e6:.1f} MB of history",
        ),
    ]


async def _one_turn(bench: Bench, client: Client) -> list[Figure]:
    ours = await _talk(bench, client, Talk, CALLS, RESULT, OPENING)
    plain = await _talk(bench, client, PlainTalk, CALLS, RESULT, OPENING)
    return [
        Figure(
            f"history of {CALLS} model calls on {OPENING // 1000:,} KB (sdk-python 1890)",
            0.5,
            sum(ours.runs) / 1e6,
            "MB",
            note=f"{ours.status} after {len(ours.steps)} calls",
        ),
        Figure(
            "the same by a plain workflow",
            None,
            sum(plain.runs) / 1e6,
            "MB",
            note=f"{plain.status} after {len(plain.steps)} calls",
        ),
    ]


async def _talk(
    bench: Bench, client: Client, kind: type[Talk] | type[PlainTalk], *args: int
) -> History:
    name = f"{kind.__name__}-{'-'.join(map(str, args))}"
    handle = await client.start_workflow(kind.run, args=list(args), id=name, task_queue=QUEUE)
    run_id: str | None = handle.first_execution_run_id
    watching = asyncio.create_task(_watch(bench, client, name, args[0]))
    try:
        while True:  # a plain workflow may be ended by the server, or never get further
            latest = await client.get_workflow_handle(name).describe()
            if latest.status != WorkflowExecutionStatus.RUNNING or await _stuck(client, name):
                break
            await asyncio.sleep(0.5)
    finally:
        watching.cancel()
    history = History([], [], "")
    while run_id is not None:
        run_id = await _read(client, name, run_id, history)
    if history.status == "stuck":
        await handle.terminate()
    return history


async def _watch(bench: Bench, client: Client, name: str, steps: int) -> None:
    while True:
        found = await client.get_workflow_handle(name).describe()
        bench.advance(f"histories: {name}, {found.history_length} events of its run, {steps} steps")
        await asyncio.sleep(2)


async def _stuck(client: Client, name: str) -> bool:
    """Whether the server has refused the workflow's newest task several times."""
    described = await client.get_workflow_handle(name).describe()
    return described.raw_description.pending_workflow_task.attempt > 3


async def _read(client: Client, name: str, run_id: str, history: History) -> str | None:
    """Add one run to what is known; return the run that followed it, if one did."""
    size, step, begun = 0, 0, False
    following = None
    history.status = "stuck"
    async for event in client.get_workflow_handle(name, run_id=run_id).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            if begun:
                history.steps.append(step)
            step, begun = 0, True
        size += event.ByteSize()
        step += event.ByteSize()
        if event.HasField("workflow_execution_continued_as_new_event_attributes"):
            attributes = event.workflow_execution_continued_as_new_event_attributes
            following = attributes.new_execution_run_id
        last = EventType.Name(event.event_type)
        if last.startswith("EVENT_TYPE_WORKFLOW_EXECUTION_"):
            history.status = last.removeprefix("EVENT_TYPE_WORKFLOW_EXECUTION_").lower()
    if begun:
        history.steps.append(step)
    history.runs.append(size)
    return following
