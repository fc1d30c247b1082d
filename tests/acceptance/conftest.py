"""A stage: a server, a store and a ledger, on which agents run with workers to be killed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointEngine, create_checkpoint_engine
from ckpt_engine.temporal import Sessions

from .courier import Courier, Trip
from .doom import Doom
from .ledger import Ledger
from .record import Stored, check_agreement, history_of, stored_of
from .workers import Setup, WorkerProcess, worker_process


@dataclass
class Stage:
    """Everything a test needs to start agents, doom their workers and see what came of it."""

    client: Client
    engine: CheckpointEngine
    ledger: Ledger
    setup: Setup
    folder: Path

    def worker(
        self, doom: Doom | None = None, **more: Any
    ) -> AbstractAsyncContextManager[WorkerProcess]:
        return worker_process(replace(self.setup, doom=doom or Doom(), **more))

    async def start(self, trip: Trip) -> WorkflowHandle[Any, list[str]]:
        return await self.client.start_workflow(
            Courier.run,
            trip,
            id=f"courier-{uuid.uuid4().hex[:8]}",
            task_queue=self.setup.queue,
            task_timeout=timedelta(seconds=2),
        )

    async def stored(self, handle: WorkflowHandle[Any, Any]) -> Stored:
        return await stored_of(self.engine, handle.id)

    async def agreed(self, handle: WorkflowHandle[Any, Any]) -> Stored:
        """Return what is stored, having seen that the history says the same."""
        stored = await self.stored(handle)
        check_agreement(await history_of(self.client, handle.id), stored)
        return stored

    async def undisturbed(self, trip: Trip) -> list[tuple[Any, ...]]:
        """Return what is stored of the same agent, run by a worker that nothing befalls."""
        key = trip.model_dump_json()
        if key not in _UNDISTURBED:
            async with self.worker(processes=trip.how == "process"):
                handle = await self.start(trip)
                await handle.result()
            _UNDISTURBED[key] = (await self.agreed(handle)).story()
        return _UNDISTURBED[key]

    @property
    def sessions(self) -> Sessions:
        return Sessions(self.client, self.engine)


_UNDISTURBED: dict[str, list[tuple[Any, ...]]] = {}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Where the checkpoints are."""
    return f"sqlite:///{tmp_path}/ckpt.db"


@pytest.fixture
async def stage(
    temporal_env: WorkflowEnvironment,
    client: Client,
    task_queue: str,
    tmp_path: Path,
    database_url: str,
) -> AsyncIterator[Stage]:
    address = temporal_env.client.service_client.config.target_host
    path = tmp_path / "ledger"
    async with await create_checkpoint_engine(database_url) as engine:
        setup = Setup(address, task_queue, database_url, str(path))
        yield Stage(client, engine, Ledger(path), setup, tmp_path)
