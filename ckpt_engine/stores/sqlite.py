"""A transaction on SQLite; everything here runs on the thread that owns the connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

from ..errors import CheckpointError, Conflict, Corrupted, StoreBusy, StoreUnavailable
from ..store import (
    TABLES,
    Above,
    CheckpointRow,
    Cond,
    Expect,
    In,
    Meta,
    R,
    Row,
    Span,
    ThreadRow,
    Tx,
    Upto,
    crc_of,
    sealed,
)

__all__ = ["Memory", "SqliteTx", "begin_immediate", "translated"]

_HOT = ("head", "open_tip", "step", "n_cp", "crc")
_CHUNK = 400
_REMEMBERED = 10_000


class Memory:
    """What a writer knows from its last transaction; true until another connection has written."""

    def __init__(self) -> None:
        self.version = -1
        self.threads: dict[str, ThreadRow] = {}
        self.next: dict[type[Any], int] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.version = -1
        self.threads = {}
        self.next = {}

    def check(self, connection: sqlite3.Connection) -> None:
        """Forget everything if another connection has written; call it with the write lock."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self.version or len(self.threads) > _REMEMBERED:
            self.clear()
            self.version = version


class SqliteTx(Tx):
    """Buffers what is inserted, so that a group's rows of a table go out in one executemany."""

    def __init__(self, connection: sqlite3.Connection, memory: Memory | None = None) -> None:
        self._db = connection
        if memory is None:
            memory = Memory()
        else:
            memory.check(connection)
        self._inserts: dict[type[Any], list[Any]] = {}
        self._stored = memory.threads  # as in the database, of those in _threads
        self._threads: dict[str, ThreadRow | None] = {}
        self._ids: dict[bytes, CheckpointRow | None] = {}
        self._next = memory.next
        self.changes = 0

    def prefetch(self, expects: Sequence[Expect | None]) -> None:
        """Load what a group's members will look up."""
        names = {name for e in expects if e for name in e.threads}
        ids = {stored for e in expects if e for stored in e.ids}
        for name in [name for name in names if name in self._stored]:
            self._threads[name] = self._stored[name]
            names.remove(name)
        for name in names:
            self._threads[name] = None
        for row in self._select(ThreadRow, {"name": In(list(names))}) if names else ():
            self._threads[row.name] = self._stored[row.name] = row
        for stored in ids:
            self._ids[stored] = None
        for found in self._select(CheckpointRow, {"id": In(list(ids))}) if ids else ():
            self._ids[found.id] = found

    def thread(self, name: str) -> ThreadRow | None:
        if name not in self._threads and name in self._stored:
            self._threads[name] = self._stored[name]
        elif name not in self._threads:
            self._flush(ThreadRow)
            rows = self._select(ThreadRow, {"name": name})
            self._threads[name] = rows[0] if rows else None
            if rows:
                self._stored[name] = rows[0]
        return self._threads[name]

    def checkpoint(self, stored_id: bytes) -> CheckpointRow | None:
        if stored_id not in self._ids:
            return self.one(CheckpointRow, id=stored_id)
        return self._ids[stored_id]

    def find(
        self, table: type[R], order: str = "", limit: int | None = None, **where: Cond
    ) -> list[R]:
        self._flush(table)
        return self._select(table, where, order, limit)

    def _select(
        self, table: type[R], where: dict[str, Cond], order: str = "", limit: int | None = None
    ) -> list[R]:
        rows: list[R] = []
        for part in _chunks(where):
            sql, values = _where(part)
            text = _select_sql(cast("Any", table), sql, order, limit is not None)
            found = self._db.execute(text, (*values, limit) if limit is not None else values)
            rows += map(cast("Any", table)._make, found.fetchall())
        if len(rows) > 1 and any(isinstance(w, In) for w in where.values()):
            column = table._fields.index(order.lstrip("-") or TABLES[table].key[0])
            rows.sort(key=lambda row: cast("Any", row[column]), reverse=order.startswith("-"))
        return rows if limit is None else rows[:limit]

    def count(self, table: type[R], **where: Cond) -> int:
        self._flush(table)
        total = 0
        for part in _chunks(where):
            sql, values = _where(part)
            text = f'SELECT count(*) FROM "{TABLES[table].name}"{sql}'  # noqa: S608
            total += self._db.execute(text, values).fetchone()[0]
        return total

    def insert(self, *rows: Row) -> None:
        self.changes += 1
        for row in rows:
            self._inserts.setdefault(type(row), []).append(sealed(row))
            if isinstance(row, CheckpointRow):
                self._ids[row.id] = row
            elif isinstance(row, ThreadRow):
                self._threads.pop(row.name, None)
                self._stored.pop(row.name, None)

    def update(self, *rows: Row) -> None:
        self.changes += 1
        for row in rows:
            if isinstance(row, ThreadRow) and self._threads.get(row.name) is not None:
                self._threads[row.name] = row
            else:
                self._flush(type(row))
                self._db.execute(
                    _update_sql(cast("Any", type(row)), ()), _update_values(sealed(row), ())
                )
                self._forget(row)

    def _forget(self, row: Row) -> None:
        if isinstance(row, CheckpointRow):
            self._ids.pop(row.id, None)
        elif isinstance(row, ThreadRow):
            self._threads.pop(row.name, None)
            self._stored.pop(row.name, None)

    def delete(self, table: type[R], **where: Cond) -> int:
        self.changes += 1
        self._flush(table)
        if table is CheckpointRow:
            self._ids.clear()
        elif table is ThreadRow:
            self._threads.clear()
            self._stored.clear()
        top = self._top(table)
        gone = 0
        for part in _chunks(where):
            sql, values = _where(part)
            text = f'DELETE FROM "{TABLES[table].name}"{sql}'  # noqa: S608
            gone += self._db.execute(text, values).rowcount
        if top and self._top(table) < top:
            self._keep_floor(table, top)
        return gone

    def _top(self, table: type[Any]) -> int:
        if len(TABLES[table].key) > 1 or table is Meta:
            return 0
        return int(self._db.execute(_top_sql(cast("Any", table))).fetchone()[0])

    def _keep_floor(self, table: type[Any], top: int) -> None:
        """Remember the highest key that was ever given, since its row is gone."""
        row = sealed(Meta(f"floor:{TABLES[table].name}", str(top)))
        self._db.execute('INSERT OR REPLACE INTO "meta" VALUES (?, ?, ?)', row)

    def next_pk(self, table: type[R]) -> int:
        top = self._next.get(table)
        if top is None:
            floor = self._db.execute(
                'SELECT CAST("value" AS INTEGER) FROM "meta" WHERE "key" = ?',
                (f"floor:{TABLES[table].name}",),
            ).fetchone()
            self._flush(table)
            top = max(self._top(table), floor[0] if floor else 0)
        self._next[table] = top + 1
        return top + 1

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        self._flush(CheckpointRow)
        # the text form begins with what is stored from the seventh byte on
        sql = 'SELECT "id" FROM "checkpoint" WHERE hex(substr("id", 7)) || hex(substr("id", 1, 6))'
        found = self._db.execute(f"{sql} GLOB ? LIMIT ?", (prefix.upper() + "*", limit))
        return [row[0] for row in found.fetchall()]

    def flush(self) -> None:
        """Send everything that is buffered."""
        for table in tuple(self._inserts):
            self._flush(table)
        self._flush(ThreadRow)

    def _flush(self, table: type[Any]) -> None:
        rows = self._inserts.pop(table, None)
        if rows:
            self._db.executemany(_insert_sql(cast("Any", table)), rows)
        if table is ThreadRow:
            self._flush_threads()

    def _flush_threads(self) -> None:
        changed = [
            (row, old)
            for name, row in self._threads.items()
            if row is not None and (old := self._stored.get(name)) is not None and row is not old
        ]
        hot: list[tuple[Any, ...]] = []
        for thread, old in changed:
            row = thread._replace(crc=crc_of(thread))
            self._threads[row.name] = self._stored[row.name] = row
            if row[:5] == old[:5] and row[8:13] == old[8:13] and row[14:17] == old[14:17]:
                hot.append(_update_values(row, _HOT))
            else:
                self._db.execute(_update_sql(ThreadRow, ()), _update_values(row, ()))
        if hot:
            self._db.executemany(_update_sql(ThreadRow, _HOT), hot)


def _chunks(where: dict[str, Cond]) -> Iterator[dict[str, Cond]]:
    for column, wanted in where.items():
        if isinstance(wanted, In) and len(wanted.values) > _CHUNK:
            values = list(dict.fromkeys(wanted.values))
            for start in range(0, len(values), _CHUNK):
                yield from _chunks({**where, column: In(values[start : start + _CHUNK])})
            return
    yield where


def _where(where: dict[str, Cond]) -> tuple[str, tuple[Any, ...]]:
    if not where:
        return "", ()
    parts: list[str] = []
    values: list[Any] = []
    for column, wanted in where.items():
        match wanted:
            case In(many):
                # a power of two of places, so that few different statements are prepared
                some = list(many) or [None]
                places = 1 << (len(some) - 1).bit_length()
                parts.append(f'"{column}" IN ({",".join("?" * places)})')
                values += some + [some[-1]] * (places - len(some))
            case Upto(limit):
                parts.append(f'"{column}" <= ?')
                values.append(limit)
            case Above(limit):
                parts.append(f'"{column}" > ?')
                values.append(limit)
            case Span(above, upto):
                parts.append(f'"{column}" > ? AND "{column}" <= ?')
                values += (above, upto)
            case None:
                parts.append(f'"{column}" IS NULL')
            case _:
                parts.append(f'"{column}" = ?')
                values.append(wanted)
    return " WHERE " + " AND ".join(parts), tuple(values)


@lru_cache(maxsize=512)
def _select_sql(table: type[Any], where: str, order: str, limited: bool) -> str:
    columns = ", ".join(f'"{name}"' for name in table._fields)
    by = f'"{order.lstrip("-")}"' if order else ", ".join(f'"{c}"' for c in TABLES[table].key)
    down = " DESC" if order.startswith("-") else ""
    text = f'SELECT {columns} FROM "{TABLES[table].name}"{where} ORDER BY {by}{down}'  # noqa: S608
    return text + (" LIMIT ?" if limited else "")


@lru_cache
def _top_sql(table: type[Any]) -> str:
    return f'SELECT coalesce(max("{TABLES[table].key[0]}"), 0) FROM "{TABLES[table].name}"'  # noqa: S608


@lru_cache
def _insert_sql(table: type[Any]) -> str:
    places = ", ".join("?" * len(table._fields))
    return f'INSERT INTO "{TABLES[table].name}" VALUES ({places})'  # noqa: S608


@lru_cache
def _update_sql(table: type[Any], columns: tuple[str, ...]) -> str:
    sets = ", ".join(f'"{c}" = ?' for c in columns or table._fields)
    keys = " AND ".join(f'"{c}" = ?' for c in TABLES[table].key)
    return f'UPDATE "{TABLES[table].name}" SET {sets} WHERE {keys}'  # noqa: S608


def _update_values(row: Row, columns: tuple[str, ...]) -> tuple[Any, ...]:
    keys = TABLES[type(row)].key
    return tuple(getattr(row, name) for name in (*(columns or row._fields), *keys))


def begin_immediate(connection: sqlite3.Connection, timeout: float) -> None:
    """Take the write lock, polling: SQLite's own waiting grows to 100 ms steps.

    Raises:
        StoreBusy: Another process held it for longer than ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0002
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as err:
            if not _is_busy(err) or time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.005)


def _is_busy(err: sqlite3.Error) -> bool:
    return (getattr(err, "sqlite_errorcode", 0) & 0xFF) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except CheckpointError:
        raise
    except sqlite3.IntegrityError as err:
        raise Conflict(f"another write was first: {err}") from err
    except sqlite3.Error as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if _is_busy(err):
            raise StoreBusy(f"{where} is locked by another process: {err}") from err
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Corrupted(f"{where} is damaged or not a database: {err}") from err
        raise StoreUnavailable(f"{where} cannot be used: {err}") from err
