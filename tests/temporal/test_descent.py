"""Rewinds of branches, branches of rewinds, and lines side by side: who descends from whom."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from .app import ACTIVITIES, Walker, gate
from .conftest import App, app_with
from .family import Researchers, think

app = app_with(workflows=[Walker, Researchers], activities=[*ACTIVITIES, think])


def saying(text: str) -> Overrides:
    return Overrides(messages=[{"role": "user", "content": text}])


async def waiting(app: App, node: int, nodes: int) -> tuple[WorkflowHandle[Any, Any], Any]:
    handle = await app.start(nodes)
    reached, opened = gate(handle.id, node)
    await reached.wait()
    return handle, opened


async def test_a_branch_is_rewound_and_its_parent_knows_nothing_of_it(app: App) -> None:
    handle, opened = await waiting(app, 2, 3)
    in_branch, _ = gate(handle.id, 2)
    child = await app.sessions.branch(
        handle.id, BranchRequest(at=Target(step=1), name="b", overrides=saying("branch"))
    )
    await in_branch.wait()
    branch = app.client.get_workflow_handle(child.workflow_id)
    # Step 2 is the branch's own first checkpoint, 3 its first step.
    again = await app.sessions.rewind(
        branch.id, RewindRequest(to=Target(step=3), overrides=saying("rewound"))
    )
    assert again.workflow_id.startswith(branch.id + "/rewind-")
    assert await branch.result() == ["at 0", "branch", "at 1", "rewound", "at 2"]
    opened.set()
    assert await handle.result() == ["at 0", "at 1", "at 2"]
    assert [c.kind for c in (await app.sessions.status(handle.id)).children] == ["branch"]
    assert [c.kind for c in (await app.sessions.status(branch.id)).children] == ["rewind"]


async def test_a_rewound_session_is_branched_through_its_address_and_its_stand_in(
    app: App,
) -> None:
    handle, _ = await waiting(app, 1, 3)
    in_child, opened = gate(handle.id, 2)
    rewound = await app.sessions.rewind(
        handle.id, RewindRequest(to=Target(step=1), overrides=saying("rewound"))
    )
    await in_child.wait()
    request = BranchRequest(at=Target(step=2), name="one", overrides=saying("one"))
    one = await app.sessions.branch(handle.id, request)
    request = BranchRequest(at=Target(step=3), name="two", overrides=saying("two"))
    two = await app.sessions.branch(rewound.workflow_id, request)
    words = [
        await app.client.get_workflow_handle(child.workflow_id).result() for child in (one, two)
    ]
    assert words == [
        ["at 0", "rewound", "one", "at 1", "at 2"],
        ["at 0", "rewound", "at 1", "two", "at 2"],
    ]
    opened.set()
    assert await handle.result() == ["at 0", "rewound", "at 1", "at 2"]


async def test_rewinding_to_the_seed_itself_begins_there_once_more(app: App) -> None:
    handle, _ = await waiting(app, 1, 2)
    in_child, _ = gate(handle.id, 1)
    first = await app.sessions.rewind(
        handle.id, RewindRequest(to=Target(step=1), overrides=saying("once"))
    )
    await in_child.wait()
    begin = (await app.engine.list_time_travel_points(first.thread, limit=1))[0]
    second = await app.sessions.rewind(
        handle.id, RewindRequest(to=Target(checkpoint=begin.id), overrides=saying("twice"))
    )
    assert second.seed == [begin.id]
    assert await handle.result() == ["at 0", "once", "twice", "at 1"]


async def test_a_parent_is_rewound_while_its_branches_run(app: App) -> None:
    handle, _ = await waiting(app, 2, 3)
    branches, gates = [], []
    for name in ("a", "b", "c"):
        reached, opened = gate(handle.id, 2)
        request = BranchRequest(at=Target(step=1), name=name, overrides=saying(name))
        branches.append(await app.sessions.branch(handle.id, request))
        await reached.wait()
        gates.append(opened)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=0), overrides=saying("all")))
    assert await handle.result() == ["all", "at 0", "at 1", "at 2"]
    states = {c.branch: c.state for c in (await app.sessions.status(handle.id)).children}
    assert states == {"a": "running", "b": "running", "c": "running", "rewind-1": "completed"}
    for opened in gates:
        opened.set()
    for child in branches:
        result = await app.client.get_workflow_handle(child.workflow_id).result()
        assert result == ["at 0", child.branch, "at 1", "at 2"]


async def researched(app: App, who: list[str], turns: int) -> str:
    workflow_id = f"research-{uuid.uuid4().hex[:8]}"
    await app.client.start_workflow(
        Researchers.run, args=[who, turns], id=workflow_id, task_queue=app.task_queue
    )
    return workflow_id


async def test_lines_side_by_side_never_read_each_other(app: App) -> None:
    workflow_id = await researched(app, ["ann", "bob", "eve"], 4)
    seen = await app.client.get_workflow_handle(workflow_id).result()
    for name in ("ann", "bob", "eve"):
        own = [f"{name} {turn}" for turn in range(4)]
        assert seen[name] == [["asker 0", *own[:turn]] for turn in range(4)]
    wanted = {f"{name} {turn}" for name in ("ann", "bob", "eve") for turn in range(4)}
    assert set(seen["writer"][0]) == {"asker 0", *wanted}
    assert len(seen["writer"][0]) == 13


@pytest.mark.parametrize("say", ["", "mind the gap"])
async def test_lines_stay_apart_after_a_rewind_across_them(app: App, say: str) -> None:
    """The seed is in the middle of both lines; what the rewind says is for everybody."""
    workflow_id = f"research-{uuid.uuid4().hex[:8]}"
    both = [gate(workflow_id, name) for name in ("ann/2", "bob/2")]  # type: ignore[arg-type]
    handle = await app.client.start_workflow(
        Researchers.run,
        args=[["ann", "bob"], 4],
        id=workflow_id,
        task_queue=app.task_queue,
    )
    async with asyncio.timeout(20):
        for reached, _ in both:
            await reached.wait()
    overrides = saying(say) if say else Overrides()
    request = RewindRequest(to=Target(step=5), overrides=overrides)
    child = await app.sessions.rewind(workflow_id, request)
    seen = await handle.result()
    said = [say] if say else []
    points = await app.engine.list_time_travel_points(child.thread)
    shared = [point.summary for point in points if point.node == "overrides"]
    assert shared == [f"adds “{say}”" for say in said]
    for name in ("ann", "bob"):
        before = ["asker 0", f"{name} 0", f"{name} 1", *said]
        assert seen[name][2:] == [before, [*before, f"{name} 2"]]
    assert sorted(seen["writer"][0]) == sorted(
        ["asker 0", *said, *(f"{name} {turn}" for name in ("ann", "bob") for turn in range(4))]
    )


@pytest.mark.parametrize("step", [1, 3, 5, 8, 9, 10])
async def test_lines_are_found_again_however_fast_each_was(app: App, step: int) -> None:
    """Bob did all his steps while Ann was at her first: nobody waits like that on a replay."""
    workflow_id = f"research-{uuid.uuid4().hex[:8]}"
    reached, opened = gate(workflow_id, "ann/0")  # type: ignore[arg-type]
    handle = await app.client.start_workflow(
        Researchers.run,
        args=[["ann", "bob"], 4],
        id=workflow_id,
        task_queue=app.task_queue,
    )
    await reached.wait()
    async with asyncio.timeout(20):
        while (await app.engine.get_latest(await app.thread(workflow_id))).step < 6:
            await asyncio.sleep(0.02)
    opened.set()
    seen = await handle.result()
    child = await app.sessions.branch(workflow_id, BranchRequest(at=Target(step=step), name="b"))
    again = await app.client.get_workflow_handle(child.workflow_id).result()
    for name in ("ann", "bob"):
        assert again[name] == seen[name]
    assert sorted(again["writer"][0]) == sorted(seen["writer"][0])
    assert (await app.engine.verify()).ok
