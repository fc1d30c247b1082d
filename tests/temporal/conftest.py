"""A worker with the plugin, an engine on the same file, and helpers to start walkers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import CheckpointEngine, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.temporal import CheckpointPlugin, Sessions, StepPolicy

from .app import ACTIVITIES, Walker


@dataclass
class App:
    """A running application with everything a test needs to look at it."""

    client: Client
    engine: CheckpointEngine
    sessions: Sessions
    task_queue: str
    url: str

    async def start(self, nodes: int, *, fail_at: int = -1) -> WorkflowHandle[Any, list[str]]:
        """Start a walker whose gates are named after its workflow id."""
        workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
        return await self.client.start_workflow(
            Walker.run,
            args=[workflow_id, nodes, fail_at],
            id=workflow_id,
            task_queue=self.task_queue,
        )

    async def thread(self, workflow_id: str) -> str:
        """Return the id of the newest thread that this workflow ran."""
        found = await self.engine.find_run(workflow_id)
        assert found is not None, f"no thread for {workflow_id}"
        return found[0].id


POLICIES = {"recite": StepPolicy(record=False)}


async def connect(
    env: WorkflowEnvironment,
    url: str,
    config: SnapshotConfig | None = None,
    policies: Mapping[str, StepPolicy] = POLICIES,
) -> Client:
    """Return a client of the server, with the plugin."""
    return await Client.connect(
        env.client.service_client.config.target_host,
        namespace=env.client.namespace,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, config=config, policies=policies)],
    )


@asynccontextmanager
async def running_app(
    env: WorkflowEnvironment, url: str, task_queue: str, **options: Any
) -> AsyncIterator[App]:
    client = await connect(env, url, options.pop("config", None), options.pop("policies", POLICIES))
    options.setdefault("workflows", [Walker])
    options.setdefault("activities", ACTIVITIES)
    worker = Worker(client, task_queue=task_queue, **options)
    async with worker, await create_checkpoint_engine(url) as engine:
        yield App(client, engine, Sessions(client, engine), task_queue, url)


def app_with(**options: Any) -> Any:
    """Return a fixture ``app`` whose worker has these options, on a file of its own."""

    @pytest.fixture
    async def app(
        temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
    ) -> AsyncIterator[App]:
        url = f"sqlite:///{tmp_path}/ckpt.db"
        async with running_app(temporal_env, url, task_queue, **options) as running:
            yield running

    return app


app = app_with()
