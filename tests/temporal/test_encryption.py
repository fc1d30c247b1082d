"""One keyring for Temporal's payloads and the checkpoints: nothing is in the clear in either."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.envconfig import ClientConnectConfig
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.activities.analyst import analyst
from ckpt_agent.worker import connect, make_worker
from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.messages import AgentInput
from ckpt_engine import Keyring, WrongKey, create_checkpoint_engine
from ckpt_engine.temporal import Overrides, RewindRequest, Sessions, Target

OLD = Keyring({"old": b"o" * 32})
BOTH = Keyring({"new": b"n" * 32, "old": b"o" * 32})
QUESTION = "What is the average wind by weather in Seattle, said the pangolin?"


@contextlib.asynccontextmanager
async def running(
    env: WorkflowEnvironment, url: str, queue: str, keys: Keyring
) -> AsyncIterator[Client]:
    config = ClientConnectConfig(
        target_host=env.client.service_client.config.target_host, namespace=env.client.namespace
    )
    client = await connect(config, database_url=url, keys=keys)
    async with make_worker(client, analyst({}), task_queue=queue, shutdown=timedelta(0)):
        yield client


async def ask(client: Client, queue: str) -> str:
    workflow_id = f"secret-{uuid.uuid4().hex[:8]}"
    await client.execute_workflow(
        AgentWorkflow.run, AgentInput(question=QUESTION), id=workflow_id, task_queue=queue
    )
    return workflow_id


async def test_neither_history_nor_store_has_anything_in_the_clear(
    temporal_env: WorkflowEnvironment, client: Client, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with (
        running(temporal_env, url, task_queue, OLD) as ours,
        await create_checkpoint_engine(url, keys=OLD) as engine,
    ):
        workflow_id = await ask(ours, task_queue)
        sessions = Sessions(ours, engine)
        overrides = Overrides(messages=[{"role": "user", "content": "only 2014, aardvark"}])
        again = RewindRequest(to=Target(step=2), overrides=overrides)
        await sessions.rewind(workflow_id, again)
        answer = await ours.get_workflow_handle(workflow_id).result()
        assert "2014" in answer["answer"]
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("e.db*"))
    for word in ("pangolin", "aardvark", "drizzle"):
        assert word not in history.to_json()
        assert word.encode() not in stored


async def test_a_key_is_rotated_under_a_running_session(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with running(temporal_env, url, task_queue, OLD) as ours:
        workflow_id = await ask(ours, task_queue)
    async with (
        running(temporal_env, url, task_queue, BOTH) as ours,
        await create_checkpoint_engine(url, keys=BOTH) as engine,
    ):
        child = await Sessions(ours, engine).rewind(workflow_id, RewindRequest(to=Target(step=2)))
        answer = await ours.get_workflow_handle(child.workflow_id).result()
        assert "drizzle" in answer["answer"]
    with pytest.raises(WrongKey, match="'new'"):
        await create_checkpoint_engine(url, keys=OLD)


async def test_a_reader_with_the_wrong_key_is_told_so(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with running(temporal_env, url, task_queue, OLD) as ours:
        workflow_id = await ask(ours, task_queue)
    config = ClientConnectConfig(target_host=temporal_env.client.service_client.config.target_host)
    other = await connect(config, database_url=url, keys=Keyring({"new": b"n" * 32}))
    with pytest.raises((WrongKey, WorkflowFailureError), match="key 'old'"):
        await other.get_workflow_handle(workflow_id).result()
