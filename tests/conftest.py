"""What every test may use: a real Temporal server, a client of it, a task queue of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.cli.reporter import TextReporter
from ckpt_engine.cli.server.search import find_executable
from ckpt_engine.cli.settings import Settings


async def start_server(*settings: str) -> WorkflowEnvironment:
    """Start a development server; found or obtained as `ckpt server` does it.

    Args:
        settings: Dynamic settings beside those of every test, as ``key=value``.
    """
    found = Settings()
    executable = await find_executable(TextReporter(), cache=found.cache, named=found.temporal_cli)
    every = ("system.enableActivityEagerExecution=true", *settings)
    return await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(executable),
        dev_server_log_level="error",
        dev_server_extra_args=[arg for one in every for arg in ("--dynamic-config-value", one)],
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_env() -> AsyncIterator[WorkflowEnvironment]:
    """A development server for the whole run."""
    env = await start_server()
    try:
        yield env
    finally:
        await env.shutdown()


@pytest.fixture
async def client(temporal_env: WorkflowEnvironment) -> Client:
    """A client without plugins, connected in the test's own event loop."""
    return await Client.connect(
        temporal_env.client.service_client.config.target_host,
        namespace=temporal_env.client.namespace,
        data_converter=pydantic_data_converter,
    )


@pytest.fixture
def task_queue() -> str:
    """A task queue that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
