"""Temporal's own reset: what is kept keeps its checkpoints, what runs again gets new ones."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointInfo
from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target
from examples import order_saga

from .app import gate
from .conftest import App, running_app
from .continuing import Chapters, add
from .test_rewind_and_branch import all_checkpoints


async def reset_before_step(app: App, workflow_id: str, step: int) -> WorkflowHandle[Any, Any]:
    """Reset a workflow to the workflow task that had scheduled this step's activity."""
    return await reset_to_task_of(app, workflow_id, "", step - 1)


async def reset_to_task_of(
    app: App, workflow_id: str, activity: str, number: int = 0
) -> WorkflowHandle[Any, Any]:
    handle = app.client.get_workflow_handle(workflow_id)
    history = await handle.fetch_history()
    scheduled = [
        event.activity_task_scheduled_event_attributes.workflow_task_completed_event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        and _is(event.activity_task_scheduled_event_attributes.activity_type.name, activity)
    ]
    description = await handle.describe()
    await app.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=app.client.namespace,
            workflow_execution=WorkflowExecution(
                workflow_id=workflow_id, run_id=description.run_id
            ),
            reason="a test",
            workflow_task_finish_event_id=scheduled[number],
            request_id=str(uuid.uuid4()),
        )
    )
    return app.client.get_workflow_handle(workflow_id)


def _is(name: str, wanted: str) -> bool:
    return name == wanted if wanted else not name.startswith("ckpt")


async def path(app: App, workflow_id: str) -> list[CheckpointInfo]:
    thread = await app.thread(workflow_id)
    return (await app.engine.list_time_travel_points(thread, limit=None))[::-1]


@pytest.mark.parametrize("step", [2, 3])
async def test_kept_steps_keep_their_checkpoints_and_the_others_get_new_ones(
    app: App, step: int
) -> None:
    first = await app.start(4)
    words = await first.result()
    before, old = await all_checkpoints(app, first.id), await path(app, first.id)
    again = await reset_before_step(app, first.id, step)
    assert await again.result() == words
    new = await path(app, first.id)
    assert [info.step for info in new] == [info.step for info in old] == [0, 1, 2, 3, 4]
    assert [info.id for info in new[:step]] == [info.id for info in old[:step]]
    assert not {info.id for info in new[step:]} & {info.id for info in old[step:]}
    assert new[0].session_id == old[0].session_id
    assert {info.thread_id for info in new[step:]} != {old[0].thread_id}
    after = await all_checkpoints(app, first.id)
    assert {key: after[key] for key in before} == before
    active = await app.engine.active_thread(old[0].session_id)
    assert (active.id, active.branch) == (await app.thread(first.id), "reset-1")


async def test_a_reset_to_the_first_task_begins_a_new_session(app: App) -> None:
    first = await app.start(2)
    words = await first.result()
    old = await path(app, first.id)
    again = await reset_before_step(app, first.id, 1)
    assert await again.result() == words
    new = await path(app, first.id)
    assert [info.step for info in new] == [0, 1, 2]
    assert not {info.id for info in new} & {info.id for info in old}


async def test_a_rewind_after_a_reset_finds_the_new_steps_and_ids_do_not_collide(app: App) -> None:
    """Signals are applied again by a reset: the rewind of the first life is done once more."""
    first = await app.start(3)
    reached, _ = gate(first.id, 2)
    await reached.wait()
    request = RewindRequest(
        to=Target(step=1), overrides=Overrides(messages=[{"role": "user", "content": "again"}])
    )
    await first.signal("rewind", request.model_dump(mode="json"))
    words = await first.result()
    assert words == ["at 0", "again", "at 1", "at 2"]
    child = (await app.sessions.status(first.id)).children[0]
    reset = await reset_before_step(app, first.id, 2)
    assert await reset.result() == words
    status = await app.sessions.status(first.id)
    assert [c.state for c in status.children] == ["completed"]
    assert status.children[0].workflow_id != child.workflow_id
    assert status.children[0].thread != child.thread
    assert status.children[0].seed == child.seed  # step 1 was kept


async def test_a_reset_to_the_task_of_a_rewind_starts_another_child(app: App) -> None:
    """The code hears of the signal before the SDK draws from another seed."""
    first = await app.start(2)
    reached, _ = gate(first.id, 1)
    await reached.wait()
    child = await app.sessions.rewind(first.id, RewindRequest(to=Target(step=1)))
    words = await first.result()
    reset = await reset_to_task_of(app, first.id, "ckpt_prepare")
    assert await reset.result() == words
    children = (await app.sessions.status(first.id)).children
    assert [c.state for c in children] == ["completed"]
    assert children[0].workflow_id != child.workflow_id


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_reset_beside_a_running_stand_in_leaves_it_to_itself(
    app: App, cancelled: bool
) -> None:
    """The new life carries the rewind out again; nobody waits for the first life's stand-in."""
    first = await app.start(3)
    reached, _ = gate(first.id, 1)
    await reached.wait()
    in_child, opened = gate(first.id, 2)
    request = RewindRequest(to=Target(step=1))
    await first.signal("rewind", request.model_dump(mode="json"))
    await in_child.wait()
    left = (await app.sessions.status(first.id)).children[0]
    beside = await app.sessions.branch(left.workflow_id, BranchRequest(at=Target(step=1), name="b"))
    old = app.client.get_workflow_handle(left.workflow_id)

    reset = await reset_before_step(app, first.id, 2)
    assert await reset.result() == ["at 0", "at 1", "at 2"]
    status = await app.sessions.status(first.id)
    assert [(c.kind, c.state) for c in status.children] == [("rewind", "completed")]
    assert status.active_workflow_id != left.workflow_id
    assert (await old.describe()).status == WorkflowExecutionStatus.RUNNING
    assert (await app.engine.active_thread(status.session)).id == status.active_thread

    if cancelled:
        await old.cancel()
        with pytest.raises(WorkflowFailureError) as ended:
            await old.result()
        assert isinstance(ended.value.cause, CancelledError)
    opened.set()
    if not cancelled:
        assert await old.result() == ["at 0", "at 1", "at 2"]
    branch = app.client.get_workflow_handle(beside.workflow_id)
    assert await branch.result() == ["at 0", "at 1", "at 2"]
    # What it did since is on its own thread, and changed nothing of what the session goes on with.
    assert (await app.engine.active_thread(status.session)).id == status.active_thread
    assert (await app.engine.verify()).ok


async def test_a_step_that_a_signal_lets_go_gets_a_new_checkpoint_as_well(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with running_app(
        temporal_env,
        f"sqlite:///{tmp_path}/ckpt.db",
        task_queue,
        workflows=[Chapters],
        activities=[add],
    ) as app:
        handle = await app.client.start_workflow(
            Chapters.run, args=[3, 0], id=f"c-{task_queue}", task_queue=task_queue
        )
        async with asyncio.timeout(20):
            while (await app.sessions.status(handle.id)).step < 1:
                await asyncio.sleep(0.02)
        await handle.signal("extra", 7)
        assert await handle.result() == 10
        old = await path(app, handle.id)
        again = await reset_before_step(app, handle.id, 2)
        assert await again.result() == 10
        new = await path(app, handle.id)
        assert [info.step for info in new] == [0, 1, 2]
        assert [info.id for info in new[:2]] == [info.id for info in old[:2]]
        assert new[2].id != old[2].id


async def test_a_reset_workflow_can_be_rewound_and_reset_again(app: App) -> None:
    first = await app.start(3)
    words = await first.result()
    for _ in range(2):
        await (await reset_before_step(app, first.id, 3)).result()
    threads = await app.engine.list_threads(await app.thread(first.id))
    assert [thread.branch for thread in threads] == ["main", "reset-1", "reset-2"]
    request = BranchRequest(at=Target(step=2), name="after")
    child = await app.sessions.branch(first.id, request)
    assert await app.client.get_workflow_handle(child.workflow_id).result() == words
    await app.sessions.rewind(first.id, RewindRequest(to=Target(step=3)))
    assert await app.client.get_workflow_handle(first.id).result() == words


async def test_a_step_in_flight_at_the_reset_is_kept_on_the_old_line(app: App) -> None:
    first = await app.start(3)
    reached, opened = gate(first.id, 2)
    await reached.wait()
    old = await app.thread(first.id)
    again = await reset_before_step(app, first.id, 2)
    assert await again.result() == ["at 0", "at 1", "at 2"]
    opened.set()
    async with asyncio.timeout(20):
        while (await app.engine.get_latest(old)).step < 3:
            await asyncio.sleep(0.05)
    assert (await app.engine.get_latest(old)).metadata["late"] is True


async def test_straight_line_code_is_reset_and_then_rewound(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with running_app(
        temporal_env,
        f"sqlite:///{tmp_path}/ckpt.db",
        task_queue,
        workflows=[order_saga.OrderWorkflow],
        activities=order_saga.ACTIVITIES,
    ) as shop:
        order = order_saga.Order("o1", 40)
        handle = await shop.client.start_workflow(
            order_saga.OrderWorkflow.run, order, id=f"o-{task_queue}", task_queue=task_queue
        )
        words = await handle.result()
        assert await (await reset_before_step(shop, handle.id, 2)).result() == words
        await shop.sessions.rewind(handle.id, RewindRequest(to=Target(step=2)))
        assert await shop.client.get_workflow_handle(handle.id).result() == words
        assert (await shop.engine.verify()).ok
