"""A worker killed at any point of a step: the run ends with what an undisturbed one leaves."""

from __future__ import annotations

import asyncio

from .conftest import StageMaker
from .courier import Trip
from .doom import Doom

BODIES = {
    "before-body": 1,
    "after-body": 2,
    "in-transaction": 2,
    "at-commit": 2,
    "after-commit": 1,
}
"""How often the body runs, by where its worker is killed: never again after the commit."""


async def test_a_killed_worker_leaves_no_trace_in_the_checkpoints(make_stage: StageMaker) -> None:
    async def scene(how: str, point: str) -> None:
        async with make_stage(f"{how}-{point}") as stage:
            trip = Trip.model_validate({"how": how})
            handle = await stage.start(trip)
            async with stage.worker(Doom(point, 2, "kill")) as doomed:
                assert await doomed.ended() != 0
            async with stage.worker():
                assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
            stored = await stage.agreed(handle)
            bodies = [len(stage.ledger.read("body", node=node)) for node in range(4)]
            assert (point, bodies) == (point, [1, 1, BODIES[point], 1])
            assert stored.story() == await stage.undisturbed(trip), (how, point)

    await asyncio.gather(*(scene("async", point) for point in BODIES), scene("thread", "at-commit"))
