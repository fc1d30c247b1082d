"""Every backend keeps the store's promises."""

from __future__ import annotations

from pathlib import Path

from ckpt_engine.store import Store
from ckpt_engine.stores.memory import MemoryStore
from ckpt_engine.stores.postgres_store import PostgresStore
from ckpt_engine.stores.sql import SqlStore
from ckpt_engine.testing import StoreContract

from ..postgres import url_in


class TestMemoryStore(StoreContract):
    durable = False

    async def open_store(self, folder: Path) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreContract):
    async def open_store(self, folder: Path) -> Store:
        return await SqlStore.open(str(folder / "store.db"))


class TestPostgresStore(StoreContract):
    async def open_store(self, folder: Path) -> Store:
        return await PostgresStore.open(url_in(folder))
