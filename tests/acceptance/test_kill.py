"""A worker killed at any point of a step: the run ends with what an undisturbed one leaves."""

from __future__ import annotations

import asyncio
import json

from .conftest import StageMaker
from .courier import Trip
from .doom import Doom
from .record import history_of

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


async def test_a_step_whose_result_was_not_kept_runs_again_when_its_report_was_lost(
    make_stage: StageMaker,
) -> None:
    """The one checkpoint is that of the first run of its body, the history has the second's."""

    async def scene(keep: str) -> None:
        async with make_stage(keep) as stage:
            trip = Trip()
            handle = await stage.start(trip)
            async with stage.worker(Doom("after-commit", 2, "kill"), keep=keep) as doomed:
                assert await doomed.ended() != 0
            committed = {c.step: c for c in (await stage.stored(handle)).steps.values()}
            async with stage.worker(keep=keep):
                assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
            stored = await stage.stored(handle)
            bodies = [len(stage.ledger.read("body", node=node)) for node in range(4)]
            assert (keep, bodies) == (keep, [1, 1, 2, 1])
            assert stored.story() == await stage.undisturbed(trip)
            assert all(stored.steps[c.id] == c for c in committed.values())
            history = await history_of(stage.client, handle.id)
            assert history.results.keys() == stored.steps.keys()
            third = committed[3]
            assert third.tools_result["kept"] == keep
            reported = json.loads(history.results[third.id].data)
            assert reported["node"] == 2
            assert reported["token"] != third.messages[-1]["token"]

    await asyncio.gather(*(scene(keep) for keep in ("digest", "nothing", "redacted")))
