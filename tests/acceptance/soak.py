"""Many agents, a few workers, and kills at random: what came of it, counted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from .conftest import Stage
from .courier import Trip
from .record import History, Stored, history_of

NODES = 6
KINDS = ["async", "thread", "pair"]


@dataclass
class Figures:
    """What a soak has found.

    Attributes:
        doubles: Steps with more than one checkpoint.
        losses: Steps of the history without their checkpoint.
        differing: Steps whose result is another one in the history than in the store.
        run_again: Bodies that began after their step had been committed.
        unlike: Agents whose checkpoints are not those of an undisturbed run.
        repeated: Bodies that ran more than once, since their worker died before the commit.
    """

    kills: int = 0
    agents: int = 0
    steps: int = 0
    bodies: int = 0
    repeated: int = 0
    doubles: int = 0
    losses: int = 0
    differing: int = 0
    run_again: int = 0
    unlike: int = 0
    seconds: float = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        wrong = (self.doubles, self.losses, self.differing, self.run_again, self.unlike)
        return not any(wrong)


class Soak:
    """Keeps agents running while their workers are killed.

    Args:
        stage: Where.
        kills: How many workers to kill in all.
        agents: How many agents are to run at any time.
        workers: How many workers are to run at any time.
        seed: Of the random lives.
    """

    def __init__(self, stage: Stage, *, kills: int, agents: int, workers: int, seed: int) -> None:
        self._stage = stage
        self._kills = kills
        self._agents = agents
        self._workers = workers
        self._random = random.Random(seed)
        self._done: list[tuple[Trip, WorkflowHandle[Any, list[str]]]] = []
        self.figures = Figures()

    async def run(self) -> Figures:
        """Kill, let the agents end, and count."""
        began = time.monotonic()
        undisturbed = {}
        for kind in KINDS:
            trip = Trip.model_validate({"how": kind, "nodes": NODES})
            undisturbed[kind] = await self._stage.undisturbed(trip)
        agents = [asyncio.create_task(self._keep_one()) for _ in range(self._agents)]
        await asyncio.gather(*(self._reap() for _ in range(self._workers)))
        async with self._stage.worker(), self._stage.worker():
            await asyncio.gather(*agents)
        self.figures.seconds = round(time.monotonic() - began, 1)
        bodies = self._bodies()
        for trip, handle in self._done:
            history = await history_of(self._stage.client, handle.id)
            stored = await self._stage.stored(handle, verify=False)
            self._count(history, stored, bodies.get(handle.id, []))
            self.figures.unlike += stored.story() != undisturbed[trip.how]
            self.figures.kinds[trip.how] += 1
        report = await self._stage.engine.verify()
        assert report.ok, report
        return self.figures

    async def _keep_one(self) -> None:
        """Start an agent after the other until there were kills enough."""
        while self.figures.kills < self._kills:
            kind = self._random.choice(KINDS)
            trip = Trip.model_validate({"how": kind, "nodes": NODES})
            handle = await self._stage.start(trip)
            assert await result_of(handle) == undisturbed_words(trip)
            self._done.append((trip, handle))

    async def _reap(self) -> None:
        """Start a worker after the other, and kill each before long."""
        while self.figures.kills < self._kills:
            self.figures.kills += 1
            async with self._stage.worker() as worker:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(3):
                        await self._stage.ledger.until("attempt", pid=worker.pid)
                await asyncio.sleep(self._random.uniform(0, 0.3))
                worker.send(signal.SIGKILL)
                await worker.ended()

    def _bodies(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for body in self._stage.ledger.read("body"):
            found.setdefault(body["workflow"], []).append(body)
        return found

    def _count(self, history: History, stored: Stored, bodies: list[dict[str, Any]]) -> None:
        figures, steps = self.figures, stored.steps
        figures.agents += 1
        figures.steps += len(history.results)
        figures.bodies += len(bodies)
        figures.repeated += len(bodies) - len({body["id"] for body in bodies})
        figures.doubles += len(steps.keys() - history.results.keys())
        figures.doubles += len(steps) - len({step.step for step in steps.values()})
        figures.losses += len(history.results.keys() - steps.keys())
        for checkpoint_id, payload in history.results.items():
            if checkpoint_id in steps:
                figures.differing += stored.result(checkpoint_id) != payload
        for body in bodies:
            step = steps.get(body["id"])
            committed = step.created_at.timestamp() * 1000 if step else 0
            figures.run_again += body["at_ms"] > committed + 1  # it is kept in whole milliseconds


async def result_of(handle: WorkflowHandle[Any, list[str]]) -> list[str]:
    """Wait for the result; a server that has too much to do may not answer in time."""
    while True:
        with contextlib.suppress(RPCError):
            return await handle.result()


def undisturbed_words(trip: Trip) -> list[str]:
    each = 2 if trip.how == "pair" else 1
    return [f"at {node}" for node in range(trip.nodes) for _ in range(each)]
