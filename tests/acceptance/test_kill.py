"""A worker killed at any point of a step: the run ends with what an undisturbed one leaves."""

from __future__ import annotations

import signal

import pytest

from .conftest import Stage
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


@pytest.mark.parametrize(
    ("how", "point"), [*(("async", point) for point in BODIES), ("thread", "at-commit")]
)
async def test_a_killed_worker_leaves_no_trace_in_the_checkpoints(
    stage: Stage, how: str, point: str
) -> None:
    trip = Trip.model_validate({"how": how})
    undisturbed = await stage.undisturbed(trip)
    handle = await stage.start(trip)
    async with stage.worker(Doom(point, 2, "kill")) as doomed:
        assert await doomed.ended() == -signal.SIGKILL
    async with stage.worker():
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
    stored = await stage.agreed(handle)
    assert stored.story() == undisturbed
    assert len(stage.ledger.read("body", node=2, workflow=handle.id)) == BODIES[point]
    assert len(stage.ledger.read("body", node=1, workflow=handle.id)) == 1
