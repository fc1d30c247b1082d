"""Composition root of the shipped application: settings in, a running worker out."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from temporalio.client import Client
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.worker import Worker

from ckpt_agent.activities.agent import AgentActivities
from ckpt_agent.activities.experiment import ExperimentActivities
from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.experiment import ExperimentWorkflow
from ckpt_agent.workflows.promote import PromoteWorkflow
from ckpt_engine import Keyring
from ckpt_engine.contrib.agent import load_agent
from ckpt_engine.model import SnapshotTrigger
from ckpt_engine.temporal import CheckpointPlugin, StepPolicy
from ckpt_engine.temporal.encryption import data_converter

if TYPE_CHECKING:
    from ckpt_engine.contrib.agent import AgentSpec

__all__ = ["POLICIES", "WorkerSettings", "connect", "main", "make_worker"]

POLICIES = {
    "begin": StepPolicy(trigger=SnapshotTrigger.TASK_BOUNDARY),
    "call_model": StepPolicy(trigger=SnapshotTrigger.LLM_CALL),
    "call_tool": StepPolicy(trigger=SnapshotTrigger.TOOL_CALL),
    "compact": StepPolicy(trigger=SnapshotTrigger.STATE_CHANGE),
    "resume_point": StepPolicy(record=False),
    **{
        f"experiment_{name}": StepPolicy(memory=False)
        for name in ("check", "judge", "measure", "promote", "score", "verdict")
    },
}


_HEARTBEAT = timedelta(seconds=2)


class WorkerSettings(BaseSettings):
    """What ``python worker.py`` reads from the environment (``CKPT_…``).

    Where the Temporal server is follows Temporal's own conventions (``TEMPORAL_ADDRESS``,
    ``TEMPORAL_API_KEY``, ``TEMPORAL_TLS_…``, ``TEMPORAL_PROFILE`` and its configuration file).

    Attributes:
        database_url: Where the checkpoints are.
        keys: What content and payloads are encrypted with; see ``ckpt key``.
        task_queue: The task queue.
        agent: The agent, as ``module:object``.
        shutdown_seconds: How long steps in flight may go on when the worker is stopped.
    """

    model_config = SettingsConfigDict(env_prefix="CKPT_")

    database_url: str = "sqlite:///ckpt.db"
    keys: SecretStr = SecretStr("")
    task_queue: str = "ckpt-agent"
    agent: str = "ckpt_agent.activities.analyst:agent"
    shutdown_seconds: float = Field(default=10.0, ge=0)


async def connect(
    config: ClientConnectConfig, *, database_url: str, keys: Keyring | None = None
) -> Client:
    """Return a client whose workers checkpoint every step in the given database."""
    config.setdefault("target_host", "127.0.0.1:7233")
    return await Client.connect(
        **config,
        data_converter=data_converter(keys),
        plugins=[CheckpointPlugin(database_url, policies=POLICIES, keys=keys)],
    )


def make_worker(
    client: Client,
    agent: AgentSpec,
    *,
    task_queue: str,
    shutdown: timedelta = timedelta(seconds=10),
) -> Worker:
    """Return a worker that runs agents made of ``agent``, and experiments with them.

    Args:
        client: One that :func:`connect` made.
        agent: The agent; its tools may be sync or async.
        task_queue: The task queue.
        shutdown: How long steps in flight may go on when it is stopped; a commit that has begun
            is always finished.
    """
    plugins = client.config()["plugins"]
    plugin = next(plugin for plugin in plugins if isinstance(plugin, CheckpointPlugin))
    experiments = ExperimentActivities(lambda: plugin.engine, agent)
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[AgentWorkflow, ExperimentWorkflow, PromoteWorkflow],
        activities=[*AgentActivities(agent).all(), *experiments.all()],
        graceful_shutdown_timeout=shutdown,
        activity_executor=concurrent.futures.ThreadPoolExecutor(16),
        # a rewind cancels the step in flight, which hears of it in the answer to a heartbeat
        max_heartbeat_throttle_interval=_HEARTBEAT,
        default_heartbeat_throttle_interval=_HEARTBEAT,
    )


async def main(settings: WorkerSettings | None = None) -> None:
    """Run a worker until it is interrupted; steps in flight commit before it ends."""
    settings = settings or WorkerSettings()
    secret = settings.keys.get_secret_value()
    client = await connect(
        ClientConfig.load_client_connect_config(),
        database_url=settings.database_url,
        keys=Keyring.parse(secret) if secret else None,
    )
    worker = make_worker(
        client,
        load_agent(settings.agent),
        task_queue=settings.task_queue,
        shutdown=timedelta(seconds=settings.shutdown_seconds),
    )
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with worker:
        await stop.wait()


def _run() -> None:
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except RuntimeError as err:
        if "client connect" not in str(err):
            raise
        sys.stderr.write(
            f"no Temporal server answers ({err}): start one with `ckpt server`, or set "
            "TEMPORAL_ADDRESS\n"
        )
        sys.stderr.flush()
        # a thread of the SDK may abort an interpreter that ends just now (sdk-python#300)
        os._exit(1)


if __name__ == "__main__":
    _run()
