"""The store in a SQLite file: SQLAlchemy's async engine holds the connections, two of them.

One is the grouped writer's, the other one reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ..errors import InvalidRequest, StoreBusy, StoreUnavailable
from ..store import Tx
from .grouped import GroupedStore, Write, run_group
from .schema import check_version, first_facts, statements
from .sqlite import Memory, SqliteTx, begin_immediate, translated, when_free

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["SqlStore"]

T = TypeVar("T")


class SqlStore(GroupedStore):
    """Checkpoints in a SQLite file; several processes may use it at once."""

    def __init__(
        self, path: str, *, synchronous: str = "full", busy_timeout: float = 5.0, group: int = 256
    ) -> None:
        super().__init__(group)
        self.url = f"sqlite:///{path}"
        self._path = path
        self._synchronous = synchronous
        self._timeout = busy_timeout
        self._memory = Memory()
        self._engine: AsyncEngine
        self._connections: list[AsyncConnection] = []
        self._writer: Any  # the aiosqlite connections below SQLAlchemy's
        self._reader: Any

    @classmethod
    async def open(cls, path: str, **options: Any) -> SqlStore:
        """Open or create the file.

        Raises:
            StoreUnavailable: It cannot be opened or created.
            SchemaMismatch: Another version of the schema wrote it.
            Corrupted: It is not a SQLite database.
        """
        store = cls(path, **options)
        folder = Path(path).parent
        if not folder.is_dir():
            raise StoreUnavailable(f"{path} cannot be opened: there is no folder {folder}")
        store._engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}",
            poolclass=NullPool,
            connect_args={
                "isolation_level": None,
                "cached_statements": 256,
                "timeout": store._timeout,
            },
        )
        with translated(path):
            try:
                await store._connect()
            except BaseException:
                await store._disconnect()
                raise
        return store

    async def _connect(self) -> None:
        self._writer = await self._open_one()
        await _on_thread(self._writer, self._prepare)
        self._reader = await self._open_one()
        await _on_thread(self._reader, lambda db: db.execute("PRAGMA query_only = ON"))

    async def _open_one(self) -> Any:
        try:
            connection = await self._engine.connect()
            self._connections.append(connection)
            return (await connection.get_raw_connection()).driver_connection
        except DBAPIError as err:
            if isinstance(err.orig, sqlite3.Error):
                raise err.orig from err
            raise StoreUnavailable(f"{self._path} cannot be opened: {err.orig}") from err

    def _prepare(self, db: sqlite3.Connection) -> None:
        # auto_vacuum only takes effect before the first table and before WAL
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        when_free(db, "PRAGMA journal_mode = WAL", self._timeout)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA secure_delete = FAST")
        begin_immediate(db, self._timeout)
        try:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if not tables:
                for statement in statements():
                    db.execute(statement)
                db.executemany('INSERT INTO "meta" VALUES (?, ?, ?)', first_facts())
            found = (
                db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
                if not tables or "meta" in tables
                else None
            )
            check_version(found[0] if found else None, self._path)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        db.execute("PRAGMA busy_timeout = 0")  # begin_immediate waits, and better

    async def read(self, work: Callable[[Tx], T]) -> T:
        self._check_open()

        def run(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(SqliteTx(db))
            finally:
                db.execute("ROLLBACK")

        with translated(self._path):
            return await _on_thread(self._reader, run)

    async def _on_writer(self, run: Callable[[], T]) -> T:
        return await _on_thread(self._writer, lambda _: run())

    def _commit_together(self, group: list[Write], *, alone: bool) -> None:
        db: sqlite3.Connection = self._writer._conn
        with translated(self._path):
            begin_immediate(db, self._timeout)
            try:
                tx = SqliteTx(db, self._memory)
                tx.prefetch([write.expect for write in group])
                run_group(tx, group)
                tx.flush()
                db.execute("COMMIT")
            except BaseException:
                self._memory.clear()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    async def reclaim(self, *, erase: bool = False) -> int:
        before = await self.size()
        with translated(self._path):
            if erase:
                await _on_thread(self._writer, _rewrite_file)
            else:
                # one part at a time, so that writes find their turn in between
                while await _on_thread(self._writer, _free_some):
                    pass
                await _on_thread(self._writer, _empty_log)
        return max(0, before - await self.size())

    async def size(self) -> int:
        files = [Path(self._path), Path(f"{self._path}-wal")]
        return await asyncio.to_thread(
            lambda: sum(file.stat().st_size for file in files if file.exists())
        )

    async def _disconnect(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                await connection.close()
        await self._engine.dispose()


def _free_some(db: sqlite3.Connection) -> bool:
    """Give some free pages back; return whether there may be more."""
    if not db.execute("PRAGMA freelist_count").fetchone()[0]:
        return False
    # executescript steps the statement to its end; execute would free one page
    db.executescript("PRAGMA incremental_vacuum(256)")
    return True


def _empty_log(db: sqlite3.Connection) -> bool:
    """Write the log back and cut it off; return whether no reader stood in the way."""
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _rewrite_file(db: sqlite3.Connection) -> None:
    """Leave no byte that is not of a row.

    Overwriting what is deleted does not suffice: where SQLite has moved rows between pages, copies
    of them stay in the gaps, even with ``secure_delete``.
    """
    if _empty_log(db):
        db.execute("VACUUM")
        if _empty_log(db):
            db.execute("PRAGMA secure_delete = FAST")
            return
    raise StoreBusy("a reader still holds pages from before the erasure; try again")


async def _on_thread(connection: Any, run: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function on the thread that owns the connection, in one hop.

    This is aiosqlite's own way to its thread; its public methods take one statement a hop.
    """
    answer: T = await connection._execute(run, connection._conn)
    return answer


def path_of(url: str) -> str:
    """Return the file that a ``sqlite:///`` URL, or a bare path, names.

    Raises:
        InvalidRequest: It names no file.
    """
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:") else url
    if not path or ":memory:" in path or path.startswith("sqlite:"):
        raise InvalidRequest(f"{url!r} names no file: give sqlite:///path, or memory: for none")
    return str(Path(path).expanduser())
