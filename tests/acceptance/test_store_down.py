"""A store that cannot be written for longer than an attempt lasts."""

from __future__ import annotations

import pytest

from .conftest import Stage, locked
from .courier import Trip
from .doom import Doom


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_a_store_that_is_away_for_longer_than_an_attempt_costs_only_time(
    stage: Stage, how: str
) -> None:
    trip = Trip.model_validate({"how": how, "attempt": 3})
    undisturbed = await stage.undisturbed(trip)
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(trip)
        await stage.ledger.until("body", node=2, workflow=handle.id)
        async with locked(stage.url):
            let_go.touch()
            again = await stage.ledger.until("body", node=2, attempt=2, workflow=handle.id)
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
    assert (await stage.agreed(handle)).story() == undisturbed
    # Our heartbeats while the first attempt tried to commit have not erased the user's.
    assert again[0]["details"] == ["cursor-2"]


async def test_a_short_absence_does_not_run_the_step_twice(stage: Stage) -> None:
    undisturbed = await stage.undisturbed(Trip())
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(Trip())
        await stage.ledger.until("body", node=2, workflow=handle.id)
        async with locked(stage.url, seconds=3):  # twice the heartbeat timeout
            let_go.touch()
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
    assert (await stage.agreed(handle)).story() == undisturbed
    assert len(stage.ledger.read("body", node=2, workflow=handle.id)) == 1
