"""Coroutines side by side find their steps again on a replay, whoever was first."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointInfo
from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from . import crew
from .conftest import App, app_with, running_app
from .crew import BODIES, GATES

app = app_with(workflows=crew.WORKFLOWS, activities=crew.ACTIVITIES)


async def begin(app: App, run: Any, *args: Any) -> WorkflowHandle[Any, Any]:
    handle: WorkflowHandle[Any, Any] = await app.client.start_workflow(
        run, args=[app.task_queue, *args], id=app.task_queue, task_queue=app.task_queue
    )
    return handle


async def in_order(app: App, run: Any, order: Sequence[str], *args: Any) -> Any:
    """Run it so that the bodies end in this order, each heard of before the next one ends."""
    gates = {what: (asyncio.Event(), asyncio.Event()) for what in order}
    GATES.update({f"{app.task_queue}/{what}": gate for what, gate in gates.items()})
    handle = await begin(app, run, *args)
    async with asyncio.timeout(30):
        for at, what in enumerate(order):
            await gates[what][0].wait()
            gates[what][1].set()
            if any(later[:1] == what[:1] for later in order[at + 1 :]):
                following = next(later for later in order[at + 1 :] if later[:1] == what[:1])
                await gates[following][0].wait()
    return await handle.result()


async def steps(app: App) -> list[CheckpointInfo]:
    """Return the checkpoints of the session's own thread, oldest first."""
    thread = await app.thread(app.task_queue)
    points = await app.engine.list_time_travel_points(thread)
    return [point for point in reversed(points) if point.thread_id == thread]


def bodies(app: App) -> dict[str, int]:
    prefix = f"{app.task_queue}/"
    return {k.removeprefix(prefix): n for k, n in BODIES.items() if k.startswith(prefix)}


async def branched(app: App, step: int, name: str = "", **more: Any) -> Any:
    request = BranchRequest(at=Target(step=step), name=name or f"at-{step}", **more)
    child = await app.sessions.branch(app.task_queue, request)
    return await app.client.get_workflow_handle(child.workflow_id).result()


async def refused(app: App, step: int) -> str:
    """Branch, and return what the divergence says."""
    with pytest.raises(WorkflowFailureError) as caught:
        await branched(app, step, "diverged")
    cause: Any = caught.value.cause
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ApplicationError)
    assert cause.type == "diverged"
    return cause.message


@asynccontextmanager
async def changed(
    app: App, env: WorkflowEnvironment, workflow: type, *others: type
) -> AsyncIterator[App]:
    """An application with other code, which runs the branches of the session from now on."""
    queue = f"{app.task_queue}-changed"
    async with running_app(
        env, app.url, queue, workflows=[workflow, *others], activities=crew.ACTIVITIES
    ) as other:
        found = await app.engine.find_run(app.task_queue)
        assert found is not None
        await app.engine.register_run(found[0].id, replace(found[1], task_queue=queue))
        yield replace(other, task_queue=app.task_queue)


CREW = [f"{name}{turn}" for name in "abc" for turn in range(3)]
ORDERS = {
    "in turn": "a0 b0 c0 a1 b1 c1 a2 b2 c2",
    "backwards": "c0 c1 c2 b0 b1 b2 a0 a1 a2",
    "overtaken": "b0 a0 b1 b2 c0 a1 c1 c2 a2",
    "last first": "c0 b0 a0 b1 c1 a1 a2 c2 b2",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_steps_are_found_again_by_what_they_are(app: App, order: str) -> None:
    result = await in_order(app, crew.Crew.run, order.split(), list("abc"))
    assert result == [*(", ".join(f"{name}{turn}" for turn in range(3)) for name in "abc"), "end"]
    numbers = {point.step: point for point in await steps(app)}
    assert len(numbers) == len(CREW) + 3
    done = dict.fromkeys(["begin", *CREW, "end"], 1)
    assert bodies(app) == done
    for step in (1, 4, 6, 8, 10, 11):
        assert await branched(app, step) == result
        again = 11 - step
        assert sum(bodies(app).values()) == sum(done.values()) + again
        done = bodies(app)
    assert (await app.engine.verify()).ok


async def test_a_rewind_of_a_rewind_finds_the_steps_of_both(app: App) -> None:
    result = await in_order(app, crew.Crew.run, ORDERS["last first"].split(), list("abc"))
    for step in (6, 9):
        await app.sessions.rewind(app.task_queue, RewindRequest(to=Target(step=step)))
        assert await app.client.get_workflow_handle(app.task_queue).result() == result
    # 5 steps lie behind step 6; the second rewind goes back to the second of those (7 is the seed).
    assert sum(bodies(app).values()) == 11 + 5 + 3


async def test_nothing_is_cached_while_steps_wait_for_their_turn(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """Every workflow task replays the whole history before it."""
    async with running_app(
        temporal_env,
        f"sqlite:///{tmp_path}/ckpt.db",
        task_queue,
        workflows=crew.WORKFLOWS,
        activities=crew.ACTIVITIES,
        max_cached_workflows=0,
    ) as app:
        result = await in_order(app, crew.Crew.run, ORDERS["overtaken"].split(), list("abc"))
        assert await branched(app, 6) == result
        assert sum(bodies(app).values()) == 11 + 5
        mishap = replace(app, task_queue=f"{task_queue}-mishap")
        other = await app.client.execute_workflow(
            crew.Mishap.run, mishap.task_queue, id=mishap.task_queue, task_queue=task_queue
        )
        assert await branched(mishap, (await steps(mishap))[-1].step) == other


@pytest.mark.parametrize(
    ("code", "at", "says"),
    [
        (crew.CrewOfOthers, 8, r"step \d was 'work' \(\w+\), and now the code asks for 'speak'"),
        (crew.CrewWithALocalStep, 8, r"'work' \(\w+\), and now the code asks for 'speak'"),
        (crew.CrewInOtherWords, 8, r"was 'work' \(\w+\), and now .* with other arguments"),
        (crew.CrewWithoutBob, 8, r"was 'work' \(\w+\), and now the code asks for 'work' with"),
        (crew.CrewWithoutBob, 11, r"was 'work' \(\w+\), and now the code has ended without it"),
    ],
)
async def test_code_that_leads_elsewhere_is_told_which_step(
    app: App, temporal_env: WorkflowEnvironment, code: type, at: int, says: str
) -> None:
    await in_order(app, crew.Crew.run, ORDERS["overtaken"].split(), list("abc"))
    done = bodies(app)
    async with changed(app, temporal_env, code) as other:
        message = await refused(other, at)
    assert re.search(says, message)
    assert "async with line(" in message
    assert bodies(app) == done  # nothing was done on the way


async def test_code_that_asks_in_another_order_finds_its_steps(
    app: App, temporal_env: WorkflowEnvironment
) -> None:
    *result, end = await in_order(app, crew.Crew.run, ORDERS["overtaken"].split(), list("abc"))
    async with changed(app, temporal_env, crew.CrewTurnedRound) as other:
        assert await branched(other, 8) == [*result[::-1], end]
    assert sum(bodies(app).values()) == 11 + 3


@pytest.mark.parametrize("first", ["a", "b"])
async def test_the_same_step_has_the_result_that_it_had_for_each(app: App, first: str) -> None:
    """Nothing tells one draw from the other but who drew first; who sat down first did."""
    second = "ab".replace(first, "")
    whose = {first: 1, second: 2}
    order = [
        f"{n} {did}" for n in (first, second) for did in ("sits down", f"has drawn {whose[n]}")
    ]
    result = await in_order(app, crew.Gamblers.run, order)
    assert result == [f"{name} has drawn {whose[name]}" for name in "ab"]
    done = bodies(app)
    last = (await steps(app))[-1].step
    assert await branched(app, last) == result
    assert bodies(app) == done


@pytest.mark.parametrize("first", ["a", "b"])
async def test_who_was_first_is_so_again(app: App, first: str) -> None:
    second = "ab".replace(first, "")
    result = await in_order(app, crew.Race.run, [first, f"{first} wins", second])
    assert result == f"{first} wins"
    done = bodies(app)
    last = (await steps(app))[-1].step
    assert await branched(app, last) == result
    assert bodies(app) == done


async def _heard_of(app: App, handle: WorkflowHandle[Any, Any], step: int) -> None:
    """Wait until the code has heard of the end of this step, which is the newest."""
    while True:
        newest = (await steps(app))[-1]
        if newest.step == step and (await app.sessions.status(handle.id)).head == [newest.id]:
            return
        await asyncio.sleep(0.02)


async def test_steps_of_signal_handlers_are_found_again(app: App) -> None:
    """The signals come again before the code begins; the first note came after its first step."""
    handle = await begin(app, crew.Noted.run)
    async with asyncio.timeout(20):
        while not bodies(app):
            await asyncio.sleep(0.02)
        await _heard_of(app, handle, 1)
        await handle.signal(crew.Noted.note, "one")
        await _heard_of(app, handle, 2)
    await handle.signal(crew.Noted.note, "two")
    result = await handle.result()
    assert result == ["one", "two", "end"]
    done = bodies(app)
    last = (await steps(app))[-1].step
    assert await branched(app, last) == result
    assert bodies(app) == done


@pytest.mark.parametrize("order", ["a0 b0 a b a1 b1", "b0 b b1 a0 a a1", "a0 a a1 b0 b b1"])
async def test_a_step_that_had_failed_side_by_side_runs_again(app: App, order: str) -> None:
    names = {"a": "a broken", "b": "b fine"}
    result = await in_order(app, crew.Mishap.run, [names.get(o, o) for o in order.split()])
    assert result == ["a0, a broken!, a1", "b0, b1"]
    last = (await steps(app))[-1].step
    assert await branched(app, last) == result
    assert bodies(app) == {**dict.fromkeys(("a0", "a1", "b0", "b fine", "b1"), 1), "a broken": 2}


async def test_a_step_that_had_failed_beside_a_sub_workflow_runs_again(
    app: App, temporal_env: WorkflowEnvironment
) -> None:
    result = await (await begin(app, crew.Beside.run)).result()
    done = bodies(app)
    assert done == dict.fromkeys(("a helps", "a helped", "broken", "b", "c"), 1)
    last = (await steps(app))[-1].step
    assert await branched(app, last) == result
    assert bodies(app) == {**done, "broken": 2}
    async with changed(app, temporal_env, crew.BesideSomethingElse, crew.Helper) as other:
        message = await refused(other, last)
    assert re.search(r"was 'speak' \(\w+\), and now the code asks for 'speak' with", message)
    assert bodies(app) == {**done, "broken": 3}


HELPED = {f"{name}{what}": 1 for name in "abc" for what in ("0", " helps", " helped", "1")} | {
    "begin": 1,
    "end": 1,
}


@pytest.mark.parametrize(
    "order",
    [
        "a0 b0 c0 a b c a1 b1 c1",
        "c0 c c1 b0 b b1 a0 a a1",
        "b0 a0 b b1 c0 c a c1 a1",
    ],
)
async def test_calls_on_lines_are_found_again(app: App, order: str) -> None:
    what = [one if len(one) > 1 else f"{one} helps" for one in order.split()]
    result = await in_order(app, crew.Lines.run, what, list("abc"))
    assert result[:3] == [
        ["begin"],
        ["begin", "a0", "a helps"],
        ["begin", "a0", "a helps", "a helped"],
    ]
    assert sorted(result[-1]) == sorted(set(HELPED) - {"end"})
    assert bodies(app) == HELPED
    points = await steps(app)
    for point in (points[4], points[6], points[8], points[-1]):
        done = bodies(app)
        again = await branched(app, point.step)
        assert again[:-1] == result[:-1]
        assert sorted(again[-1]) == sorted(result[-1])
        # A call that is answered spares the two steps of the sub-workflow.
        answered = [2 if p.node == "Helper" else 1 for p in points if 0 < p.step <= point.step]
        new = sum(bodies(app).values()) - sum(done.values())
        assert new == len(HELPED) - sum(answered)
    assert (await app.engine.verify()).ok


async def test_what_a_branch_says_is_heard_on_every_line_with_calls(app: App) -> None:
    order = ["b0", "b helps", "b1", "a0", "a helps", "a1"]
    result = await in_order(app, crew.Lines.run, order, list("ab"))
    joins = [point.step for point in await steps(app) if point.node == "Helper"]
    say = Overrides(messages=[{"role": "user", "content": "hurry"}])
    again = await branched(app, joins[0], overrides=say)
    # Behind the seed lie b's last step and all of a's after the first.
    assert again[3:6] == [*result[3:5], [*result[5], "hurry"]]
    assert all("hurry" in heard and "b0" not in heard for heard in again[1:3])
    assert sorted(again[-1]) == sorted([*result[-1], "hurry"])


async def test_another_call_on_a_line_is_told(app: App, temporal_env: WorkflowEnvironment) -> None:
    await in_order(app, crew.Lines.run, ["b0", "b helps", "a0", "a helps"], list("ab"))
    last = (await steps(app))[-1].step
    done = bodies(app)
    async with changed(app, temporal_env, crew.LinesWithOtherHelp, crew.Helper) as other:
        message = await refused(other, last)
    assert re.search(r"step \d was 'Helper' \(\w+\), and now the code calls 'Helper'", message)
    assert bodies(app) == done


@pytest.mark.parametrize("say", ["", "mind the gap"])
@pytest.mark.parametrize("order", ["a0 b0 a1 b1", "b0 b1 a0 a1"])
async def test_what_had_failed_on_a_line_runs_again(app: App, order: str, say: str) -> None:
    result = await in_order(app, crew.LinesWithMishaps.run, order.split())
    assert result[1] == ["a broken!"]
    assert result[3 + 2] == ["b broken!"]
    done = bodies(app)
    assert set(done.values()) == {1}
    on_lines = [point for point in await steps(app) if point.metadata.get("line", [""])[0]]
    overrides = Overrides(messages=[{"role": "user", "content": say}] if say else [])
    again = await branched(app, on_lines[-1].step, overrides=overrides)
    assert again[:-1] == result[:-1]
    assert sorted(again[-1]) == sorted([*result[-1], *([say] if say else [])])
    assert bodies(app) == {**done, "a broken": 2, "b broken helps": 2, "end": 2}
    assert (await app.engine.verify()).ok
