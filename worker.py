"""Composition root of the shipped application: settings in, a running worker out."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic_settings import BaseSettings, SettingsConfigDict
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from ckpt_agent.activities.agent import AgentActivities
from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_engine.contrib.agent import load_agent
from ckpt_engine.model import SnapshotTrigger
from ckpt_engine.temporal import CheckpointPlugin, StepPolicy

if TYPE_CHECKING:
    from ckpt_engine.contrib.agent import AgentSpec

__all__ = ["POLICIES", "WorkerSettings", "connect", "main", "make_worker"]

POLICIES = {
    "begin": StepPolicy(trigger=SnapshotTrigger.TASK_BOUNDARY),
    "call_model": StepPolicy(trigger=SnapshotTrigger.LLM_CALL),
    "call_tool": StepPolicy(trigger=SnapshotTrigger.TOOL_CALL),
    "resume_point": StepPolicy(record=False),
}


_HEARTBEAT = timedelta(seconds=2)


class WorkerSettings(BaseSettings):
    """What ``python worker.py`` reads from the environment (``CKPT_…``)."""

    model_config = SettingsConfigDict(env_prefix="CKPT_")

    database_url: str = "sqlite:///ckpt.db"
    temporal_address: str = "127.0.0.1:7233"
    namespace: str = "default"
    task_queue: str = "ckpt-agent"
    agent: str = "ckpt_agent.activities.analyst:agent"


async def connect(address: str, *, namespace: str = "default", database_url: str) -> Client:
    """Return a client whose workers checkpoint every step in the given database."""
    return await Client.connect(
        address,
        namespace=namespace,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(database_url, policies=POLICIES)],
    )


def make_worker(client: Client, agent: AgentSpec, *, task_queue: str) -> Worker:
    """Return a worker that runs agents made of ``agent``; its tools may be sync or async."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[AgentWorkflow],
        activities=AgentActivities(agent).all(),
        activity_executor=concurrent.futures.ThreadPoolExecutor(16),
        # a rewind cancels the step in flight, which hears of it in the answer to a heartbeat
        max_heartbeat_throttle_interval=_HEARTBEAT,
        default_heartbeat_throttle_interval=_HEARTBEAT,
    )


async def main(settings: WorkerSettings | None = None) -> None:
    """Run a worker until it is interrupted; steps in flight commit before it ends."""
    settings = settings or WorkerSettings()
    client = await connect(
        settings.temporal_address,
        namespace=settings.namespace,
        database_url=settings.database_url,
    )
    worker = make_worker(client, load_agent(settings.agent), task_queue=settings.task_queue)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with worker:
        await stop.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
