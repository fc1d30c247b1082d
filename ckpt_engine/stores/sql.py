"""The SQL store: SQLAlchemy's async engine holds the connections, one grouped writer uses them.

Writes of all tasks go through one queue. Whoever is in it when the connection becomes free shares
one ``BEGIN IMMEDIATE ... COMMIT``, run as one function on the connection's own thread: a statement
at a time, each would cost a hop between threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ..errors import (
    CheckpointError,
    EngineClosed,
    InvalidRequest,
    StoreBusy,
    StoreUnavailable,
)
from ..store import Expect, Meta, Store, Tx, sealed
from .schema import SCHEMA_VERSION, check_version, statements
from .sqlite import Memory, SqliteTx, begin_immediate, translated

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["SqlStore"]

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Write:
    work: Callable[[Tx], Any]
    expect: Expect | None
    done: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = field(default=None)


class SqlStore(Store):
    """Checkpoints in a SQLite file; several processes may use it at once."""

    def __init__(
        self, path: str, *, synchronous: str = "full", busy_timeout: float = 5.0, group: int = 256
    ) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        self._synchronous = synchronous
        self._timeout = busy_timeout
        self._group = group
        self._queue: deque[_Write] = deque()
        self._running: asyncio.Task[None] | None = None
        self._memory = Memory()
        self._closed = False
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
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA secure_delete = FAST")
        begin_immediate(db, self._timeout)
        try:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if not tables:
                for statement in statements():
                    db.execute(statement)
                db.execute(
                    'INSERT INTO "meta" VALUES (?, ?, ?)',
                    sealed(Meta("schema_version", str(SCHEMA_VERSION))),
                )
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
        if self._closed:
            raise EngineClosed("the engine was closed")

        def run(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(SqliteTx(db))
            finally:
                db.execute("ROLLBACK")

        with translated(self._path):
            return await _on_thread(self._reader, run)

    async def write(self, work: Callable[[Tx], T], expect: Expect | None = None) -> T:
        if self._closed:
            raise EngineClosed("the engine was closed")
        loop = asyncio.get_running_loop()
        write = _Write(work, expect, loop.create_future())
        self._queue.append(write)
        if self._running is None and len(self._queue) == 1:
            loop.call_soon(self._begin)  # after those who are ready to write as well
        answer: T = await write.done
        return answer

    def _begin(self) -> None:
        """Start to commit what is queued; the next group begins when this one has ended."""
        if self._running is None and self._queue:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), self._group))]
            # without those whose callers were cancelled before it began
            group = [write for write in group if not write.done.done()]
            self._running = asyncio.get_running_loop().create_task(self._commit(group))

    async def _commit(self, group: list[_Write]) -> None:
        try:
            if group:
                await _on_thread(self._writer, lambda db: self._commit_group(db, group))
        except Exception as err:  # noqa: BLE001  (whatever it is, it goes to the callers)
            for write in group:
                write.error = write.error or err
        finally:
            self._running = None
        for write in group:
            if write.done.done():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.answer)
        self._begin()

    def _commit_group(self, db: sqlite3.Connection, group: list[_Write]) -> None:
        """Commit the group in one transaction; each by itself where that fails because of one."""
        try:
            with translated(self._path):
                self._commit_together(db, group)
        except (StoreBusy, StoreUnavailable) as err:
            for write in group:
                write.error = err
        except Exception as err:  # noqa: BLE001
            if len(group) == 1:
                group[0].error = err.error if isinstance(err, _SpoiltError) else err
                return
            for write in group:
                self._commit_group(db, [write])

    def _commit_together(self, db: sqlite3.Connection, group: list[_Write]) -> None:
        begin_immediate(db, self._timeout)
        try:
            tx = SqliteTx(db, self._memory)
            tx.prefetch([write.expect for write in group])
            for write in group:
                write.error = None
                before = tx.changes
                try:
                    write.answer = write.work(tx)
                except CheckpointError as err:
                    if tx.changes != before:
                        raise _SpoiltError(err) from err
                    write.error = err  # it changed nothing: drop it, the others go on
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
            await _on_thread(self._writer, lambda db: self._reclaim(db, erase=erase))
        return max(0, before - await self.size())

    def _reclaim(self, db: sqlite3.Connection, *, erase: bool) -> None:
        while db.execute("PRAGMA freelist_count").fetchone()[0]:
            # executescript steps the statement to its end; execute would free one page
            db.executescript("PRAGMA incremental_vacuum(256)")
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy and erase:
            raise StoreBusy("a reader still holds pages from before the erasure; try again")

    async def size(self) -> int:
        files = [Path(self._path), Path(f"{self._path}-wal")]
        return await asyncio.to_thread(
            lambda: sum(file.stat().st_size for file in files if file.exists())
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._running is not None or self._queue:
            self._begin()
            if self._running is not None:
                await asyncio.wait([self._running])
        await self._disconnect()

    async def _disconnect(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                await connection.close()
        await self._engine.dispose()


class _SpoiltError(Exception):
    """A write failed after it had changed something: the transaction must be begun anew."""

    def __init__(self, error: CheckpointError) -> None:
        super().__init__(error)
        self.error = error


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
