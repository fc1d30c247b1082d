"""The engine keeps its promises on every backend."""

from __future__ import annotations

from pathlib import Path

from ckpt_engine import CheckpointEngine, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.testing import EngineContract

from ..postgres import url_in


class TestOnMemory(EngineContract):
    durable = False

    async def open_engine(
        self, folder: Path, config: SnapshotConfig | None = None
    ) -> CheckpointEngine:
        return await create_checkpoint_engine("memory:", config)


class TestOnSqlite(EngineContract):
    async def open_engine(
        self, folder: Path, config: SnapshotConfig | None = None
    ) -> CheckpointEngine:
        return await create_checkpoint_engine(f"sqlite:///{folder / 'engine.db'}", config)


class TestOnPostgres(EngineContract):
    shrinks = False

    async def open_engine(
        self, folder: Path, config: SnapshotConfig | None = None
    ) -> CheckpointEngine:
        return await create_checkpoint_engine(url_in(folder), config)
