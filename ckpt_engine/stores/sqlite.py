"""A transaction on SQLite; everything here runs on the thread that owns the connection."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, cast

import msgspec

from ..errors import CheckpointError, Conflict, Corrupted, StoreBusy, StoreUnavailable
from ..store import TABLES, CheckpointRow, Cond, Meta, R, ThreadRow, sealed
from .schema import FLOORS, floor_key
from .transaction import (
    HOT,
    SqlTx,
    columns_of,
    hot_values,
    insert_sql,
    kinds_of,
    table_name,
    update_sql,
)

__all__ = ["Memory", "SqliteTx", "begin_immediate", "translated", "when_free"]

_REMEMBERED = 10_000
_OFTEN, _SELDOM = (0.0002, 0.0008), (0.002, 0.006)  # pauses in seconds between two attempts
_SOON = 0.5  # seconds in which a lock is free at times, if its holder is not frozen
_PLACES = 400  # in a condition
# what SQLite is bound or asked for whole it copies on the way, some of it twice
_LARGE = 1_000_000  # bytes of a body that are read and written in place
_IN_PLACE = -1  # stands for such a body in what a query finds
_BODIES = {
    table: columns_of(table).replace(
        '"body"', f'CASE WHEN length("body") > {_LARGE} THEN {_IN_PLACE} ELSE "body" END'
    )
    for table in TABLES
    if table._fields[-1] == "body"
}
_INSERT = {table: insert_sql(table, "?") for table in TABLES}
_INSERT_ZEROS = {table: _INSERT[table][: -len("?)")] + "zeroblob(?))" for table in _BODIES}


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


class SqliteTx(SqlTx):
    """A transaction on SQLite."""

    meta_keys = tuple(map(floor_key, FLOORS))
    columns_sql = _BODIES

    def __init__(self, connection: sqlite3.Connection, memory: Memory | None = None) -> None:
        self._db = connection
        if memory is None:
            memory = Memory()
        else:
            memory.check(connection)
        super().__init__(memory.threads)
        self._next = memory.next

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as err:
            if _is_damage(err):  # now rather than at the end: who checks goes on with other rows
                raise Corrupted(f"the database is damaged: {err}") from err
            raise

    def _execute(self, sql: str, values: Sequence[Any]) -> int:
        return self._db.execute(sql, values).rowcount

    def _made(self, table: type[R], found: list[Any]) -> Iterable[R]:
        if table in _BODIES:
            found = [
                (*row[:-1], self._body(table, row[0]))
                if type(row[-1]) is int and row[-1] == _IN_PLACE
                else row
                for row in found
            ]
        return super()._made(table, found)

    def _body(self, table: type[Any], pk: int) -> bytes:
        try:
            with self._db.blobopen(TABLES[table].name, "body", pk, readonly=True) as blob:
                return blob.read()
        except sqlite3.DatabaseError as err:
            if _is_damage(err):
                raise Corrupted(f"the database is damaged: {err}") from err
            raise

    def _insert_many(self, table: type[Any], rows: list[Any]) -> None:
        if table in _BODIES:
            for row in rows:
                if len(row[-1]) > _LARGE:
                    self._insert_large(table, [row for row in rows if len(row[-1]) > _LARGE])
                    rows = [row for row in rows if len(row[-1]) <= _LARGE]
                    break
        self._db.executemany(_INSERT[table], rows)

    def _insert_large(self, table: type[Any], rows: list[Any]) -> None:
        """Add rows with large bodies: bound like others, SQLite would copy them twice."""
        for row in rows:
            self._db.execute(_INSERT_ZEROS[table], (*row[:-1], len(row[-1])))
            with self._db.blobopen(TABLES[table].name, "body", row[0]) as blob:
                blob.write(row[-1])

    def _update_hot(self, rows: list[ThreadRow]) -> None:
        self._db.executemany(_UPDATE_HOT, map(hot_values, rows))

    def _most(self, values: Sequence[Any]) -> int:
        return 10_000 if values and isinstance(values[0], int) else _PLACES

    def _among(self, column: str, values: list[Any]) -> tuple[str, list[Any]]:
        if len(values) > _PLACES:
            listed = msgspec.json.encode(values).decode()
            return f'"{column}" IN (SELECT "value" FROM json_each(?))', [listed]  # noqa: S608
        # a power of two of places, so that few different statements are prepared
        some = values or [None]
        places = 1 << (len(some) - 1).bit_length()
        condition = f'"{column}" IN ({",".join("?" * places)})'
        return condition, some + [some[-1]] * (places - len(some))

    def columns(self, table: type[R], *names: str, **where: Cond) -> list[list[Any]]:
        self._flush(table)
        lists, decoders = _lists_sql(cast("Any", table), names)
        found: list[list[Any]] = [[] for _ in names]
        rows = 0
        for part in self._chunks(where):
            sql, values = self._where(part)
            text = f"SELECT count(*), {lists} FROM {table_name(table)}{sql}"  # noqa: S608
            ((count, *packed),) = self._fetch(text, values)
            rows += count
            try:
                for column, decoder, some in zip(found, decoders, packed, strict=True):
                    column += [None] * count if some is None else decoder(some)
                    if len(column) != rows:
                        raise ValueError("its length")
            except (msgspec.MsgspecError, ValueError) as err:
                name = table_name(cast("Any", table))
                raise Corrupted(f"a row of {name} has a value of another type: {err}") from err
        return found

    def delete(self, table: type[R], **where: Cond) -> int:
        self._flush(table)
        top = self._top(table)
        gone = super().delete(table, **where)
        if top and self._top(table) < top:
            self._keep_floor(table, top)
        return gone

    def _top(self, table: type[Any]) -> int:
        if table not in FLOORS:
            return 0
        return int(self._db.execute(_top_sql(cast("Any", table))).fetchone()[0])

    def _keep_floor(self, table: type[Any], top: int) -> None:
        """Remember the highest key that was ever given, since its row is gone."""
        row = sealed(Meta(floor_key(table), str(max(top, self._floor(table)))))
        self._db.execute('INSERT OR REPLACE INTO "meta" VALUES (?, ?, ?)', row)

    def _floor(self, table: type[Any]) -> int:
        sql = 'SELECT CAST("value" AS INTEGER) FROM "meta" WHERE "key" = ?'
        found = self._db.execute(sql, (floor_key(table),)).fetchone()
        return int(found[0]) if found else 0

    def next_pk(self, table: type[R]) -> int:
        top = self._next.get(table)
        if top is None:
            self._flush(table)
            top = max(self._top(table), self._floor(table))
        self._next[table] = top + 1
        return top + 1

    def damage(self) -> list[str]:
        # the quick check would not compare the indexes with the tables
        lines = [line for (line,) in self._fetch("PRAGMA integrity_check", ())]
        return [] if lines == ["ok"] else lines

    def forgive(self) -> None:
        self._db.text_factory = _any_text

    def erase(self) -> None:
        # until the store has reclaimed the space: what is freed by then is overwritten too
        self._db.execute("PRAGMA secure_delete = ON")

    def keep_above(self, table: type[R], top: int) -> None:
        highest = max(top, self.next_pk(table) - 1)
        self._keep_floor(table, highest)
        self._next[table] = highest

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        self._flush(CheckpointRow)
        # the text form begins with what is stored from the seventh byte on
        sql = 'SELECT "id" FROM "checkpoint" WHERE hex(substr("id", 7)) || hex(substr("id", 1, 6))'
        found = self._db.execute(f"{sql} GLOB ? LIMIT ?", (prefix.upper() + "*", limit))
        return [row[0] for row in found.fetchall()]


@lru_cache(maxsize=64)
def _lists_sql(
    table: type[Any], names: tuple[str, ...]
) -> tuple[str, list[Callable[[Any], list[Any]]]]:
    """Return the columns of a query that packs each into one text, and how each is unpacked.

    A row at a time would make a tuple of each: twice as slow, and work for the garbage collector.
    """
    kinds = kinds_of(cast("Any", table))
    packed = [
        _PACKED_IDS if (table, name) == _IDS and _keeps_bytes() else _PACKED[kinds[name]]
        for name in names
    ]
    lists = (sql.format(name=name) for (sql, _), name in zip(packed, names, strict=True))
    return ", ".join(lists), [unpack for _, unpack in packed]


@lru_cache
def _keeps_bytes() -> bool:
    """Return whether this SQLite joins bytes as they are; older ones end at the first zero."""
    some = bytes([0xFF, 0, 0xC3, 0xED, 0])
    sql = "SELECT CAST(group_concat(x, '') AS BLOB) FROM (SELECT ? AS x UNION ALL SELECT ?)"
    with closing(sqlite3.connect(":memory:")) as db:
        return bool(db.execute(sql, (some, some)).fetchone()[0] == some + some)


def _unhexed(packed: str) -> list[bytes | None]:
    return [None if v is None else bytes.fromhex(v) for v in _TEXTS.decode(packed)]


def _cut(packed: bytes) -> list[bytes]:
    if len(packed) % _ID:
        raise ValueError("its length")
    return [packed[n : n + _ID] for n in range(0, len(packed), _ID)]


_TEXTS = msgspec.json.Decoder(list[str | None])
_PACKED: dict[type, tuple[str, Callable[[Any], list[Any]]]] = {
    int: ('json_group_array("{name}")', msgspec.json.Decoder(list[int | None]).decode),
    str: ('json_group_array("{name}")', _TEXTS.decode),
    bytes: (
        'CASE WHEN count("{name}") THEN json_group_array('
        'CASE WHEN "{name}" NOTNULL THEN hex("{name}") END) END',
        _unhexed,
    ),
}
_IDS, _ID = (CheckpointRow, "id"), 16
# bytes as they are, whatever they would be as text: a third of the time that hexadecimals take
_PACKED_IDS = ("CAST(group_concat(\"{name}\", '') AS BLOB)", _cut)


@lru_cache
def _top_sql(table: type[Any]) -> str:
    return f'SELECT coalesce(max("{TABLES[table].key[0]}"), 0) FROM {table_name(table)}'  # noqa: S608


_UPDATE_HOT = update_sql(ThreadRow, HOT, "?")


def begin_immediate(connection: sqlite3.Connection, timeout: float) -> None:
    """Take the write lock, polling: SQLite's own waiting grows to 100 ms steps.

    Raises:
        sqlite3.OperationalError: Another process held it for longer than ``timeout`` seconds.
    """
    when_free(connection, "BEGIN IMMEDIATE", timeout)


def when_free(connection: sqlite3.Connection, statement: str, timeout: float) -> None:
    """Run a statement once the lock that it needs is free; SQLite waits for some of them only.

    Raises:
        sqlite3.OperationalError: Another process held it for longer than ``timeout`` seconds.
    """
    begun = 0.0
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as err:
            now = time.monotonic()
            begun = begun or now
            if not _is_busy(err) or now >= begun + timeout:
                raise
        else:
            return
        # who has waited longer must not ask less often than who has just come
        time.sleep(random.uniform(*(_OFTEN if now < begun + _SOON else _SELDOM)))  # noqa: S311


def _any_text(stored: bytes) -> str:
    return stored.decode("utf-8", "backslashreplace")


def _is_damage(err: sqlite3.Error) -> bool:
    code = getattr(err, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return str(err).startswith("Could not decode to UTF-8")  # the driver's own: it has no code


def _is_busy(err: sqlite3.Error) -> bool:
    return (getattr(err, "sqlite_errorcode", 0) & 0xFF) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


class translated:  # noqa: N801  (used as a function; a generator takes three times as long)
    """Turn the driver's errors into ours, within a ``with``."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, err: BaseException | None, trace: object) -> None:
        if isinstance(err, sqlite3.Error):
            raise _ours(err, self._where) from err
        if isinstance(err, UnicodeDecodeError):  # in what SQLite says, or in a row
            raise Corrupted(f"{self._where} is damaged or not a database: {err}") from err


def _ours(err: sqlite3.Error, where: str) -> CheckpointError:
    if isinstance(err, sqlite3.IntegrityError):
        return Conflict(f"another write was first: {err}")
    if _is_busy(err):
        return StoreBusy(
            f"{where} is locked by another process, try again or set a longer busy_timeout: {err}"
        )
    if _is_damage(err):
        return Corrupted(f"{where} is damaged or not a database: {err}")
    return StoreUnavailable(f"{where} cannot be used: {err}")
