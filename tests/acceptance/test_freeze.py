"""A worker frozen at any point of a step wakes when another has done it: a zombie is harmless."""

from __future__ import annotations

import asyncio
import signal

from .conftest import StageMaker
from .courier import Trip
from .doom import Doom

BODIES = {"before-attempt": {1}, "after-body": {2}, "at-commit": {1, 2}, "after-commit": {1}}
"""How often the body may run: a zombie that wakes after the commit does not begin with it.

What is about to be committed is not committed: whoever looks before that runs the body, too.
"""


async def test_a_zombie_that_wakes_changes_nothing(make_stage: StageMaker) -> None:
    async with make_stage("undisturbed") as stage:
        undisturbed = await stage.undisturbed(Trip())

    async def scene(point: str) -> None:
        async with make_stage(point) as stage:
            handle = await stage.start(Trip())
            async with stage.worker(Doom(point, 2, "freeze")) as zombie:
                await zombie.frozen()
                async with stage.worker():
                    if point == "at-commit":  # it holds the lock for which the other waits
                        await stage.ledger.until("attempt", node=2, times=2)
                        zombie.send(signal.SIGCONT)
                    assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
                    zombie.send(signal.SIGCONT)
                    await stage.ledger.until("answered", node=2, pid=zombie.pid)
            stored = await stage.agreed(handle)
            assert stored.story() == undisturbed, point
            bodies = len(stage.ledger.read("body", node=2))
            assert bodies in BODIES[point], point

    await asyncio.gather(*map(scene, BODIES))
