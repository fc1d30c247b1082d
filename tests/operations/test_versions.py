"""Checkpoints of several worker versions, and a rewind that is told which one is to run it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker, WorkerDeploymentConfig

from ckpt_engine import CheckpointInfo, InvalidRequest, create_checkpoint_engine
from ckpt_engine.temporal import (
    BranchRequest,
    CheckpointPlugin,
    RewindRequest,
    Sessions,
    Target,
)
from tests.temporal.app import ACTIVITIES, Walker, gate
from tests.temporal.conftest import POLICIES

NODES = 4


@asynccontextmanager
async def version(client: Client, queue: str, name: str, build: str) -> AsyncIterator[None]:
    config = WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(name, build),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Walker],
        activities=ACTIVITIES,
        deployment_config=config,
    ):
        yield


async def make_current(client: Client, name: str, build: str) -> None:
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=name, build_id=build
    )
    async with asyncio.timeout(60):
        while True:
            try:
                await client.workflow_service.set_worker_deployment_current_version(request)
            except RPCError as err:
                if err.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                    raise
                await asyncio.sleep(0.1)  # the server has not heard of the worker yet
            else:
                return


async def test_a_child_runs_on_the_version_that_was_asked_for(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url, name = f"sqlite:///{tmp_path}/ckpt.db", f"walkers-{uuid.uuid4().hex[:6]}"
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, policies=POLICIES)],
    )
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    async with (
        version(client, task_queue, name, "1.0"),
        version(client, task_queue, name, "2.0"),
        await create_checkpoint_engine(url) as engine,
    ):
        await make_current(client, name, "2.0")
        await make_current(client, name, "1.0")
        reached, opened = gate(workflow_id, NODES - 1)
        walker = await client.start_workflow(
            Walker.run, args=[workflow_id, NODES, -1], id=workflow_id, task_queue=task_queue
        )
        await reached.wait()
        sessions = Sessions(client, engine)

        async def builds(thread: str) -> set[object]:
            own: list[CheckpointInfo] = await engine.list_time_travel_points(thread)
            made = {i.metadata.get("build") for i in own if i.thread_id == thread}
            return made - {None}

        root = await engine.find_run(workflow_id)
        assert root is not None
        assert await builds(root[0].id) == {f"{name}.1.0"}
        # started by the workflow, which runs on the other version
        branch = BranchRequest(at=Target(step=1), name="newer", version=f"{name}.2.0")
        branched = await sessions.branch(workflow_id, branch)
        await client.get_workflow_handle(branched.workflow_id).result()
        assert await builds(branched.thread) == {f"{name}.2.0"}
        opened.set()
        await walker.result()
        # revived by the client
        again = RewindRequest(to=Target(step=2), version=f"{name}.2.0")
        child = await sessions.rewind(workflow_id, again)
        await client.get_workflow_handle(child.workflow_id).result()
        assert await builds(child.thread) == {f"{name}.2.0"}

        with pytest.raises(InvalidRequest, match=r"knows no worker version .*3\.0"):
            await sessions.rewind(
                workflow_id, RewindRequest(to=Target(step=2), version=f"{name}.3.0")
            )
        threads = [t.branch for t in await engine.list_threads(root[0].id)]
        assert sorted(threads) == ["main", "newer", "rewind-1"]


async def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        RewindRequest(to=Target(step=2), version="nonsense")
