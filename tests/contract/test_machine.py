"""Every verb together, against a plain-dict model, on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ckpt_engine import CheckpointEngine, create_checkpoint_engine
from ckpt_engine.testing import CollectingMachine

from ..postgres import url_in


class OnMemory(CollectingMachine):
    durable = False

    async def open_engine(self, folder: Path) -> CheckpointEngine:
        return await create_checkpoint_engine("memory:", self.config)


class OnSqlite(CollectingMachine):
    async def open_engine(self, folder: Path) -> CheckpointEngine:
        return await create_checkpoint_engine(f"sqlite:///{folder / 'engine.db'}", self.config)


class OnPostgres(CollectingMachine):
    async def open_engine(self, folder: Path) -> CheckpointEngine:
        return await create_checkpoint_engine(url_in(folder), self.config)


plan = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestOnMemory = pytest.mark.timeout(300)(OnMemory.TestCase)
TestOnSqlite = pytest.mark.timeout(300)(OnSqlite.TestCase)
TestOnPostgres = pytest.mark.timeout(300)(OnPostgres.TestCase)
TestOnMemory.settings = TestOnSqlite.settings = plan
TestOnPostgres.settings = settings(plan, max_examples=8)
