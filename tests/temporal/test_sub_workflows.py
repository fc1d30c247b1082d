"""Sub-workflows: a thread of their own, joined into the caller's line, never run twice."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleOverlapPolicy,
    ScheduleSpec,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from ckpt_engine import CheckpointInfo, InvalidRequest, create_checkpoint_engine
from ckpt_engine.temporal import BranchRequest, CheckpointPlugin, RewindRequest, Sessions, Target

from . import kitchen
from .conftest import App, app_with, running_app
from .existing_app import Sealed
from .kitchen import BODIES, GATES

app = app_with(workflows=kitchen.WORKFLOWS, activities=[kitchen.do, kitchen.is_step])


async def begin(app: App, run: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    name = f"{app.task_queue}-{uuid.uuid4().hex[:6]}"
    handle: WorkflowHandle[Any, Any] = await app.client.start_workflow(
        run, name, id=name, task_queue=app.task_queue, **options
    )
    return handle


def bodies(handle: WorkflowHandle[Any, Any]) -> dict[str, int]:
    """Return how often each body of this dinner has run."""
    prefix = f"{handle.id}/"
    return {k.removeprefix(prefix): n for k, n in BODIES.items() if k.startswith(prefix)}


async def lanes(app: App, handle: WorkflowHandle[Any, Any]) -> dict[str, list[CheckpointInfo]]:
    """Return branch (without its suffix) -> its checkpoints, for the dinner's session."""
    tree = await app.engine.get_checkpoint_tree(await app.thread(handle.id))
    names = {t.id: t.branch.partition(":")[0] for t in tree.threads}
    found: dict[str, list[CheckpointInfo]] = {}
    for node in sorted(tree.nodes, key=lambda node: node.info.step):
        found.setdefault(names[node.info.thread_id], []).append(node.info)
    return found


def _gate() -> tuple[asyncio.Event, asyncio.Event]:
    return asyncio.Event(), asyncio.Event()


ONCE = {"shop": 1, "chop fish": 1, "fry fish": 1, "serve": 1, "clear": 1}


async def test_a_sub_workflow_has_its_own_thread_and_joins_back(app: App) -> None:
    handle = await begin(app, kitchen.Dinner.run)
    assert await handle.result() == ["shop", "chop fish", "fry fish", "serve"]
    lane = await lanes(app, handle)
    assert [(i.step, i.node) for i in lane["main"]] == [
        (0, "start"),
        (1, "do"),
        (5, "Cook"),
        (6, "do"),
        (7, "do"),
    ]
    assert [(i.step, i.node) for i in lane["Cook"]] == [(2, "start"), (3, "do"), (4, "do")]
    shop, join, serve = lane["main"][1:4]
    assert lane["Cook"][0].parents == (shop.id,)
    assert join.parents == (shop.id, lane["Cook"][-1].id)
    assert serve.parents == (join.id,)
    assert (await app.engine.get_latest(join.thread_id)).state == dict.fromkeys(ONCE, "done")
    assert bodies(handle) == ONCE


@pytest.mark.parametrize(
    ("step", "again"),
    [
        (6, {"clear"}),
        (5, {"serve", "clear"}),
        # Inside the sub-workflow: it had not ended, so it is called again.
        (4, {"chop fish", "fry fish", "serve", "clear"}),
        (1, {"chop fish", "fry fish", "serve", "clear"}),
    ],
)
async def test_a_call_before_the_seed_is_answered_from_the_store(
    app: App, step: int, again: set[str]
) -> None:
    handle = await begin(app, kitchen.Dinner.run)
    first = await handle.result()
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=step)))
    assert await app.client.get_workflow_handle(handle.id).result() == first
    assert bodies(handle) == {what: 2 if what in again else 1 for what in ONCE}


async def test_a_rewind_of_a_rewind_knows_the_calls_of_both(app: App) -> None:
    handle = await begin(app, kitchen.Dinner.run)
    first = await handle.result()
    for _ in range(2):
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(back=0)))
        assert await app.client.get_workflow_handle(handle.id).result() == first
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await app.client.get_workflow_handle(handle.id).result()
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(back=0)))
    assert await app.client.get_workflow_handle(handle.id).result() == first
    assert bodies(handle) == {**dict.fromkeys(ONCE, 2), "shop": 1}


async def test_parallel_sub_workflows_do_not_hear_each_other(app: App) -> None:
    name = f"{app.task_queue}-feast"
    gates = [GATES.setdefault(f"{name}/chop {c}", _gate()) for c in ("soup", "roast")]
    handle = await app.client.start_workflow(
        kitchen.Feast.run, name, id=name, task_queue=app.task_queue
    )
    for reached, _ in gates:
        await reached.wait()
    # The courses have steps by now whose numbers are those of the caller's next ones.
    await handle.signal(kitchen.Feast.lay)
    async with asyncio.timeout(30):
        while not BODIES[f"{name}/lay the table"]:
            await asyncio.sleep(0.05)
    for _, opened in gates:
        opened.set()
    soup, roast, alone, serve = await handle.result()
    assert soup == ["shop", "chop soup"]
    assert roast == ["shop", "chop roast"]
    assert alone == ["shop"]
    courses = {f"{verb} {course}" for verb in ("chop", "fry") for course in ("soup", "roast")}
    assert sorted(serve) == sorted({"shop", "lay the table", *courses})
    points = await app.engine.list_time_travel_points(await app.thread(handle.id))
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=points[0].step)))
    again = await app.client.get_workflow_handle(handle.id).result()
    assert again == [soup, roast, alone, serve]
    assert set(bodies(handle).values()) == {1}


async def test_workflows_that_only_call_workflows_have_threads_as_well(app: App) -> None:
    handle = await begin(app, kitchen.Caterer.run)
    assert await handle.result() == ["shop", "chop fish", "fry fish", "serve"]
    lane = await lanes(app, handle)
    assert [i.node for i in lane["main"]] == ["start", "Dinner"]
    assert [i.node for i in lane["Dinner"]] == ["start", "do", "Cook", "do", "do"]
    assert [i.node for i in lane["Cook"]] == ["start", "do", "do"]
    content = await app.engine.get_latest(lane["main"][-1].thread_id)
    assert [m["content"] for m in content.messages] == list(ONCE)


async def test_a_sub_workflow_without_steps_keeps_its_result(app: App) -> None:
    handle = await begin(app, kitchen.Planner.run)
    assert await handle.result() == "thought of salt"
    lane = await lanes(app, handle)
    assert [i.node for i in lane["main"]] == ["start", "Thinker", "do"]
    join = await app.engine.get(lane["main"][1].id)
    assert join.tools_result["data"] == b'"thought of salt"'


async def test_a_sub_workflow_is_rewound_while_its_caller_waits(app: App) -> None:
    name = f"{app.task_queue}-waits"
    reached, opened = _gate()
    GATES[f"{name}/fry fish"] = (reached, opened)
    handle = await app.client.start_workflow(
        kitchen.Dinner.run, name, id=name, task_queue=app.task_queue
    )
    await reached.wait()
    cook = f"{name}/fish"
    with pytest.raises(InvalidRequest, match=name):
        await app.sessions.rewind(cook, RewindRequest(to=Target(step=1)))
    await app.sessions.rewind(cook, RewindRequest(to=Target(step=3)))
    assert await handle.result() == ["shop", "chop fish", "fry fish", "serve"]
    assert bodies(handle) == {**ONCE, "fry fish": 2}
    opened.set()


async def test_a_closed_sub_workflow_is_branched_by_its_own_id(app: App) -> None:
    handle = await begin(app, kitchen.Dinner.run)
    await handle.result()
    child = await app.sessions.branch(
        f"{handle.id}/fish", BranchRequest(at=Target(step=3), name="more-salt")
    )
    branched = app.client.get_workflow_handle(child.workflow_id)
    assert await branched.result() == ["shop", "chop fish"]
    assert bodies(handle) == {**ONCE, "fry fish": 2}


async def test_a_retry_of_a_sub_workflow_has_a_thread_of_its_own(app: App) -> None:
    handle = await begin(app, kitchen.Patient.run)
    assert await handle.result() == ["try 2"]
    tree = await app.engine.get_checkpoint_tree(await app.thread(handle.id))
    clumsy = [t.id for t in tree.threads if t.branch.startswith("Clumsy:")]
    did = [[n.info.node for n in tree.nodes if n.info.thread_id == thread] for thread in clumsy]
    assert did == [["start", "do"], ["start", "do"]]


async def test_a_retry_of_a_workflow_is_a_session_of_its_own(app: App) -> None:
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=10))
    handle = await begin(app, kitchen.Clumsy.run, retry_policy=policy)
    assert await handle.result() == 2
    sessions = await app.engine.find_sessions(handle.id)
    assert [s.step for s in sessions] == [1, 1]


async def test_every_run_of_a_schedule_is_a_session_of_its_own(app: App) -> None:
    name = f"{app.task_queue}-daily"
    action = ScheduleActionStartWorkflow(
        kitchen.Daily.run, name, id=name, task_queue=app.task_queue
    )
    schedule = await app.client.create_schedule(name, Schedule(action=action, spec=ScheduleSpec()))
    try:
        for count in (1, 2):
            await schedule.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ALL)
            async with asyncio.timeout(30):
                while sum(n.startswith(f"{name}/") for n in BODIES) < count:
                    await asyncio.sleep(0.1)
    finally:
        await schedule.delete()
    runs = {s.id for s in await app.engine.list_sessions() if s.id.startswith(name)}
    assert len(runs) == 2


async def test_every_run_of_a_cron_schedule_is_a_session_of_its_own(app: App) -> None:
    handle = await begin(app, kitchen.Daily.run, cron_schedule="@every 1s")
    try:
        async with asyncio.timeout(30):
            while len(await app.engine.find_sessions(handle.id)) < 2:
                await asyncio.sleep(0.1)
    finally:
        await handle.terminate()
    sessions = await app.engine.find_sessions(handle.id)
    assert len({s.id for s in sessions}) == len(sessions) >= 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (kitchen.DinnerWithoutCook, "step 2 was the call of a sub-workflow"),
        (kitchen.DinnerOfMeat, "step 2 was 'Cook'"),
        (kitchen.DinnerCookedFirst, "step 1 was 'do'"),
    ],
)
async def test_code_that_calls_something_else_is_told_which_step(
    app: App, temporal_env: WorkflowEnvironment, changed: type, says: str
) -> None:
    handle = await begin(app, kitchen.Dinner.run)
    await handle.result()
    queue = f"{app.task_queue}-changed"
    async with running_app(
        temporal_env, app.url, queue, workflows=[changed, kitchen.Cook], activities=[kitchen.do]
    ) as other:
        found = await app.engine.find_run(handle.id)
        assert found is not None
        await app.engine.register_run(found[0].id, replace(found[1], task_queue=queue))
        request = BranchRequest(at=Target(step=6), name="changed")
        child = await other.sessions.branch(handle.id, request)
        with pytest.raises(WorkflowFailureError) as caught:
            await other.client.get_workflow_handle(child.workflow_id).result()
    cause: Any = caught.value.cause
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ApplicationError)
    assert cause.type == "diverged"
    assert says in cause.message


@activity.defn(name="do")
async def _forgetful(dinner: str, what: str) -> list[str]:
    return [dinner, what]


async def test_callers_from_before_the_plugin_replay_with_it(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    client = await Client.connect(temporal_env.client.service_client.config.target_host)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[kitchen.Planner, kitchen.Thinker],
        activities=[_forgetful],
    ):
        handle = await client.start_workflow(
            kitchen.Planner.run, "before", id=f"{task_queue}-before", task_queue=task_queue
        )
        assert await handle.result() == "thought of salt"
    plugin = CheckpointPlugin(f"sqlite:///{tmp_path}/ckpt.db")
    replayer = Replayer(workflows=[kitchen.Planner], plugins=[plugin])
    await replayer.replay_workflow(await handle.fetch_history())


async def test_a_handle_signals_cancels_fails_and_leaves_as_it_did(app: App) -> None:
    handle = await begin(app, kitchen.Host.run)
    words = await handle.result()
    assert words[:2] == ["told dinner is served", "CancelledError, dropped it"]
    # Heard: the waiter, through its continue-as-new; not those that failed or were cancelled.
    assert words[2:] == ["dress", "wait"]
    left = app.client.get_workflow_handle(f"{handle.id}/left")
    await left.signal("tell", "go")
    assert await left.result() == "told go"


async def test_a_rewind_of_the_caller_stops_its_sub_workflow_and_calls_it_again(app: App) -> None:
    name = f"{app.task_queue}-stops"
    reached, opened = _gate()
    GATES[f"{name}/fry fish"] = (reached, opened)
    handle = await app.client.start_workflow(
        kitchen.Dinner.run, name, id=name, task_queue=app.task_queue
    )
    await reached.wait()
    await app.sessions.rewind(name, RewindRequest(to=Target(step=1)))
    opened.set()
    assert await handle.result() == ["shop", "chop fish", "fry fish", "serve"]
    assert bodies(handle) == {**ONCE, "chop fish": 2, "fry fish": 2}


async def test_cancelling_the_caller_cancels_its_sub_workflow(app: App) -> None:
    name = f"{app.task_queue}-cancels"
    reached, opened = _gate()
    GATES[f"{name}/fry fish"] = (reached, opened)
    handle = await app.client.start_workflow(
        kitchen.Dinner.run, name, id=name, task_queue=app.task_queue
    )
    await reached.wait()
    await handle.cancel()
    for workflow_id in (name, f"{name}/fish"):
        with pytest.raises(WorkflowFailureError) as caught:
            await app.client.get_workflow_handle(workflow_id).result()
        assert isinstance(caught.value.cause, CancelledError)
    opened.set()


async def test_nothing_is_cached_and_payloads_are_sealed(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """Every workflow task replays from the start; the stored result is opened for the caller."""
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host,
        data_converter=DataConverter(payload_codec=Sealed()),
        plugins=[CheckpointPlugin(url)],
    )
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=kitchen.WORKFLOWS,
        activities=[kitchen.do],
        max_cached_workflows=0,
    )
    async with worker, await create_checkpoint_engine(url) as engine:
        app = App(client, engine, Sessions(client, engine), task_queue, url)
        handle = await begin(app, kitchen.Dinner.run)
        first = await handle.result()
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=6)))
        assert await client.get_workflow_handle(handle.id).result() == first
        assert bodies(handle) == {**ONCE, "clear": 2}


async def test_sub_workflows_and_activities_of_workers_without_the_plugin_pass(
    app: App, client: Client
) -> None:
    queue = f"{app.task_queue}-plain"
    name = f"{app.task_queue}-elsewhere"
    worker = Worker(
        client, task_queue=queue, workflows=[kitchen.Thinker], activities=[kitchen.forgetful]
    )
    async with worker:
        result = await app.client.execute_workflow(
            kitchen.Elsewhere.run, args=[name, queue], id=name, task_queue=app.task_queue
        )
    assert result == ["thought of salt", "forgot thought of salt"]
    points = await app.engine.list_time_travel_points(await app.thread(name))
    assert [p.node for p in points] == ["do", "Thinker", "start", "start"]
    assert points[0].metadata["gap"]


async def test_an_activity_without_our_header_passes(app: App, client: Client) -> None:
    """A worker with the plugin serves workflows whose own worker has none."""
    queue = f"{app.task_queue}-flows"
    async with Worker(client, task_queue=queue, workflows=[kitchen.Visitor]):
        result = await client.execute_workflow(
            kitchen.Visitor.run, app.task_queue, id=f"{queue}-visitor", task_queue=queue
        )
    assert result == "no step"
    assert await app.engine.find_run(f"{queue}-visitor") is None
