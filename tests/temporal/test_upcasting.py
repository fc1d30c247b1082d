"""Seeds that an older version of the application wrote are upcast; what is old stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import SnapshotConfig, create_checkpoint_engine
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.temporal import (
    BranchRequest,
    CheckpointPlugin,
    Overrides,
    RewindRequest,
    Sessions,
    Target,
)

from .app import ACTIVITIES, Walker, gate
from .conftest import POLICIES, App, running_app


def upcast(
    messages: list[Any], state: dict[str, Any], version: int
) -> tuple[list[Any], dict[str, Any]]:
    if version < 2:
        state["at"] = state.pop("last", -1)
        messages = [{**message, "content": f"v2 {message['content']}"} for message in messages]
    return messages, state


def broken(messages: list[Any], state: dict[str, Any], version: int) -> Any:
    return messages, state["no such key"]


async def with_version(
    env: WorkflowEnvironment, url: str, queue: str, config: SnapshotConfig
) -> tuple[Client, Worker]:
    client = await Client.connect(
        env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, config=config, policies=POLICIES)],
    )
    worker = Worker(client, task_queue=queue, workflows=[Walker], activities=ACTIVITIES)
    return client, worker


async def old_session(env: WorkflowEnvironment, url: str, queue: str) -> tuple[App, str]:
    async with running_app(env, url, queue) as app:
        handle = await app.start(2)
        await handle.result()
        return app, handle.id


async def test_a_seed_of_an_older_version_is_upcast(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    _, workflow_id = await old_session(temporal_env, url, task_queue)
    config = SnapshotConfig(schema_version=2, upcast=upcast)
    client, worker = await with_version(temporal_env, url, task_queue, config)
    async with worker, await create_checkpoint_engine(url, config) as engine:
        sessions = Sessions(client, engine)
        say = Overrides(messages=[{"role": "user", "content": "on"}])
        reached, opened = gate(workflow_id, 1)
        child = await sessions.rewind(workflow_id, RewindRequest(to=Target(step=1), overrides=say))
        await reached.wait()
        first = (await engine.list_time_travel_points(child.thread, limit=1))[0]
        made = await engine.get(first.id)
        assert made.metadata["schema"] == 2
        assert [message["content"] for message in made.messages] == ["v2 at 0", "on"]
        assert made.state == {"at": 0}
        old = await engine.get(child.seed[0])
        assert (old.state, old.messages[0]["content"]) == ({"last": 0}, "at 0")
        # A running workflow does it through its supervisor; its own steps are not upcast again.
        again = await sessions.rewind(workflow_id, RewindRequest(to=Target(step=2)))
        opened.set()
        handle = client.get_workflow_handle(workflow_id)
        assert await handle.result() == ["v2 at 0", "on", "at 1"]
        last = await engine.get_latest(again.thread)
        assert last.metadata["schema"] == 2
        branch = BranchRequest(at=Target(step=3), name="same")
        other = await sessions.branch(workflow_id, branch)
        result = await client.get_workflow_handle(other.workflow_id).result()
        assert result[:2] == ["v2 at 0", "on"]
        assert (await engine.verify()).ok


async def test_an_upcast_that_fails_and_a_seed_from_the_future_are_refused(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    app, workflow_id = await old_session(temporal_env, url, task_queue)
    request = RewindRequest(to=Target(step=1))
    async with await create_checkpoint_engine(
        url, SnapshotConfig(schema_version=3, upcast=broken)
    ) as engine:
        with pytest.raises(InvalidRequest, match=r"from schema version 0 to 3 failed.*no such key"):
            await Sessions(app.client, engine).rewind(workflow_id, request)
        assert len(await engine.list_threads(await _session(engine, workflow_id))) == 1
    config = SnapshotConfig(schema_version=3, upcast=lambda m, s, _: (m, s))
    client, worker = await with_version(temporal_env, url, task_queue, config)
    async with worker, await create_checkpoint_engine(url, config) as engine:
        await Sessions(client, engine).rewind(workflow_id, request)
        await client.get_workflow_handle(workflow_id).result()
    older = SnapshotConfig(schema_version=2, upcast=upcast)
    async with await create_checkpoint_engine(url, older) as engine:
        with pytest.raises(InvalidRequest, match=r"version 3.*up to 2"):
            await Sessions(app.client, engine).rewind(workflow_id, RewindRequest(to=Target(back=0)))


async def _session(engine: Any, workflow_id: str) -> str:
    found = await engine.find_run(workflow_id)
    session: str = found[0].session_id
    return session


def test_a_version_is_a_number() -> None:
    with pytest.raises(InvalidRequest, match="schema_version"):
        SnapshotConfig(schema_version=-1)
