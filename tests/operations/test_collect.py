"""Retention as a workflow of the worker's own, once or by a schedule."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowFailureError,
)
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointEngine
from ckpt_engine.temporal.collect import CollectRequest, CollectWorkflow
from tests.cli.command import Ckpt, environment
from tests.temporal.conftest import App, running_app


@asynccontextmanager
async def with_checkpoints(
    env: WorkflowEnvironment, folder: Path, queue: str
) -> AsyncIterator[tuple[App, list[str]]]:
    async with running_app(env, f"sqlite:///{folder}/ckpt.db", queue) as app:
        yield app, [await lived(app.engine, n) for n in range(3)]


async def lived(engine: CheckpointEngine, number: int) -> str:
    for step in range(10):
        await engine.snapshot(f"session {number}", append=[{"n": step}], state={"n": step})
    return f"session {number}"


async def count(engine: CheckpointEngine, session: str) -> int:
    return len(await engine.list_time_travel_points(session, limit=100))


async def collect(client: Client, queue: str, request: CollectRequest) -> dict[str, int]:
    return await client.execute_workflow(
        CollectWorkflow.run,
        request.model_dump(),
        id=f"gc-{uuid.uuid4().hex[:8]}",
        task_queue=queue,
    )


async def test_a_policy_in_words_is_carried_out_and_reported(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with with_checkpoints(temporal_env, tmp_path, task_queue) as (app, sessions):
        tried = await collect(app.client, task_queue, CollectRequest(keep="last:4", dry_run=True))
        assert (tried["sessions"], tried["dropped"], tried["dry_run"]) == (3, 18, True)
        assert [await count(app.engine, s) for s in sessions] == [10, 10, 10]
        only = CollectRequest(keep="last:4", session=sessions[0])
        assert (await collect(app.client, task_queue, only))["dropped"] == 6
        assert [await count(app.engine, s) for s in sessions] == [4, 10, 10]
        done = await collect(app.client, task_queue, CollectRequest(keep="last:4"))
        assert (done["dropped"], done["kept"]) == (12, 12)
        assert (await app.engine.verify()).ok
        # it is no step of anything: collecting leaves no thread of its own
        assert len(await app.engine.list_sessions(limit=100)) == 3


async def test_a_policy_that_is_none_is_refused_at_once(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with with_checkpoints(temporal_env, tmp_path, task_queue) as (app, _):
        with pytest.raises(WorkflowFailureError) as failed:
            await collect(app.client, task_queue, CollectRequest(keep="everything"))
    cause = failed.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    assert cause.cause.non_retryable
    assert "last:N" in cause.cause.message


async def test_a_schedule_collects(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with with_checkpoints(temporal_env, tmp_path, task_queue) as (app, sessions):
        action = ScheduleActionStartWorkflow(
            CollectWorkflow.run,
            CollectRequest(keep="last:4").model_dump(),
            id=f"gc-{task_queue}",
            task_queue=task_queue,
        )
        schedule = await app.client.create_schedule(
            f"gc-{task_queue}",
            Schedule(action=action, spec=ScheduleSpec()),
            trigger_immediately=True,
        )
        try:
            ran = await first_run(app.client, f"gc-{task_queue}")
            assert (await app.client.get_workflow_handle(ran).result())["dropped"] == 18
        finally:
            await schedule.delete()
        assert [await count(app.engine, s) for s in sessions] == [4, 4, 4]


async def first_run(client: Client, schedule: str) -> str:
    """Return the id of the first workflow that a schedule started, once it has."""

    async with asyncio.timeout(30):
        while True:
            described = await client.get_schedule_handle(schedule).describe()
            if described.info.recent_actions:
                action = described.info.recent_actions[0].action
                return str(getattr(action, "workflow_id"))  # noqa: B009
            await asyncio.sleep(0.1)


async def test_the_command_makes_changes_and_removes_a_schedule(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with with_checkpoints(temporal_env, tmp_path, task_queue) as (app, sessions):
        ckpt = Ckpt(
            environment(
                tmp_path,
                TEMPORAL_ADDRESS=app.client.service_client.config.target_host,
                CKPT_TASK_QUEUE=task_queue,
            )
        )
        mine = ("gc", "schedule", "--id", f"gc-{task_queue}")

        async def say(*words: str, code: int = 0) -> str:
            return await asyncio.to_thread(ckpt, *mine, *words, code=code)

        made = await say("--keep", "last:9", "--every", "6h")
        assert "keep last:9" in made
        assert f"gc schedule --id gc-{task_queue} --delete" in made
        assert "keep last:4" in await say("--keep", "last:4", "--every", "1d", "--now")
        ran = await first_run(app.client, f"gc-{task_queue}")
        assert (await app.client.get_workflow_handle(ran).result())["dropped"] == 18
        assert [await count(app.engine, s) for s in sessions] == [4, 4, 4]
        assert "last:N" in await say("--keep", "much", code=2)
        assert "90s, 30m" in await say("--keep", "all", "--every", "often", code=2)
        assert "say what to keep" in await say(code=2)
        assert "removed" in await say("--delete")
        assert "no schedule" in await say("--delete", code=3)
