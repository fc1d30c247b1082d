"""Continue-as-new: of a loop, of a session's address beside its child, of straight-line code."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.workflowservice.v1 import ListWorkflowExecutionsRequest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from ..conftest import start_server
from .app import ACTIVITIES, gate
from .conftest import App, app_with
from .continuing import WORKFLOWS, Chapters, LongWalker, Watched, add

SUGGESTED_AT = 60


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def temporal_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server that suggests to continue as new after sixty events already."""
    env = await start_server(f"limit.historyCount.suggestContinueAsNew={SUGGESTED_AT}")
    try:
        yield env
    finally:
        await env.shutdown()


app = app_with(workflows=WORKFLOWS, activities=[*ACTIVITIES, add])


async def started(
    app: App, nodes: int, fail_at: int = -1, workflow: Any = LongWalker
) -> WorkflowHandle[Any, list[str]]:
    workflow_id = f"long-{uuid.uuid4().hex[:8]}"
    handle: WorkflowHandle[Any, list[str]] = await app.client.start_workflow(
        workflow.run,
        args=[workflow_id, nodes, fail_at],
        id=workflow_id,
        task_queue=app.task_queue,
    )
    return handle


async def runs(app: App, workflow_id: str) -> list[str]:
    """Return the run ids of a workflow, oldest first."""
    description = await app.client.get_workflow_handle(workflow_id).describe()
    newest: str | None = description.run_id
    found = []
    while newest:
        found.append(newest)
        handle = app.client.get_workflow_handle(workflow_id, run_id=newest)
        async for event in handle.fetch_history_events():
            attributes = event.workflow_execution_started_event_attributes
            newest = attributes.continued_execution_run_id or None
            break
    return found[::-1]


async def supervising_after_continuing(
    app: App, nodes: int = 6, fail_at: int = -1, workflow: Any = LongWalker
) -> tuple[WorkflowHandle[Any, list[str]], WorkflowHandle[Any, Any], asyncio.Event]:
    """Return an address that has continued as new beside its child, which waits at node 3."""
    handle = await started(app, nodes, fail_at, workflow)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    in_child, opened = gate(handle.id, 3)
    child = await app.sessions.rewind(handle.id, rewind(1, "look left", "the-rewind"))
    await in_child.wait()
    while len(await runs(app, handle.id)) == 1:
        for _ in range(20):
            await app.client.get_workflow_handle(handle.id).signal("rewind", {"to": {"step": 99}})
        await app.sessions.status(handle.id)
    status = await app.sessions.status(handle.id)
    assert (status.phase, status.active_workflow_id) == ("supervising", child.workflow_id)
    address = app.client.get_workflow_handle(handle.id)
    return address, app.client.get_workflow_handle(child.workflow_id), opened


def rewind(step: int, say: str = "", request_id: str = "") -> RewindRequest:
    messages = [{"role": "user", "content": say}] if say else []
    return RewindRequest(
        to=Target(step=step), overrides=Overrides(messages=messages), request_id=request_id
    )


async def test_a_loop_continues_as_new_when_it_is_suggested_and_misses_no_step(app: App) -> None:
    handle = await started(app, 30)
    assert await handle.result() == [f"at {node}" for node in range(30)]
    each = await runs(app, handle.id)
    assert len(each) > 2
    thread = await app.thread(handle.id)
    points = await app.engine.list_time_travel_points(thread, limit=None)
    assert [point.step for point in reversed(points)] == list(range(31))
    assert {point.thread_id for point in points} == {thread}
    for run in each:
        history = await app.client.get_workflow_handle(handle.id, run_id=run).fetch_history()
        assert len(history.events) < 2 * SUGGESTED_AT
        first = history.events[0].workflow_execution_started_event_attributes
        assert len(first.header.fields["ckpt"].data) < 1000
        assert b"xxxxxxxxxx" not in first.SerializeToString()


async def test_a_loop_that_has_continued_is_rewound_to_a_step_of_an_earlier_run(app: App) -> None:
    handle = await started(app, 16)
    reached, _ = gate(handle.id, 15)
    await reached.wait()
    assert len(await runs(app, handle.id)) > 1
    await app.sessions.rewind(handle.id, rewind(2, "early"))
    assert await handle.result() == ["at 0", "at 1", "early", *(f"at {n}" for n in range(2, 16))]


async def test_the_address_continues_as_new_and_returns_what_the_child_returns(app: App) -> None:
    address, child, opened = await supervising_after_continuing(app)
    await address.signal("note", "hello")
    assert await address.execute_update("note_and_count", "again") == 2
    opened.set()
    words = ["at 0", "look left", "at 1", "at 2", "at 3", "at 4", "at 5", "hello", "again"]
    assert await address.result() == words
    assert (await app.sessions.status(address.id)).children[0].state == "completed"
    assert await child.result() == words


async def test_a_request_id_is_known_after_continue_as_new(app: App) -> None:
    address, child, opened = await supervising_after_continuing(app)
    repeated = await app.sessions.rewind(address.id, rewind(1, "look left", "the-rewind"))
    assert repeated.workflow_id == child.id
    opened.set()
    await address.result()
    assert len((await app.sessions.status(address.id)).children) == 1


async def test_the_next_rewind_takes_the_place_of_a_child_of_an_earlier_run(app: App) -> None:
    address, child, _ = await supervising_after_continuing(app)
    await app.sessions.rewind(address.id, rewind(2, "look right"))
    words = ["at 0", "look left", "look right", "at 1", "at 2", "at 3", "at 4", "at 5"]
    assert await address.result() == words
    with pytest.raises(WorkflowFailureError) as ended:
        await child.result()
    assert isinstance(ended.value.cause, CancelledError)
    states = [c.state for c in (await app.sessions.status(address.id)).children]
    assert states == ["superseded", "completed"]


async def test_cancelling_the_continued_address_ends_the_child(app: App) -> None:
    address, child, _ = await supervising_after_continuing(app)
    await address.cancel()
    for handle in (address, child):
        with pytest.raises(WorkflowFailureError) as ended:
            await handle.result()
        assert isinstance(ended.value.cause, CancelledError)
    assert (await app.sessions.status(address.id)).children[0].state == "canceled"


async def test_a_child_that_fails_fails_the_continued_address_in_the_same_way(app: App) -> None:
    address, _, opened = await supervising_after_continuing(app, fail_at=4)
    opened.set()
    with pytest.raises(WorkflowFailureError) as ended:
        await address.result()
    cause: Any = ended.value.cause
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ApplicationError)
    assert cause.message == "broken on purpose"


async def test_a_child_that_was_terminated_is_missed_by_the_continued_address(app: App) -> None:
    address, child, _ = await supervising_after_continuing(app, workflow=Watched)
    await child.terminate("by hand")
    with pytest.raises(WorkflowFailureError) as ended:
        await address.result()
    assert isinstance(ended.value.cause, TerminatedError)


async def test_requests_that_come_while_a_loop_continues_as_new_are_all_carried_out(
    app: App,
) -> None:
    handle = await started(app, 40)
    address = app.client.get_workflow_handle(handle.id)
    for number in range(12):
        request = BranchRequest(
            at=Target(step=0),
            name=f"b{number}",
            overrides=Overrides(next_node="40"),
            request_id=f"r{number}",
        )
        body = request.model_dump(mode="json")
        await asyncio.gather(address.signal("branch", body), address.signal("branch", body))
    assert await handle.result() == [f"at {node}" for node in range(40)]
    assert len(await runs(app, handle.id)) > 2
    status = await app.sessions.status(handle.id)
    assert [child.branch for child in status.children] == [f"b{n}" for n in range(12)]
    assert status.refusals == []
    listed = await app.client.workflow_service.list_workflow_executions(
        ListWorkflowExecutionsRequest(
            namespace=app.client.namespace, query=f'TaskQueue = "{app.task_queue}"', page_size=100
        )
    )
    others = {e.execution.workflow_id for e in listed.executions} - {handle.id}
    assert others == {child.workflow_id for child in status.children}


async def at_step(app: App, workflow_id: str, step: int) -> WorkflowHandle[Any, Any]:
    """Wait until a workflow has given out a step's number."""
    handle = app.client.get_workflow_handle(workflow_id)
    async with asyncio.timeout(20):
        while (await handle.query("checkpoint_status"))["step"] < step:
            await asyncio.sleep(0.02)
    return handle


async def with_bonuses(app: App, workflow_id: str, bonuses: dict[int, int]) -> int:
    """Send each bonus when the step before it has been scheduled; return the result."""
    for step, amount in bonuses.items():
        handle = await at_step(app, workflow_id, step)
        await handle.signal("extra", amount)
    total: int = await app.client.get_workflow_handle(workflow_id).result()
    return total


async def chapters(app: App) -> str:
    handle = await app.client.start_workflow(
        Chapters.run,
        args=[1, 0],
        id=f"chapters-{uuid.uuid4().hex[:8]}",
        task_queue=app.task_queue,
    )
    return handle.id


@pytest.mark.parametrize(
    ("step", "bonuses", "total"),
    [
        (6, {}, 66),  # the last chapter, its bonus from before the seed
        (5, {6: 300}, 336),  # the last chapter, before its bonus
        (4, {6: 300}, 336),  # the end of the second chapter
        (2, {4: 200, 6: 300}, 516),
        (0, {2: 100, 4: 200, 6: 300}, 606),
    ],
)
async def test_straight_line_code_is_replayed_from_where_its_run_began(
    app: App, step: int, bonuses: dict[int, int], total: int
) -> None:
    workflow_id = await chapters(app)
    assert await with_bonuses(app, workflow_id, {1: 10, 3: 20, 5: 30}) == 66
    child = await app.sessions.branch(workflow_id, BranchRequest(at=Target(step=step), name="b"))
    # The branch's own first checkpoint has a number, too: what follows the seed is one later.
    assert await with_bonuses(app, child.workflow_id, bonuses) == total


async def test_a_running_chapter_is_rewound_into_an_earlier_one(app: App) -> None:
    workflow_id = await chapters(app)
    await (await at_step(app, workflow_id, 1)).signal("extra", 10)
    await at_step(app, workflow_id, 3)
    assert len(await runs(app, workflow_id)) == 2
    child = await app.sessions.rewind(workflow_id, RewindRequest(to=Target(step=1)))
    assert await with_bonuses(app, child.workflow_id, {2: 100, 4: 200, 6: 300}) == 606
    assert await app.client.get_workflow_handle(workflow_id).result() == 606
