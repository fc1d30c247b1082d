"""Checkpoints inside a long step, at every interval."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointInfo, SnapshotConfig, SnapshotTrigger
from ckpt_engine.temporal import BranchRequest, StepPolicy, Target, current_step

from .app import ACTIVITIES, gate, walk
from .conftest import POLICIES, App, running_app
from .family import Researchers, think

OFTEN = SnapshotConfig(
    triggers=SnapshotConfig().triggers | {SnapshotTrigger.INTERVAL}, interval_seconds=0.02
)


async def inside(app: App, workflow_id: str, count: int, step: int = 3) -> list[CheckpointInfo]:
    """Wait for so many checkpoints inside a step that is running; the oldest first."""
    session = (await app.engine.get_thread(await app.thread(workflow_id))).session_id
    async with asyncio.timeout(30):
        while True:
            threads = await app.engine.list_threads(session)
            aside = [
                thread for thread in threads if thread.branch.startswith(f"inside-step-{step}-")
            ]
            if aside:
                points = await app.engine.list_time_travel_points(aside[0].id)
                taken = [p for p in points if p.trigger == SnapshotTrigger.INTERVAL]
                if len(taken) >= count:
                    return taken[::-1]
            await asyncio.sleep(0.01)


async def test_a_long_step_leaves_checkpoints_and_a_branch_from_one_begins_it_again(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    async with running_app(temporal_env, url, task_queue, config=OFTEN) as app:
        handle = await app.start(4)
        reached, opened = gate(handle.id, 2)
        await reached.wait()
        first, second = (await inside(app, handle.id, 2))[:2]
        partly = await app.engine.get(second.id)
        assert [m["content"] for m in partly.messages] == ["at 0", "at 1", "at 2"]
        assert (partly.state, partly.next_node, partly.node) == ({"last": 2}, "2", "2")
        assert partly.metadata["phase"] == "interval"
        assert second.parents == (first.id,)
        thread = await app.thread(handle.id)
        assert (await app.engine.get_latest(thread)).step == 2  # the step itself is not done
        branch = BranchRequest(at=Target(checkpoint=second.id), name="from-the-middle")
        started = await app.sessions.branch(handle.id, branch)
        opened.set()
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
        found = app.client.get_workflow_handle(started.workflow_id)
        assert await found.result() == ["at 0", "at 1", "at 2", "at 2", "at 3"]
        points = await app.engine.list_time_travel_points(thread)
        assert [p.node for p in points] == ["walk"] * 4 + ["start"]
        assert SnapshotTrigger.INTERVAL not in {p.trigger for p in points}
        assert (await app.engine.verify()).ok


async def test_a_branch_from_inside_a_step_that_joins_lines_does_none_of_them_again(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    options: dict[str, Any] = {"workflows": [Researchers], "activities": [think]}
    async with running_app(temporal_env, url, task_queue, config=OFTEN, **options) as app:
        reached, opened = gate(f"{task_queue}/writer", 0)
        handle = await app.client.start_workflow(
            Researchers.run, args=[["x", "y"], 1], id=task_queue, task_queue=task_queue
        )
        await reached.wait()
        first, second = (await inside(app, handle.id, 2, step=4))[:2]
        assert (len(first.parents), second.parents) == (2, (first.id,))
        partly = await app.engine.get(first.id)
        assert [m["content"] for m in partly.messages] == ["asker 0", "x 0", "y 0", "writer 0"]
        assert partly.state == {"asker": 0, "x": 0, "y": 0, "writer": 0}
        assert "replaced" not in first.summary
        branch = BranchRequest(at=Target(checkpoint=second.id), name="from-the-middle")
        started = await app.sessions.branch(handle.id, branch)
        opened.set()
        again = await app.client.get_workflow_handle(started.workflow_id).result()
        assert again["writer"] == [["asker 0", "x 0", "y 0", "writer 0"]]
        points = await app.engine.list_time_travel_points(started.thread)
        assert [p.node for p in points if p.thread_id == started.thread] == ["think", "branch"]
        assert (await app.engine.verify()).ok


async def test_what_a_policy_redacts_is_redacted_there_too(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    policies = {**POLICIES, "walk": StepPolicy(redact=lambda message: {**message, "content": "-"})}
    async with running_app(temporal_env, url, task_queue, config=OFTEN, policies=policies) as app:
        handle = await app.start(3)
        reached, opened = gate(handle.id, 2)
        await reached.wait()
        newest = (await inside(app, handle.id, 1))[-1]
        opened.set()
        assert [m["content"] for m in (await app.engine.get(newest.id)).messages] == ["-"] * 3
        await handle.result()


@activity.defn(name="walk")
async def stumble(root: str, node: int) -> str:
    if node == 2:
        step = await current_step()
        step.append(object())  # cannot be stored yet
        first = len(step.added) - 1
        await asyncio.sleep(0.2)  # some intervals long
        del step.added[first], step.messages[-1]
    return await walk(root, node)


async def test_an_interval_checkpoint_that_cannot_be_taken_is_logged_and_the_step_goes_on(
    temporal_env: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    activities = [stumble, *(a for a in ACTIVITIES if a is not walk)]
    async with running_app(
        temporal_env, url, task_queue, config=OFTEN, activities=activities
    ) as app:
        handle = await app.start(4)
        assert await handle.result() == ["at 0", "at 1", "at 2", "at 3"]
    assert "no interval checkpoint" in caplog.text
