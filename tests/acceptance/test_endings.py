"""Steps that end otherwise: raised, cancelled, too large, with what cannot be stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError

from ckpt_engine.temporal.attempt import BLOB_LIMIT

from .conftest import Stage, locked
from .courier import Courier, Trip
from .doom import Doom
from .ledger import until_async
from .record import check_agreement, history_of


async def test_a_step_that_fails_twice_is_one_checkpoint(stage: Stage) -> None:
    undisturbed = await stage.undisturbed(Trip())
    async with stage.worker():
        handle = await stage.start(Trip(fails="retryably"))
        await handle.result()
    assert (await stage.agreed(handle)).story() == undisturbed
    assert len(stage.ledger.read("body", node=2, workflow=handle.id)) == 3


@pytest.mark.parametrize(
    ("trip", "limit", "kind", "done"),
    [
        (Trip(fails="finally"), BLOB_LIMIT, None, 2),
        (Trip(fails="unstorable"), BLOB_LIMIT, "unstorable", 2),
        (Trip(fails="unstorable", how="process"), BLOB_LIMIT, "unstorable", 2),
        (Trip(size=2_000), 1_000, "too-large", 0),
        (Trip(size=2_200_000), BLOB_LIMIT, "too-large", 0),
    ],
    ids=["finally", "unstorable", "unpicklable", "above our limit", "above the server's limit"],
)
async def test_a_step_that_cannot_succeed_stores_nothing_and_is_not_tried_again(
    stage: Stage, trip: Trip, limit: int, kind: str | None, done: int
) -> None:
    async with stage.worker(limit=limit, processes=trip.how == "process"):
        handle = await stage.start(trip)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ActivityError)
    cause = caught.value.cause.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.non_retryable) == (kind, True)
    stored = await stage.agreed(handle)
    assert [c.state["last"] for c in stored.steps.values()] == list(range(done))
    assert len(stage.ledger.read("body", node=done, workflow=handle.id)) == 1


async def test_a_step_that_is_cancelled_leaves_no_checkpoint_and_the_agent_goes_on(
    stage: Stage,
) -> None:
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(Trip(told=True))
        await stage.ledger.until("body", node=2)
        await handle.signal(Courier.leave_it)
        assert await handle.result() == ["at 0", "at 1", "at 3"]
    history = await history_of(stage.client, handle.id)
    assert list(history.otherwise.values()) == ["canceled"]
    check_agreement(history, await stage.stored(handle))


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_a_step_that_is_cancelled_while_it_commits_is_done(stage: Stage, how: str) -> None:
    trip = Trip.model_validate({"how": how, "told": True})
    undisturbed = await stage.undisturbed(trip)
    let_go = stage.folder / "let_go"
    async with stage.worker(Doom("in-body", 2, "hold", str(let_go))):
        handle = await stage.start(trip)
        await stage.ledger.until("body", node=2, workflow=handle.id)
        async with locked(stage.url):
            Path(let_go).touch()
            await stage.ledger.until("left", node=2)
            await handle.signal(Courier.leave_it)
            await _told_of_the_cancellation(handle)
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
    assert (await stage.agreed(handle)).story() == undisturbed
    assert len(stage.ledger.read("body", node=2, workflow=handle.id)) == 1


async def _told_of_the_cancellation(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until the worker has heartbeat twice since the server knows of the cancellation."""
    beats: set[int] = set()

    async def twice() -> bool:
        pending = (await handle.describe()).raw_description.pending_activities
        for step in pending:
            if step.state == PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED:
                beats.add(step.last_heartbeat_time.ToNanoseconds())
        return len(beats) >= 3

    await until_async(twice)
