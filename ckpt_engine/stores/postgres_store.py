"""The store in a PostgreSQL database: one connection writes, a few read; SQLAlchemy pools them.

What cannot have been committed when a connection is lost is tried again; where the connection was
lost during the commit itself, PostgreSQL is asked what became of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import create_engine, event, exc
from sqlalchemy.pool import QueuePool

from ..errors import StoreUnavailable
from ..store import TABLES, Tx
from .grouped import GroupedStore, Write, run_group
from .postgres import PostgresTx, adapt, translated
from .postgres_url import parse_url, shown
from .schema import READ_VERSION, check_older, check_version, upgrade

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine, PoolProxiedConnection

__all__ = ["PostgresStore"]

T = TypeVar("T")
_OLDEST = 13_00_00  # the first that tells what became of a transaction
_PAUSE = 0.1  # seconds between two attempts to connect again


class PostgresStore(GroupedStore):
    """Checkpoints in a schema of a PostgreSQL database; many processes may use it at once."""

    reclaim_after = 256

    def __init__(
        self,
        url: str,
        *,
        synchronous: str = "full",
        busy_timeout: float = 5.0,
        group: int = 256,
        readers: int = 4,
    ) -> None:
        super().__init__(group)
        self._timeout = busy_timeout
        self._target, self._schema = parse_url(url)
        self.url = self._where = shown(self._target, self._schema)
        self._lock = _lock_number(self._schema)
        self._pool = _pool(self._target, self._schema, synchronous, busy_timeout, readers + 1)
        self._reading = ThreadPoolExecutor(readers, "ckpt-read")
        self._writer: PoolProxiedConnection | None = None

    @classmethod
    async def open(cls, url: str, **options: Any) -> PostgresStore:
        """Connect; make the tables where there are none.

        Raises:
            InvalidRequest: This is no such URL.
            StoreUnavailable: The server cannot be reached, or refuses.
            SchemaMismatch: Another version of the schema is there.
        """
        store = cls(url, **options)
        try:
            await store._writing.run(store._prepare)
        except BaseException:
            await store._disconnect()
            store._writing.stop()
            raise
        return store

    @classmethod
    async def version(cls, url: str, *, upgrade: bool = False) -> str | None:
        """Return the version of a schema, brought to the newest before if that is wanted.

        Raises:
            StoreUnavailable: The server cannot be reached, or refuses.
            SchemaMismatch: To be upgraded, but of a newer release.
        """
        store = cls(url)
        try:
            return await store._writing.run(lambda: store._found_version(upgrade))
        finally:
            await store._disconnect()
            store._writing.stop()

    def _found_version(self, wanted: bool) -> str | None:
        with self._translated():
            found = self._version(self._connection())
            if wanted:
                check_older(found, self._where)
                self._upgrade()
                found = self._version(self._connection())
            return found

    def _prepare(self) -> None:
        with self._translated():
            db = self._connection()
            if db.info.server_version < _OLDEST:
                raise StoreUnavailable(
                    f"{self._where} is PostgreSQL {db.info.server_version // 10_000}: "
                    "13 or newer is needed"
                )
            if self._version(db) is None:
                self._upgrade()
            check_version(self._version(db), self._where)

    def _version(self, db: psycopg.Connection[Any]) -> str | None:
        """Return the version of the schema; ``None`` where there are no tables."""
        name = f"{self._schema}.alembic_version"
        if db.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
            return None
        found = db.execute(READ_VERSION).fetchone()
        return str(found[0]) if found else None

    def _upgrade(self) -> None:
        """Bring the schema to the newest version, or make it; nothing if that has been done."""
        import_module("alembic.command")  # takes a while: not with the transaction begun
        with self._pool.connect() as connection:
            db: Any = connection.connection.driver_connection
            with connection.begin():
                db.execute("BEGIN")
                # what a migration computes between its statements may take long on a busy machine
                db.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")
                db.execute("SELECT pg_advisory_xact_lock(%s)", (self._lock,))
                if db.execute("SELECT to_regnamespace(%s)", (self._schema,)).fetchone() == (None,):
                    db.execute(f'CREATE SCHEMA "{self._schema}"')
                upgrade(connection)

    # --- connections ---

    def _translated(self) -> Any:
        return translated(self._where)

    def _checkout(self) -> tuple[PoolProxiedConnection, psycopg.Connection[Any]]:
        try:
            pooled = self._pool.raw_connection()
        except exc.DBAPIError as err:
            raise err.orig or err from None
        except exc.TimeoutError as err:
            raise StoreUnavailable(f"{self._where}: {err}") from err
        db: Any = pooled.driver_connection
        return pooled, db

    def _connection(self) -> psycopg.Connection[Any]:
        """Return the connection that writes."""
        if self._writer is None:
            self._writer, _ = self._checkout()
        held: psycopg.Connection[Any] = cast("Any", self._writer.driver_connection)
        return held

    def _lost(self) -> bool:
        """Let go of the connection that writes if it is of no use any more."""
        if self._writer is not None:
            held: Any = self._writer.driver_connection
            if not held.closed:
                return False
            self._writer.invalidate()
            self._writer = None
        return True

    async def _disconnect(self) -> None:
        def close() -> None:
            if self._writer is not None:
                self._writer.close()
            self._pool.dispose()

        await asyncio.to_thread(self._reading.shutdown)
        await self._writing.run(close)

    # --- reading ---

    async def read(self, work: Callable[[Tx], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._read, work)

    def _read(self, work: Callable[[Tx], T]) -> T:
        deadline = time.monotonic() + self._timeout
        while True:
            with self._translated():
                pooled = None
                try:
                    pooled, db = self._checkout()
                    tx = PostgresTx(db)
                    try:
                        return work(tx)
                    finally:
                        tx.end()
                except psycopg.OperationalError:
                    if (pooled and not db.closed) or time.monotonic() > deadline:
                        raise
                    if pooled is None:
                        time.sleep(_PAUSE)
                finally:
                    if pooled is not None:
                        pooled.invalidate() if db.closed else pooled.close()

    # --- writing ---

    def _commit_together(self, group: list[Write], *, alone: bool) -> None:
        deadline = time.monotonic() + self._timeout
        alone = alone or not all(write.expect and write.expect.threads for write in group)
        while not self._committed(group, deadline, alone=alone):
            pass

    def _committed(self, group: list[Write], deadline: float, *, alone: bool) -> bool:
        """Commit, or return that the connection was lost before that.

        Raises:
            CheckpointError: It cannot be done, or not in time.
        """
        tx, committing = None, False
        with self._translated():
            try:
                tx = PostgresTx(self._connection())
                tx.begin(self._lock, [write.expect for write in group], alone=alone)
                run_group(tx, group)
                committing = True
                tx.commit()
            except psycopg.OperationalError:
                if not self._lost():
                    if tx is not None:
                        tx.end()
                    raise
                if committing and tx is not None:
                    return self._became_of(tx.number, deadline)
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
                return False
            except BaseException:
                if tx is not None and not self._lost():
                    tx.end()
                raise
        return True

    def _became_of(self, number: str, deadline: float) -> bool:
        """Return whether a transaction was committed whose connection was lost meanwhile.

        Raises:
            StoreUnavailable: That cannot be found out in time.
        """
        while time.monotonic() < deadline:
            try:
                db = self._connection()
                (state,) = db.execute("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone() or (
                    None,
                )
            except psycopg.OperationalError:
                self._lost()
                time.sleep(_PAUSE)
                continue
            if state in ("committed", "aborted"):
                return bool(state == "committed")
            time.sleep(_PAUSE)
        raise StoreUnavailable(
            f"the connection to {self._where} was lost while checkpoints were committed, and "
            "whether they were is not known; a step that is committed again finds out"
        )

    # --- space ---

    async def reclaim(self, *, erase: bool = False, thorough: bool = False) -> None:
        self._check_open()
        how = "FULL" if erase or thorough else "SKIP_LOCKED"
        tables = ", ".join(f'"{table.name}"' for table in TABLES.values())
        await self._on_reader(f"VACUUM ({how}) {tables}")

    async def size(self) -> int:
        rows = await self._on_reader(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = current_schema() AND c.relkind = 'r'"
        )
        return int(rows[0][0])

    async def _on_reader(self, sql: str) -> list[Any]:
        """Run one statement outside of any transaction."""

        def run() -> list[Any]:
            with self._translated():
                pooled, db = self._checkout()
                try:
                    cursor = db.execute(sql)
                    return cursor.fetchall() if cursor.description else []
                finally:
                    pooled.close()

        return await asyncio.get_running_loop().run_in_executor(self._reading, run)


def _pool(target: URL, schema: str, synchronous: str, timeout: float, size: int) -> Engine:
    millis = int(timeout * 1000)
    settings = {
        "search_path": schema,
        "lock_timeout": millis,
        # a frozen process loses its transaction before those who wait for it give up
        "idle_in_transaction_session_timeout": millis // 2,
    }
    if synchronous == "normal":
        settings["synchronous_commit"] = "off"
    given = target.query.get("options", "")
    options = " ".join([*(f"-c {k}={v}" for k, v in settings.items()), str(given)]).strip()
    engine = create_engine(
        target.difference_update_query(["options"]),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
        use_native_hstore=False,
        connect_args={
            "autocommit": True,
            "options": options,
            "application_name": "ckpt-engine",
            "connect_timeout": max(2, int(timeout)),
            "keepalives_idle": 10,
            "tcp_user_timeout": max(1000, millis * 2),
            **{k: v for k, v in target.query.items() if k != "options"},
        },
    )
    event.listen(engine, "connect", lambda db, _: adapt(db))
    return engine


def _lock_number(schema: str) -> int:
    """Return the number of the advisory lock that writes take."""
    digest = hashlib.blake2b(f"ckpt-engine {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
