"""A stage: a server, a store and a ledger, on which agents run with workers to be killed."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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


@asynccontextmanager
async def locked(url: str, *, seconds: float = 0) -> AsyncIterator[None]:
    """Hold the database's write lock, as a frozen process would: nobody can commit."""
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        await asyncio.sleep(seconds)
    finally:
        database.close()


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

    async def stored(self, handle: WorkflowHandle[Any, Any], *, verify: bool = True) -> Stored:
        return await stored_of(self.engine, handle.id, verify=verify)

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
    def url(self) -> str:
        return self.setup.url

    @property
    def sessions(self) -> Sessions:
        return Sessions(self.client, self.engine)


_UNDISTURBED: dict[str, list[tuple[Any, ...]]] = {}


StageMaker = Callable[[str], AbstractAsyncContextManager[Stage]]


@pytest.fixture
def url_in() -> Callable[[Path], str]:
    """Where the checkpoints are, by the folder of a stage."""
    return lambda folder: f"sqlite:///{folder}/ckpt.db"


@pytest.fixture
def make_stage(
    temporal_env: WorkflowEnvironment,
    client: Client,
    task_queue: str,
    tmp_path: Path,
    url_in: Callable[[Path], str],
) -> StageMaker:
    """Stages by name, for scenes that are played side by side: most of their time is waiting."""
    address = temporal_env.client.service_client.config.target_host

    @asynccontextmanager
    async def make(name: str) -> AsyncIterator[Stage]:
        folder = tmp_path / name
        folder.mkdir()
        url, path = url_in(folder), folder / "ledger"
        async with await create_checkpoint_engine(url) as engine:
            setup = Setup(address, f"{task_queue}-{name}", url, str(path))
            yield Stage(client, engine, Ledger(path), setup, folder)

    return make


@pytest.fixture
async def stage(make_stage: StageMaker) -> AsyncIterator[Stage]:
    async with make_stage("stage") as made:
        yield made
