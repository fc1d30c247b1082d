"""Rewind and branch while it runs, and after it has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from ckpt_engine import Checkpoint
from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from .app import BODIES, gate
from .conftest import App


def rewind(step: int, *, say: str | None = None, **more: Any) -> RewindRequest:
    messages = [{"role": "user", "content": say}] if say else []
    return RewindRequest(to=Target(step=step), overrides=Overrides(messages=messages), **more)


def branch(step: int, name: str, *, say: str | None = None) -> BranchRequest:
    messages = [{"role": "user", "content": say}] if say else []
    return BranchRequest(at=Target(step=step), name=name, overrides=Overrides(messages=messages))


async def all_checkpoints(app: App, workflow_id: str) -> dict[str, Checkpoint]:
    tree = await app.engine.get_checkpoint_tree(await app.thread(workflow_id))
    return {node.info.id: await app.engine.get(node.info.id) for node in tree.nodes}


async def test_every_step_is_a_checkpoint_and_step_0_tells_how_it_started(app: App) -> None:
    handle = await app.start(3)
    assert await handle.result() == ["at 0", "at 1", "at 2"]
    thread = await app.thread(handle.id)
    points = await app.engine.list_time_travel_points(thread)
    assert [(p.step, p.node, p.next_node) for p in reversed(points)] == [
        (0, "start", None),
        (1, "walk", "1"),
        (2, "walk", "2"),
        (3, "walk", "3"),
    ]
    start = await app.engine.time_travel_to_step(thread, 0)
    assert start.summary == "Walker begins"
    assert [p["data"] for p in start.tools_result] == [f'"{handle.id}"'.encode(), b"3", b"-1"]
    last = await app.engine.get_latest(thread)
    assert last.tools_result["data"] == b'"done 2"'
    assert last.state == {"last": 2}


async def test_the_conversation_never_enters_the_history(app: App) -> None:
    handle = await app.start(3)
    await handle.result()
    history = await handle.fetch_history()
    for event in history.events[:-1]:
        assert b"xxxxxxxxxx" not in event.SerializeToString()


async def test_a_rewind_signal_stops_the_step_in_flight_and_the_root_returns_the_childs_answer(
    app: App,
) -> None:
    handle = await app.start(4)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    before = await all_checkpoints(app, handle.id)
    await handle.signal("rewind", rewind(1, say="look left"))
    assert await handle.result() == ["at 0", "look left", "at 1", "at 2", "at 3"]
    status = await app.sessions.status(handle.id)
    assert [(c.kind, c.state) for c in status.children] == [("rewind", "completed")]
    assert status.refusals == []
    after = await all_checkpoints(app, handle.id)
    assert {key: after[key] for key in before} == before
    assert len(before) == 3


async def test_an_update_answers_with_the_child(app: App) -> None:
    handle = await app.start(3)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    child = await app.sessions.rewind(handle.id, rewind(1))
    assert child.branch == "rewind-1"
    description = await app.client.get_workflow_handle(child.workflow_id).describe()
    assert description.run_id == child.run_id
    assert await handle.result() == ["at 0", "at 1", "at 2"]
    active = await app.engine.active_thread((await app.engine.get_thread(child.thread)).session_id)
    assert active.id == child.thread


async def test_a_second_rewind_takes_the_place_of_the_first_child(app: App) -> None:
    handle = await app.start(5)
    reached, _ = gate(handle.id, 3)
    await reached.wait()
    reached_again, _ = gate(handle.id, 4)
    first = await app.sessions.rewind(handle.id, rewind(1, say="one"))
    await reached_again.wait()
    second = await app.sessions.rewind(handle.id, rewind(2, say="two"))
    # Step 2 of the first child's thread is the rewind itself, with its message.
    assert await handle.result() == ["at 0", "one", "two", "at 1", "at 2", "at 3", "at 4"]
    status = await app.sessions.status(handle.id)
    assert [(c.workflow_id, c.state) for c in status.children] == [
        (first.workflow_id, "superseded"),
        (second.workflow_id, "completed"),
    ]
    assert second.workflow_id.startswith(handle.id + "/")


async def test_a_rewind_sent_to_the_stand_in_goes_up_to_the_address(app: App) -> None:
    handle = await app.start(4)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    reached_again, _ = gate(handle.id, 3)
    child = await app.sessions.rewind(handle.id, rewind(1, say="one"))
    await reached_again.wait()
    stand_in = app.client.get_workflow_handle(child.workflow_id)
    await stand_in.signal("rewind", rewind(1, say="two").model_dump(mode="json"))
    assert await handle.result() == ["at 0", "two", "at 1", "at 2", "at 3"]
    status = await app.sessions.status(handle.id)
    assert [c.kind for c in status.children] == ["rewind", "rewind"]


async def test_a_branch_lives_on_its_own_and_the_parent_goes_on(app: App) -> None:
    handle = await app.start(3)
    reached, opened = gate(handle.id, 2)
    await reached.wait()
    child = await app.sessions.branch(handle.id, branch(1, "other", say="try this"))
    assert child.branch == "other"
    branched = app.client.get_workflow_handle(child.workflow_id)
    assert await branched.result() == ["at 0", "try this", "at 1", "at 2"]
    opened.set()
    assert await handle.result() == ["at 0", "at 1", "at 2"]


async def test_cancelling_the_root_ends_the_rewound_child_and_leaves_branches_alone(
    app: App,
) -> None:
    handle = await app.start(4)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    in_branch, opened = gate(handle.id, 3)
    other = await app.sessions.branch(handle.id, branch(1, "other"))
    await in_branch.wait()
    in_rewound, _ = gate(handle.id, 3)
    rewound = await app.sessions.rewind(handle.id, rewind(1))
    await in_rewound.wait()
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    with pytest.raises(WorkflowFailureError):
        await app.client.get_workflow_handle(rewound.workflow_id).result()
    opened.set()
    branched = app.client.get_workflow_handle(other.workflow_id)
    assert await branched.result() == ["at 0", "at 1", "at 2", "at 3"]


async def test_the_users_signals_and_updates_reach_whoever_runs_now(app: App) -> None:
    handle = await app.start(3)
    reached, _ = gate(handle.id, 1)
    await reached.wait()
    in_child, opened = gate(handle.id, 2)
    await app.sessions.rewind(handle.id, rewind(1))
    await in_child.wait()
    await handle.signal("note", "hello")
    assert await handle.execute_update("note_and_count", "again") == 2
    opened.set()
    assert await handle.result() == ["at 0", "at 1", "at 2", "hello", "again"]


async def test_a_finished_session_is_rewound_under_its_own_id(app: App) -> None:
    handle = await app.start(2)
    await handle.result()
    before = await all_checkpoints(app, handle.id)
    child = await app.sessions.rewind(handle.id, rewind(1, say="once more"))
    assert child.workflow_id == handle.id
    again = app.client.get_workflow_handle(handle.id)
    assert await again.result() == ["at 0", "once more", "at 1"]
    after = await all_checkpoints(app, handle.id)
    assert {key: after[key] for key in before} == before
    # And a second time: from the thread that took its place.
    await app.sessions.rewind(handle.id, rewind(2, say="and again"))
    final = await app.client.get_workflow_handle(handle.id).result()
    assert final == ["at 0", "once more", "and again", "at 1"]


async def test_a_failed_session_is_branched_and_rewound(app: App) -> None:
    handle = await app.start(3, fail_at=2)
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    request = BranchRequest(at=Target(step=2), name="past-it", overrides=Overrides(next_node="3"))
    child = await app.sessions.branch(handle.id, request)
    assert child.workflow_id != handle.id
    assert await app.client.get_workflow_handle(child.workflow_id).result() == ["at 0", "at 1"]
    skip = RewindRequest(to=Target(back=0), overrides=Overrides(next_node="3"))
    await app.sessions.rewind(handle.id, skip)
    assert await app.client.get_workflow_handle(handle.id).result() == ["at 0", "at 1"]


async def test_rewind_to_the_start_and_before_the_first_step_is_done(app: App) -> None:
    handle = await app.start(2)
    reached, _ = gate(handle.id, 0)
    await reached.wait()
    await app.sessions.rewind(handle.id, rewind(0, say="from nothing"))
    assert await handle.result() == ["from nothing", "at 0", "at 1"]


async def test_the_late_commit_of_a_step_that_was_left_is_kept_on_the_old_line(app: App) -> None:
    handle = await app.start(2)
    reached, opened = gate(handle.id, 1)
    await reached.wait()
    old = await app.thread(handle.id)
    await app.sessions.rewind(handle.id, rewind(1, say="go", in_flight="abandon"))
    assert await handle.result() == ["at 0", "go", "at 1"]
    opened.set()
    async with asyncio.timeout(20):
        while (await app.engine.get_latest(old)).step < 2:
            await asyncio.sleep(0.05)
    late = await app.engine.get_latest(old)
    assert late.metadata["late"] is True
    assert BODIES[f"{handle.id}/{old}/1"] == 1


async def test_in_flight_wait_lets_the_step_end_before_the_child_starts(app: App) -> None:
    handle = await app.start(2)
    reached, opened = gate(handle.id, 1)
    await reached.wait()
    old = await app.thread(handle.id)
    asking = asyncio.create_task(
        app.sessions.rewind(handle.id, rewind(1, say="go", in_flight="wait"))
    )
    async with asyncio.timeout(20):
        while (await app.sessions.status(handle.id)).pending or not await _stopped(app, handle.id):
            await asyncio.sleep(0.05)
    assert not asking.done()
    opened.set()
    await asking
    assert await handle.result() == ["at 0", "go", "at 1"]
    assert (await app.engine.get_latest(old)).step == 2
    assert "late" not in (await app.engine.get_latest(old)).metadata


async def _stopped(app: App, workflow_id: str) -> bool:
    threads = await app.engine.list_threads(
        (await app.engine.get_thread(await app.thread(workflow_id))).session_id
    )
    return any(thread.branch == "rewind-1" for thread in threads)


async def test_a_failing_child_fails_the_address_in_the_same_way(app: App) -> None:
    handle = await app.start(3, fail_at=2)
    reached, _ = gate(handle.id, 1)
    await reached.wait()
    await app.sessions.rewind(handle.id, rewind(1))
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause: Any = caught.value.cause
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ApplicationError)
    assert cause.message == "broken on purpose"


async def test_a_repeated_request_id_is_the_same_request(app: App) -> None:
    handle = await app.start(2)
    reached, opened = gate(handle.id, 1)
    await reached.wait()
    request = branch(1, "once").model_copy(update={"request_id": "r-1"})
    first = await app.sessions.branch(handle.id, request)
    body = request.model_dump(mode="json")
    second = await handle.execute_update("branch", body, id="another-update")
    assert second == first.model_dump(mode="json")
    opened.set()
    await handle.result()
    assert len((await app.sessions.status(handle.id)).children) == 1


def test_checkpoints_are_compared_whole() -> None:
    """The comparisons above see every field, content included."""
    from datetime import UTC, datetime

    from ckpt_engine import SnapshotTrigger

    one = Checkpoint(
        id="0" * 32,
        thread_id="t",
        session_id="t",
        step=0,
        parents=(),
        trigger=SnapshotTrigger.MANUAL,
        created_at=datetime.now(UTC),
        messages=[{"a": 1}],
    )
    assert one != replace(one, messages=[{"a": 2}])
