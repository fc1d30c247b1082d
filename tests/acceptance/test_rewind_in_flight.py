"""A rewind while a step is in flight: its late commit is kept, marked, and harms nobody."""

from __future__ import annotations

import asyncio

import pytest

from ckpt_engine.temporal import RewindRequest, Target

from .conftest import Stage
from .courier import Trip
from .doom import Doom
from .ledger import until_async
from .record import check_tokens, history_of

WORDS = ["at 0", "at 1", "at 2", "at 3"]


@pytest.mark.parametrize(
    ("in_flight", "trip"),
    [("abandon", Trip()), ("cancel", Trip(how="thread", heartbeat=None))],
    ids=["abandoned", "never hears of its cancellation"],
)
async def test_a_late_commit_is_kept_on_the_old_line_and_marked(
    stage: Stage, in_flight: str, trip: Trip
) -> None:
    undisturbed = await stage.undisturbed(trip)
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(trip)
        await stage.ledger.until("body", node=2, workflow=handle.id)
        request = {"to": Target(step=1), "in_flight": in_flight}
        child = await stage.sessions.rewind(handle.id, RewindRequest.model_validate(request))
        before = await stage.stored(handle)
        let_go.touch()
        assert await handle.result() == WORDS
        await stage.ledger.until("answered", node=2, times=2)
    stored = await stage.stored(handle)
    check_tokens(stored)
    late = [c for c in stored.steps.values() if c.metadata.get("late")]
    assert [(c.step, c.state["last"]) for c in late] == [(3, 2)]
    assert late[0].metadata["workflow_id"] == handle.id
    for checkpoint_id, checkpoint in before.checkpoints.items():
        assert stored.checkpoints[checkpoint_id] == checkpoint
    # The child is what an undisturbed run is, one step further on: its first step is the rewind.
    theirs = await history_of(stage.client, child.workflow_id)
    assert theirs.results.keys() == {
        c.id for c in stored.steps.values() if c.metadata["workflow_id"] == child.workflow_id
    }
    head = await stage.engine.get_latest(child.thread)
    assert head.messages[0] == late[0].messages[0]
    assert late[0].messages[2]["token"] not in [m["token"] for m in head.messages]
    assert [m["content"] for m in head.messages] == undisturbed[-1][3]


async def test_a_rewind_can_wait_for_the_step_in_flight(stage: Stage) -> None:
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(Trip())
        await stage.ledger.until("body", node=2)
        request = RewindRequest(to=Target(step=1), in_flight="wait")
        rewinding = asyncio.create_task(stage.sessions.rewind(handle.id, request))

        async def prepared() -> bool:
            found = await stage.engine.find_run(handle.id)
            assert found is not None
            return len(await stage.engine.list_threads(found[0].session_id)) == 2

        await until_async(prepared)
        assert not stage.ledger.read("attempt", node=1)[1:]
        let_go.touch()
        child = await rewinding
        assert await handle.result() == WORDS
    stored = await stage.stored(handle)
    waited = [c for c in stored.steps.values() if c.step == 3 and c.state["last"] == 2]
    assert [c.metadata["workflow_id"] for c in waited] == [handle.id]
    assert not any(c.metadata.get("late") for c in stored.steps.values())
    mine = await history_of(stage.client, handle.id)
    assert waited[0].id in mine.results
    answered = stage.ledger.read("answered", node=2)[0]["at_ms"]
    assert stage.ledger.read("body", workflow=child.workflow_id)[0]["at_ms"] >= answered
