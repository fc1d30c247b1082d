"""What the plugin costs: the same workflow with it and without it, in turn, on one server."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from ckpt_engine.temporal import CheckpointPlugin

from .common import Bench, Figure
from .errands import Errand, work
from .temporal_server import quiet_runtime, temporal_server

AGENTS, OPEN_AGENTS = 50, 200
QUEUES = ("bench-with", "bench-without")
_SLOTS: dict[str, Any] = {"max_concurrent_activities": 300, "max_cached_workflows": 1000}


@dataclass
class Side:
    """One of the two contenders."""

    name: str
    client: Client
    queue: str
    ids: int = 0

    def worker(self) -> Worker:
        """Return a worker of its own."""
        return Worker(
            self.client, task_queue=self.queue, workflows=[Errand], activities=[work], **_SLOTS
        )

    async def errand(self, steps: int, *, waits: bool = False) -> str:
        """Start one; return its id."""
        self.ids += 1
        name = f"{self.queue}-{self.ids}"
        await self.client.start_workflow(
            Errand.run, args=[steps, waits], id=name, task_queue=self.queue
        )
        return name

    async def ended(self, name: str) -> None:
        """Wait until one has ended."""
        await self.client.get_workflow_handle(name).result()


async def run(bench: Bench) -> list[Figure]:
    """Let both take turns at one agent, at fifty, and at a restart with two hundred open ones."""
    async with temporal_server() as address, AsyncExitStack() as stack:
        sides = [
            await _side(address, "with", QUEUES[0], bench.folder / "overhead.db"),
            await _side(address, "without", QUEUES[1], None),
        ]
        for side in sides:
            await stack.enter_async_context(_running(side))
        latency = await _in_turn(bench, "one agent", sides, _one_agent, bench.size(9, 3))
        many = await _in_turn(bench, f"{AGENTS} agents", sides, _many, bench.size(5, 2))
        await stack.aclose()
        restart = await _in_turn(bench, "restart", sides, _restart, bench.size(3, 1))
    return [
        Figure(
            "step latency with the plugin / without",
            1.10,
            latency["with"] / latency["without"],
            note=f"{latency['with'] * 1000:.3g} / {latency['without'] * 1000:.3g} ms a step",
        ),
        Figure(
            f"steps/s of {AGENTS} agents with the plugin / without",
            0.90,
            many["without"] / many["with"],
            at_least=True,
            note=f"{1 / many['with']:,.0f} / {1 / many['without']:,.0f} steps a second",
        ),
        Figure(
            f"{OPEN_AGENTS} open agents go on after a restart, with / without",
            None,
            restart["with"] / restart["without"],
            note=f"{restart['with']:.3g} / {restart['without']:.3g} s",
        ),
    ]


async def _side(address: str, name: str, queue: str, database: Path | None) -> Side:
    plugins = [CheckpointPlugin(f"sqlite:///{database}")] if database else []
    client = await Client.connect(address, plugins=plugins, runtime=quiet_runtime())
    return Side(name, client, queue)


@asynccontextmanager
async def _running(side: Side) -> AsyncIterator[None]:
    async with side.worker():
        await side.ended(await side.errand(5))  # warm
        yield


async def _in_turn(
    bench: Bench,
    what: str,
    sides: list[Side],
    measure: Callable[[Bench, Side], Awaitable[float]],
    rounds: int,
) -> dict[str, float]:
    """Return the median of each, measured in turn, the first one changing."""
    taken: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 else sides[::-1]:
            bench.advance(f"overhead: {what}, round {turn}, {side.name} the plugin")
            taken[side.name].append(await measure(bench, side))
    return {name: statistics.median(times) for name, times in taken.items()}


async def _one_agent(bench: Bench, side: Side) -> float:
    """Return seconds a step of one agent alone."""
    steps = bench.size(100, 30)
    start = time.perf_counter()
    await side.ended(await side.errand(steps))
    return (time.perf_counter() - start) / steps


async def _many(bench: Bench, side: Side) -> float:
    """Return seconds a step, all agents together."""
    steps = bench.size(60, 8)
    start = time.perf_counter()
    names = await asyncio.gather(*(side.errand(steps) for _ in range(AGENTS)))
    await asyncio.gather(*map(side.ended, names))
    return (time.perf_counter() - start) / (steps * AGENTS)


async def _restart(bench: Bench, side: Side) -> float:
    """Return seconds from the start of a new worker until all open agents have ended."""
    steps = bench.size(20, 6)
    count = bench.size(OPEN_AGENTS, 20)
    async with side.worker():
        names = await asyncio.gather(*(side.errand(steps, waits=True) for _ in range(count)))
        await asyncio.gather(*(_half_way(side, name, steps) for name in names))
    for name in names:
        await side.client.get_workflow_handle(name).signal(Errand.go_on)
    start = time.perf_counter()
    async with side.worker():
        await asyncio.gather(*map(side.ended, names))
        return time.perf_counter() - start


async def _half_way(side: Side, name: str, steps: int) -> None:
    handle = side.client.get_workflow_handle(name)
    while True:
        described = await handle.describe()
        if described.history_length >= 3 + (steps // 2) * 6:
            return
        await asyncio.sleep(0.2)
