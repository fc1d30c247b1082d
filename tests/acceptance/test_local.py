"""Local activities are at-least-once: they may run again, and never get one another's result."""

from __future__ import annotations

import json
from typing import Any

from temporalio.client import WorkflowHandle

from .conftest import Stage
from .courier import Courier, Trip
from .doom import Doom
from .record import check_tokens, history_of

TRIP = Trip(how="local", nodes=3)


async def start_and_lose(stage: Stage) -> WorkflowHandle[Any, list[str]]:
    """Start an agent whose worker dies before the server hears of the two steps that are done."""
    handle = await stage.start(TRIP)
    async with stage.worker(Doom("after-commit", 1, "kill")) as doomed:
        await doomed.ended()
    assert [c.state["last"] for c in (await stage.stored(handle)).steps.values()] == [0, 1]
    assert not (await history_of(stage.client, handle.id)).local
    return handle


async def test_local_steps_that_were_committed_do_not_run_again_on_the_same_way(
    stage: Stage,
) -> None:
    undisturbed = await stage.undisturbed(TRIP)
    handle = await start_and_lose(stage)
    async with stage.worker():
        assert await handle.result() == ["at 0", "at 1", "at 2"]
    stored = await stage.stored(handle)
    assert stored.story() == undisturbed
    local = (await history_of(stage.client, handle.id)).local
    assert local == [stored.result(c) for c in stored.steps]
    assert [len(stage.ledger.read("body", node=n, workflow=handle.id)) for n in range(3)] == [1] * 3


async def test_ids_drawn_in_another_order_give_no_step_the_result_of_another(stage: Stage) -> None:
    handle = await start_and_lose(stage)
    lost = await stage.stored(handle)
    assert len(lost.steps) == 2
    await handle.signal(Courier.go_another_way)
    async with stage.worker():
        assert await handle.result() == ["at 100", "at 0", "at 1", "at 2"]
    stored = await stage.stored(handle)
    check_tokens(stored)
    told = [
        json.loads(payload.data) for payload in (await history_of(stage.client, handle.id)).local
    ]
    assert [parcel["node"] for parcel in told] == [100, 0, 1, 2]
    # What the session goes on with is what the history tells; what was lost stays beside it.
    thread = next(iter(stored.checkpoints.values())).thread_id
    head = await stage.engine.get_latest(thread)
    assert [message["token"] for message in head.messages] == [parcel["token"] for parcel in told]
    assert {c.id for c in lost.steps.values()} < stored.steps.keys()
    assert len(stored.steps) == len(told) + len(lost.steps)
