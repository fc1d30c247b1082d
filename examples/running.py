"""What the examples share: a client, a worker with the plugin, and words for what is asked."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client, Plugin, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.temporal import (
    BranchRequest,
    CheckpointPlugin,
    Overrides,
    RewindRequest,
    Sessions,
    StepPolicy,
    Target,
)


@dataclass
class Example:
    """A running application, asked in the order in which it prints."""

    client: Client
    sessions: Sessions
    queue: str
    database: str

    async def start(self, run: Callable[..., Any], *args: Any) -> WorkflowHandle[Any, Any]:
        """Start a workflow under a new id."""
        handle: WorkflowHandle[Any, Any] = await self.client.start_workflow(
            run, args=args, id=f"{self.queue}-{uuid.uuid4().hex[:4]}", task_queue=self.queue
        )
        print(f"{handle.id} runs {getattr(run, '__qualname__', run)}")
        return handle

    async def result(self, workflow_id: str) -> Any:
        """Wait for a workflow, and say what came of it."""
        result = await self.client.get_workflow_handle(workflow_id).result()
        print(f"  {workflow_id}: {result}")
        return result

    async def rewind(self, workflow_id: str, to: Target, **overrides: Any) -> Any:
        """Go on from an older checkpoint instead, and wait for what comes of it."""
        print(f"rewind {workflow_id} to {_words(to)}{_words(overrides, ' with ')}")
        request = RewindRequest(to=to, overrides=Overrides(**overrides))
        await self.sessions.rewind(workflow_id, request)
        return await self.result(workflow_id)

    async def branch(self, workflow_id: str, at: Target, name: str, **overrides: Any) -> Any:
        """Start another line beside, and wait for what comes of it."""
        print(f"branch {workflow_id} at {_words(at)} as {name}{_words(overrides, ' with ')}")
        request = BranchRequest(at=at, name=name, overrides=Overrides(**overrides))
        child = await self.sessions.branch(workflow_id, request)
        return await self.result(child.workflow_id)

    def tree(self, workflow_id: str) -> None:
        """Draw the session, as the command line does."""
        print(f"\n$ ckpt tree {workflow_id} --db {self.database}", flush=True)
        ckpt = Path(sys.executable).with_name("ckpt")
        subprocess.run([ckpt, "tree", workflow_id, "--db", self.database], check=True)  # noqa: S603


def _words(given: Target | Mapping[str, Any], before: str = "") -> str:
    fields = given.model_dump(exclude_none=True) if isinstance(given, Target) else given
    words = ", ".join(f"{key} {value}" for key, value in fields.items())
    return before + words if words else ""


@asynccontextmanager
async def example(
    name: str,
    database: str,
    workflows: Sequence[type],
    activities: Sequence[Callable[..., Any]] = (),
    *,
    plugins: Sequence[Plugin] = (),
    policies: Mapping[str, StepPolicy] | None = None,
) -> AsyncIterator[Example]:
    """Run a worker for an example; the plugin is all that checkpoints need."""
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    client = await Client.connect(
        **config,
        data_converter=pydantic_data_converter,
        plugins=[*plugins, CheckpointPlugin(database, policies=policies)],
    )
    worker = Worker(
        client,
        task_queue=name,
        workflows=workflows,
        activities=activities,
        activity_executor=ThreadPoolExecutor(4),
    )
    async with worker, await create_checkpoint_engine(database) as engine:
        yield Example(client, Sessions(client, engine), name, database)
