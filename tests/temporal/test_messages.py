"""Signals and updates at every awkward moment: none is lost, doubled or answered wrongly."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from .app import Walker, gate
from .conftest import App, connect, running_app
from .family import Parent


def rewind(step: int, *, say: str = "", request_id: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": say}] if say else []
    request = RewindRequest(
        to=Target(step=step), overrides=Overrides(messages=messages), request_id=request_id
    )
    return request.model_dump(mode="json")


def branch(step: int, name: str, request_id: str = "") -> dict[str, Any]:
    request = BranchRequest(at=Target(step=step), name=name, request_id=request_id)
    return request.model_dump(mode="json")


async def waiting_at(app: App, node: int, nodes: int) -> tuple[WorkflowHandle[Any, Any], Any]:
    handle = await app.start(nodes)
    reached, opened = gate(handle.id, node)
    await reached.wait()
    return handle, opened


async def test_a_burst_of_hundreds_keeps_every_one(app: App) -> None:
    """Notes, rewinds that make no sense, and one branch asked for a hundred times."""
    handle, opened = await waiting_at(app, 1, 2)
    notes = [handle.signal("note", f"n{number}") for number in range(150)]
    wrong = [handle.signal("rewind", {"to": {"step": -number}}) for number in range(1, 51)]
    same = [handle.signal("branch", branch(1, "once", "the-branch")) for _ in range(100)]
    mixed = [call for calls in zip(notes[::3], wrong, same[::2], strict=True) for call in calls]
    await asyncio.gather(*mixed)
    await asyncio.gather(*notes[1::3], *notes[2::3], *same[1::2])
    opened.set()
    words = await handle.result()
    assert words[:2] == ["at 0", "at 1"]
    assert sorted(words[2:]) == sorted(f"n{number}" for number in range(150))
    status = await app.sessions.status(handle.id)
    assert [child.branch for child in status.children] == ["once"]
    assert len(status.refusals) == 50


async def test_a_burst_of_rewinds_is_carried_out_one_after_the_other(app: App) -> None:
    handle, _ = await waiting_at(app, 1, 3)
    await asyncio.gather(*(handle.signal("rewind", rewind(1, say=f"r{n}")) for n in range(12)))
    words = await handle.result()
    assert (words[0], words[2:]) == ("at 0", ["at 1", "at 2"])
    children = (await app.sessions.status(handle.id)).children
    assert {child.state for child in children[:-1]} <= {"superseded", "completed"}
    assert children[-1].state == "completed"
    assert [child.branch for child in children] == [f"rewind-{n}" for n in range(1, 13)]


async def test_hundreds_of_signals_to_a_delegating_root_arrive_in_their_order(app: App) -> None:
    handle, _ = await waiting_at(app, 1, 2)
    in_child, opened = gate(handle.id, 1)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await in_child.wait()
    for number in range(120):
        await handle.signal("note", str(number))
    assert await handle.execute_update("note_and_count", "last") == 121
    opened.set()
    assert (await handle.result())[2:] == [*(str(number) for number in range(120)), "last"]


async def test_messages_before_the_first_step(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """Sent while no worker runs: a signal with the start, a rewind, a branch and an update."""
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await connect(temporal_env, url)
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    handle = await client.start_workflow(
        Walker.run,
        args=[workflow_id, 2, -1],
        id=workflow_id,
        task_queue=task_queue,
        start_signal="note",
        start_signal_args=["first of all"],
    )
    await handle.signal("rewind", rewind(0, say="from the start"))
    await handle.signal("branch", branch(0, "beside"))
    asked = asyncio.create_task(handle.execute_update("note_and_count", "an update"))
    async with running_app(temporal_env, url, task_queue) as app:
        words = await handle.result()
        assert words[:3] == ["from the start", "at 0", "at 1"]
        assert await asked in (1, 2)
        status = await app.sessions.status(workflow_id)
        assert [child.kind for child in status.children] == ["rewind", "branch"]
        assert status.refusals == []
        beside = client.get_workflow_handle(status.children[1].workflow_id)
        # A branch begins at the active thread's start, which is the rewound one's by then.
        assert (await beside.result())[-2:] == ["at 0", "at 1"]


async def test_updates_between_steps_and_with_a_steps_completion(app: App) -> None:
    """Twenty of each meet the completion of a step; whoever is answered has what was promised."""

    async def one(number: int) -> None:
        handle, opened = await waiting_at(app, 0, 2)
        opened.set()
        name = "rewind" if number % 2 else "branch"
        body = rewind(0, say="again") if number % 2 else branch(0, "b")
        try:
            child = await handle.execute_update(name, body)
        except (RPCError, WorkflowUpdateFailedError) as err:
            if not isinstance(err, RPCError) and "completed" not in str(err.cause):
                raise
            return  # it had ended, and the sender is told
        words = await handle.result()
        expected = ["again", "at 0", "at 1"] if number % 2 else ["at 0", "at 1"]
        assert words == expected
        started = app.client.get_workflow_handle(child["workflow_id"])
        assert (await started.result())[-2:] == ["at 0", "at 1"]

    for at in range(0, 40, 10):
        await asyncio.gather(*(one(at + number) for number in range(10)))


async def test_a_branch_that_is_being_started_keeps_the_workflow_from_returning(app: App) -> None:
    handle, opened = await waiting_at(app, 0, 1)
    updates = [
        await handle.start_update(
            "branch", branch(0, f"b{n}"), wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        for n in range(5)
    ]
    opened.set()
    children = [await update.result() for update in updates]
    assert await handle.result() == ["at 0"]
    for child in children:
        assert await app.client.get_workflow_handle(child["workflow_id"]).result() == ["at 0"]


async def test_duplicates_start_one_child_whoever_is_asked_and_how(app: App) -> None:
    handle, opened = await waiting_at(app, 1, 2)
    asked = branch(1, "once", "r-1")
    for _ in range(10):
        await handle.signal("branch", asked)
    first = await handle.execute_update("branch", asked, id="update-1")
    second = await handle.execute_update("branch", asked, id="update-2")
    assert first == second
    opened.set()
    await handle.result()
    third = await app.sessions.branch(handle.id, BranchRequest.model_validate(asked))
    assert (third.workflow_id, third.thread) == (first["workflow_id"], first["thread"])
    assert len((await app.sessions.status(handle.id)).children) == 1


async def test_a_request_to_a_closed_session_is_carried_out_once(app: App) -> None:
    handle = await app.start(2)
    await handle.result()
    request = RewindRequest.model_validate(rewind(1, say="once", request_id="r-2"))
    in_rewound, opened = gate(handle.id, 1)
    first = await app.sessions.rewind(handle.id, request)
    await in_rewound.wait()
    again = await app.sessions.rewind(handle.id, request)  # the new run knows it
    assert (again.run_id, again.thread) == (first.run_id, first.thread)
    opened.set()
    address = app.client.get_workflow_handle(handle.id)
    assert await address.result() == ["at 0", "once", "at 1"]
    last = await app.sessions.rewind(handle.id, request)  # and the store knows it
    assert (last.run_id, last.thread) == (first.run_id, first.thread)
    assert (await address.describe()).run_id == first.run_id


async def test_a_parents_child_that_was_rewound_three_times(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """What is sent to the parent arrives three deep; the parent gets the last one's answer."""
    async with running_app(
        temporal_env, f"sqlite:///{tmp_path}/ckpt.db", task_queue, workflows=[Walker, Parent]
    ) as app:
        child_id = f"walk-{uuid.uuid4().hex[:8]}"
        reached, _ = gate(child_id, 1)
        parent = await app.client.start_workflow(
            Parent.run, args=[child_id, 2], id=f"parent-{child_id}", task_queue=task_queue
        )
        await reached.wait()
        for number in range(3):
            reached, opened = gate(child_id, 1)
            request = RewindRequest.model_validate(rewind(2, say=f"r{number}"))
            await app.sessions.rewind(child_id, request)
            await reached.wait()
            await parent.signal(Parent.hear, f"after {number}")
            async with asyncio.timeout(20):
                while await parent.query(Parent.passed_on) <= number:
                    await asyncio.sleep(0.02)
        assert (
            await app.client.get_workflow_handle(child_id).execute_update("note_and_count", "deep")
            == 2
        )
        opened.set()
        assert await parent.result() == ["parent", "at 0", "r2", "at 1", "after 2", "deep"]


async def test_an_update_that_finds_the_stand_in_ended_fails_and_says_so(app: App) -> None:
    """Held back by a branch that is being started, the root outlives its stand-in a little."""
    handle, _ = await waiting_at(app, 0, 1)
    in_child, opened = gate(handle.id, 0)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=0)))
    await in_child.wait()
    opened.set()
    outcomes = await asyncio.gather(
        *(handle.execute_update("note_and_count", str(n)) for n in range(20)),
        return_exceptions=True,
    )
    assert (await handle.result())[0] == "at 0"
    for outcome in outcomes:
        assert isinstance(outcome, (int, RPCError, WorkflowUpdateFailedError)), outcome


async def test_after_completion_the_sender_of_a_signal_is_told(app: App) -> None:
    handle = await app.start(1)
    await handle.result()
    for name, body in (("rewind", rewind(0)), ("branch", branch(0, "late")), ("note", "late")):
        with pytest.raises(RPCError) as told:
            await handle.signal(name, body)
        assert told.value.status == RPCStatusCode.NOT_FOUND
    with pytest.raises(RPCError):
        await handle.execute_update("note_and_count", "late")


async def test_messages_wait_for_a_worker_that_has_gone(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """Between two steps the worker stops; a rewind sent meanwhile is found by the next one."""
    url = f"sqlite:///{tmp_path}/ckpt.db"
    async with running_app(temporal_env, url, task_queue) as app:
        handle, opened = await waiting_at(app, 1, 3)
        client = app.client
        opened.set()
    await client.get_workflow_handle(handle.id).signal("rewind", rewind(1, say="later"))
    async with running_app(temporal_env, url, task_queue):
        assert await handle.result() == ["at 0", "later", "at 1", "at 2"]
