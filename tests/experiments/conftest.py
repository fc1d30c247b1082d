"""What the tests of experiments share: a worker with the shipped analyst, and sessions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.activities.analyst import analyst
from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.experiment import ExperimentWorkflow
from ckpt_agent.workflows.experiment_messages import ExperimentInput
from ckpt_agent.workflows.messages import AgentInput, AgentResult
from ckpt_engine import CheckpointEngine
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.experiments import ExperimentSpec, Report

from ..agent.conftest import application, chat  # noqa: F401 (a fixture)


class App:
    """A worker for one agent, and the engine it writes to."""

    def __init__(self, client: Client, engine: CheckpointEngine, queue: str) -> None:
        self.client, self.engine, self.queue = client, engine, queue

    async def begin(self, question: str, **given: Any) -> WorkflowHandle[Any, AgentResult]:
        """Start an agent."""
        return await self.client.start_workflow(
            AgentWorkflow.run,
            AgentInput.model_validate({"question": question, **given}),
            id=f"agent-{uuid.uuid4().hex[:8]}",
            task_queue=self.queue,
        )

    async def session(self, question: str, **given: Any) -> AgentResult:
        """Run an agent to its end: a session to branch from."""
        return await (await self.begin(question, **given)).result()

    async def start(self, spec: dict[str, Any]) -> WorkflowHandle[Any, Report]:
        return await self.client.start_workflow(
            ExperimentWorkflow.run,
            ExperimentInput(spec=ExperimentSpec.model_validate(spec)),
            id=f"experiment-{uuid.uuid4().hex[:8]}",
            task_queue=self.queue,
        )

    async def run(self, spec: dict[str, Any]) -> Report:
        return await (await self.start(spec)).result()


@asynccontextmanager
async def running(
    env: WorkflowEnvironment, spec: AgentSpec, folder: Path, queue: str
) -> AsyncIterator[App]:
    async with application(env, spec, folder, queue) as (client, engine):
        yield App(client, engine, queue)


@pytest.fixture
async def shipped(
    temporal_env: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[App]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with running(temporal_env, analyst({}), tmp_path, task_queue) as app:
        yield app
