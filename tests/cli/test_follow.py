"""Following a session whose workflow cannot go on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.temporal import CheckpointPlugin, Rewindable

from .command import CKPT, environment


@activity.defn
async def begin() -> None:
    """Do nothing: the session has a checkpoint then."""


@workflow.defn
class Mistaken(Rewindable):
    """Has a mistake in its code, so that Temporal tries it for ever."""

    @workflow.run
    async def run(self) -> str:
        await workflow.execute_activity(begin, schedule_to_close_timeout=timedelta(seconds=30))
        return {"known": "node"}["mistyped"]


async def test_code_that_fails_again_and_again_is_told_while_it_is_followed(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/checkpoints.db"
    address = temporal_env.client.service_client.config.target_host
    client = await Client.connect(address, plugins=[CheckpointPlugin(url)])
    async with (
        await create_checkpoint_engine(url) as engine,
        Worker(client, task_queue=task_queue, workflows=[Mistaken], activities=[begin]),
    ):
        handle = await client.start_workflow("Mistaken", id=task_queue, task_queue=task_queue)
        async with asyncio.timeout(30):
            while await engine.find_run(handle.id) is None:
                await asyncio.sleep(0.05)
        env = environment(tmp_path, TEMPORAL_ADDRESS=address)
        pipe = asyncio.subprocess.PIPE
        following = await asyncio.create_subprocess_exec(
            CKPT, "log", handle.id, "--follow", env=env, stdout=pipe
        )
        assert following.stdout is not None
        async with asyncio.timeout(60):
            while b"is tried again" not in (line := await following.stdout.readline()):
                assert line, "it ended"
        assert b"mistyped" in line
        await handle.terminate()
        await asyncio.wait_for(following.wait(), 30)
