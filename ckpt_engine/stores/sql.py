"""The store in a SQLite file: SQLAlchemy opens the connections, two of them.

One is the grouped writer's, the other one reads. Each is used on a thread of its own, to which a
whole transaction goes as one function: a statement at a time, each would cost a hop. Only what
:mod:`.in_place` says is committed on the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from ..errors import StoreBusy, StoreUnavailable
from ..store import Tx
from .grouped import GroupedStore, Write, run_group
from .schema import READ_VERSION, check_older, check_version, upgrade
from .sqlite import Memory, SqliteTx, begin_immediate, translated, when_free
from .worker import Worker

if TYPE_CHECKING:
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["SqlStore"]

T = TypeVar("T")

_INCREMENTAL = 2
_LONGEST_LOG = 4_200_000  # bytes of the log that stay for those who write next
_READ_CACHE = 6_000  # kilobytes; once it is full, each page that is read takes three times as long
_PATIENCE = 30.0  # seconds that an upgrade waits for those who write


class SqlStore(GroupedStore):
    """Checkpoints in a SQLite file; several processes may use it at once."""

    def __init__(
        self,
        path: str,
        *,
        synchronous: str = "full",
        busy_timeout: float = 5.0,
        group: int = 256,
        in_place: bool = True,
    ) -> None:
        super().__init__(group, in_place=in_place)
        self.url = f"sqlite:///{path}"
        self._path = path
        self._synchronous = synchronous
        self._timeout = busy_timeout
        self._memory = Memory()
        self._reading = Worker("ckpt-read")
        self._engine = create_engine(
            URL.create("sqlite", database=path),
            poolclass=NullPool,
            connect_args={
                "isolation_level": None,
                "cached_statements": 256,
                "timeout": busy_timeout,
                "check_same_thread": False,  # made and closed on the threads that use them
            },
        )
        self._pooled: list[PoolProxiedConnection] = []
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection

    @classmethod
    async def open(cls, path: str, **options: Any) -> SqlStore:
        """Open or create the file.

        Raises:
            StoreUnavailable: It cannot be opened or created.
            SchemaMismatch: Another version of the schema wrote it.
            Corrupted: It is not a SQLite database.
        """
        store = cls(path, **options)
        _check_place(Path(path))
        with translated(path):
            try:
                await store._writing.run(store._open_writer)
                await store._reading.run(store._open_reader)
            except BaseException:
                await store._disconnect()
                store._writing.stop()
                raise
        return store

    @classmethod
    async def version(cls, path: str, *, upgrade: bool = False) -> str | None:
        """Return the version of a file's schema, brought to the newest before if that is wanted.

        Raises:
            StoreUnavailable: There is no such file, or it cannot be used.
            SchemaMismatch: To be upgraded, but of a newer release, or not ours at all.
        """
        return await asyncio.to_thread(_version_of_file, path, upgrade)

    def _open_writer(self) -> None:
        self._writer = self._open_one()
        self._prepare(self._writer)

    def _open_reader(self) -> None:
        self._reader = self._open_one()
        self._reader.execute("PRAGMA query_only = ON")
        self._reader.execute(f"PRAGMA cache_size = -{_READ_CACHE}")
        # now rather than with the first read: the tables are looked up
        self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def _open_one(self) -> sqlite3.Connection:
        try:
            pooled = self._engine.raw_connection()
        except DBAPIError as err:
            if isinstance(err.orig, sqlite3.Error):
                raise err.orig from err
            raise StoreUnavailable(f"{self._path} cannot be opened: {err.orig}") from err
        self._pooled.append(pooled)
        connection: Any = pooled.driver_connection
        return cast("sqlite3.Connection", connection)

    def _prepare(self, db: sqlite3.Connection) -> None:
        # auto_vacuum only takes effect before the first table and before WAL
        if (
            db.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL
        ):  # setting it takes a lock
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        when_free(db, "PRAGMA journal_mode = WAL", self._timeout)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA secure_delete = FAST")
        db.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}").fetchone()
        if version_of(db) is None and not _tables(db):
            upgrade_file(db, self._timeout)
        check_version(version_of(db), self._path)
        db.execute("PRAGMA busy_timeout = 0")  # begin_immediate waits, and better

    async def read(self, work: Callable[[Tx], T]) -> T:
        self._check_open()

        with translated(self._path):
            return await self._reading.run(lambda: self._read(work))

    def _read(self, work: Callable[[Tx], T]) -> T:
        self._reader.execute("BEGIN")
        try:
            return work(SqliteTx(self._reader))
        finally:
            self._reader.text_factory = str  # a check may have been more forgiving
            self._reader.execute("ROLLBACK")

    def _commit_together(self, group: list[Write], *, alone: bool) -> None:
        self._commit(group, self._timeout)

    def _commit_at_once(self, write: Write) -> None:
        self._commit([write], 0.0)

    def _commit(self, group: list[Write], timeout: float) -> None:
        db = self._writer
        with translated(self._path):
            if db.in_transaction:  # a signal's handler raised in the midst of a commit in place
                self._memory.clear()
                db.execute("ROLLBACK")
            try:
                begin_immediate(db, timeout)
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

    async def reclaim(self, *, erase: bool = False, thorough: bool = False) -> None:
        self._check_open()
        with translated(self._path):
            if erase:
                await self._writing.run(partial(_rewrite_file, self._writer))
            else:
                # one part at a time, so that writes find their turn in between
                patience = self._timeout if thorough else 0
                while await self._writing.run(partial(_free_some, self._writer, patience)):
                    pass

    def _write_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            _write_back(self._writer)

    async def write_back(self) -> None:
        self._check_open()
        with translated(self._path):
            # its file stays: a log that must grow again makes each commit wait for the file system
            await self._writing.run(partial(_write_back, self._writer))

    async def size(self) -> int:
        self._check_open()
        with translated(self._path):
            return await self._reading.run(partial(_size, self._reader))

    async def _disconnect(self) -> None:
        def close() -> None:
            for pooled in self._pooled:
                with contextlib.suppress(sqlite3.Error):
                    pooled.close()
            self._engine.dispose()

        await asyncio.to_thread(self._reading.stop)
        await self._writing.run(close)


def _size(db: sqlite3.Connection) -> int:
    pages, page = (db.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size"))
    return int(pages * page)


def _free_some(db: sqlite3.Connection, patience: float) -> bool:
    """Give some free pages back, waiting so many seconds; return whether there may be more."""
    before = _free_pages(db)
    if not before:
        return False
    # executescript steps the statement to its end; execute would free one page
    db.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
    try:
        db.executescript("PRAGMA incremental_vacuum(256)")
    finally:
        db.execute("PRAGMA busy_timeout = 0")
    # none goes where the file was made without auto_vacuum, as by restoring a dump
    return 0 < _free_pages(db) < before


def _free_pages(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def _write_back(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


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


def _check_place(path: Path) -> None:
    """Say in advance, and plainly, what SQLite only says is unable to open."""
    if not path.parent.is_dir():
        raise StoreUnavailable(f"{path} cannot be opened: there is no folder {path.parent}")
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a folder: name a file in it, such as {path}/ckpt.db")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreUnavailable(f"{path} cannot be opened: it is read-only here")


def _version_of_file(path: str, wanted: bool) -> str | None:
    if not Path(path).is_file():
        raise StoreUnavailable(f"there is no checkpoint database {path}")
    with translated(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        found = version_of(db)
        if wanted:
            check_older(found, path)
            upgrade_file(db, _PATIENCE)
            found = version_of(db)
        return found


def _tables(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def version_of(db: sqlite3.Connection) -> str | None:
    """Return the version of the schema; ``None`` where there are no tables, or none of ours."""
    tables = _tables(db)
    if "alembic_version" in tables:
        found = db.execute(READ_VERSION).fetchone()
        return str(found[0]) if found else None
    if tables and not {"meta", "checkpoint"} <= tables:
        return "(another application's)"
    return None


def upgrade_file(db: sqlite3.Connection, timeout: float) -> None:
    """Bring a file to the newest version, or make its tables; nothing if that has been done."""
    engine = create_engine("sqlite://", creator=lambda: db, poolclass=StaticPool)
    with engine.connect() as connection, connection.begin():
        begin_immediate(db, timeout)
        if _tables(db) and version_of(db) is None:
            upgrade(connection, stamp="0001")  # from before the versions were kept
        upgrade(connection)
