"""Cancelled, terminated, timed out, failed: what ends, what goes on, and what is taken up."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import Priority
from temporalio.exceptions import CancelledError, TerminatedError
from temporalio.exceptions import TimeoutError as TimedOutError

from ckpt_engine import KEEP_LAST_N
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.temporal import BranchRequest, Rewindable, RewindRequest, Target

from .app import ACTIVITIES, Walker, fail, gate, walk
from .conftest import App, app_with


@workflow.defn
class Parking(Rewindable, resume="next_node", on_failure="park"):
    """Fails at node 1, unless it is told to go on after it."""

    @workflow.run
    async def run(self, root: str) -> int:
        at = int(self.seed.next_node) if self.seed and self.seed.next_node else 0
        while at < 3:
            if at == 1:
                await workflow.execute_activity(fail, start_to_close_timeout=timedelta(seconds=10))
            await workflow.execute_activity(
                walk, args=[root, at], start_to_close_timeout=timedelta(seconds=10)
            )
            at += 1
        return at


app = app_with(workflows=[Walker, Parking], activities=ACTIVITIES)


async def rewound(
    app: App, **options: Any
) -> tuple[WorkflowHandle[Any, Any], WorkflowHandle[Any, Any], asyncio.Event]:
    """Return an address, its stand-in, which waits at node 2, and what lets that go."""
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    reached, _ = gate(workflow_id, 1)
    handle = await app.client.start_workflow(
        Walker.run,
        args=[workflow_id, 3, -1],
        id=workflow_id,
        task_queue=app.task_queue,
        **options,
    )
    await reached.wait()
    in_child, opened = gate(workflow_id, 2)
    child = await app.sessions.rewind(workflow_id, RewindRequest(to=Target(step=1)))
    await in_child.wait()
    address = app.client.get_workflow_handle(workflow_id)
    assert handle.id == address.id
    return address, app.client.get_workflow_handle(child.workflow_id), opened


async def ended_as(handle: WorkflowHandle[Any, Any], kind: type[BaseException]) -> None:
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, kind)


async def test_what_has_ended_is_taken_up_again_after_a_collection(app: App) -> None:
    handle = await app.start(5)
    done = await handle.result()
    report = await app.engine.collect(KEEP_LAST_N(1), session_id=await app.thread(handle.id))
    assert len(report.dropped) == 4
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(back=0)))
    assert await app.client.get_workflow_handle(handle.id).result() == done
    beside = BranchRequest(at=Target(step=0), name="from-the-start")
    child = await app.sessions.branch(handle.id, beside)
    assert await app.client.get_workflow_handle(child.workflow_id).result() == done
    assert (await app.engine.verify()).ok


async def test_terminating_the_root_leaves_its_stand_in_and_its_branches_running(app: App) -> None:
    address, child, opened = await rewound(app)
    request = BranchRequest(at=Target(step=1), name="beside")
    beside = await app.sessions.branch(address.id, request)
    await address.terminate("by hand")
    await ended_as(address, TerminatedError)
    opened.set()
    assert await child.result() == ["at 0", "at 1", "at 2"]
    branched = app.client.get_workflow_handle(beside.workflow_id)
    assert await branched.result() == ["at 0", "at 1", "at 2"]


async def test_a_terminated_session_is_rewound_under_its_own_id_and_its_stand_in_ends(
    app: App,
) -> None:
    address, child, _ = await rewound(app)
    await address.terminate("by hand")
    again = await app.sessions.rewind(address.id, RewindRequest(to=Target(step=1)))
    assert again.workflow_id == address.id
    await ended_as(child, CancelledError)
    assert await address.result() == ["at 0", "at 1", "at 2"]
    active = await app.engine.active_thread((await app.engine.get_thread(again.thread)).session_id)
    assert active.id == again.thread


async def test_a_session_that_timed_out_is_rewound_under_its_own_id(app: App) -> None:
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    gate(workflow_id, 1)
    handle = await app.client.start_workflow(
        Walker.run,
        args=[workflow_id, 2, -1],
        id=workflow_id,
        task_queue=app.task_queue,
        execution_timeout=timedelta(seconds=2),
    )
    await ended_as(handle, TimedOutError)
    await app.sessions.rewind(workflow_id, RewindRequest(to=Target(step=1)))
    assert await app.client.get_workflow_handle(workflow_id).result() == ["at 0", "at 1"]


async def test_a_cancelled_session_is_rewound_under_its_own_id(app: App) -> None:
    address, child, _ = await rewound(app)
    await address.cancel()
    await ended_as(address, CancelledError)
    await ended_as(child, CancelledError)
    await app.sessions.rewind(address.id, RewindRequest(to=Target(step=1)))
    assert await address.result() == ["at 0", "at 1", "at 2"]


async def test_a_stand_in_that_is_terminated_ends_its_address(app: App) -> None:
    address, child, _ = await rewound(app)
    await child.terminate("by hand")
    await ended_as(address, TerminatedError)
    await app.sessions.rewind(address.id, RewindRequest(to=Target(step=1)))
    assert await address.result() == ["at 0", "at 1", "at 2"]


async def test_a_failure_is_parked_until_a_rewind_comes(app: App) -> None:
    workflow_id = f"park-{uuid.uuid4().hex[:8]}"
    await app.client.start_workflow(
        Parking.run, workflow_id, id=workflow_id, task_queue=app.task_queue
    )
    await parked(app, workflow_id)
    same = RewindRequest(to=Target(step=1))
    await app.sessions.rewind(workflow_id, same)  # it fails once more
    await parked(app, workflow_id)
    past = RewindRequest.model_validate({"to": {"step": 1}, "overrides": {"next_node": "2"}})
    await app.sessions.rewind(workflow_id, past)
    assert await app.client.get_workflow_handle(workflow_id).result() == 3
    assert (await app.sessions.status(workflow_id)).failure == ""


async def test_what_is_parked_can_be_cancelled(app: App) -> None:
    workflow_id = f"park-{uuid.uuid4().hex[:8]}"
    handle = await app.client.start_workflow(
        Parking.run, workflow_id, id=workflow_id, task_queue=app.task_queue
    )
    await parked(app, workflow_id)
    await handle.cancel()
    await ended_as(handle, CancelledError)


async def parked(app: App, workflow_id: str) -> None:
    async with asyncio.timeout(20):
        while (await app.sessions.status(workflow_id)).phase != "parked":
            await asyncio.sleep(0.02)
    assert "broken on purpose" in (await app.sessions.status(workflow_id)).failure


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'fail' or 'park'"):
        type("Wrong", (Rewindable,), {}, on_failure="explode")


async def test_children_and_new_runs_inherit_how_the_session_was_started(app: App) -> None:
    """Timeouts, priority and memo; also of the run that takes up a closed session."""
    address, child, opened = await rewound(
        app,
        execution_timeout=timedelta(minutes=7),
        run_timeout=timedelta(minutes=6),
        task_timeout=timedelta(seconds=9),
        memo={"who": "Ann"},
        priority=Priority(priority_key=2),
    )
    opened.set()
    await address.result()
    await app.sessions.rewind(address.id, RewindRequest(to=Target(step=1)))
    await address.result()
    for handle in (child, app.client.get_workflow_handle(address.id)):
        history = await handle.fetch_history()
        first = history.events[0]
        assert first.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
        how = first.workflow_execution_started_event_attributes
        assert how.workflow_execution_timeout.ToTimedelta() == timedelta(minutes=7)
        assert how.workflow_run_timeout.ToTimedelta() == timedelta(minutes=6)
        assert how.workflow_task_timeout.ToTimedelta() == timedelta(seconds=9)
        assert how.priority.priority_key == 2
        assert (await (await handle.describe()).memo()) == {"who": "Ann"}
    assert (await address.describe()).status == WorkflowExecutionStatus.COMPLETED
