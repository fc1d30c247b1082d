"""A transaction on PostgreSQL; everything here runs on the thread that owns the connection.

What commits of steps write belongs to their threads, so they lock those rows and share the lock of
the whole; every other write has that one for itself. A connection is in autocommit mode: the
transaction is begun and ended here, since BEGIN and COMMIT then travel with other statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any, ClassVar, cast

import psycopg
from psycopg import errors, postgres
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

from ..errors import (
    CheckpointError,
    Conflict,
    Corrupted,
    StoreBusy,
    StoreUnavailable,
    Unstorable,
)
from ..store import TABLES, Batch, BlobRef, CheckpointRow, Cond, Expect, In, R, Row, ThreadRow
from .transaction import (
    HOT,
    SqlTx,
    columns_of,
    hot_values,
    insert_sql,
    kinds_of,
    select_sql,
    table_name,
    update_sql,
)

__all__ = ["KEYS", "PostgresTx", "adapt", "translated"]

KEYS = 64
"""Keys that one value of the sequence stands for."""

_PACKED = (Batch, BlobRef)  # of what shares the lock, only packing removes any: its own thread's
_PER_WRITE = 3  # a batch, a state, a checkpoint
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TAKE_KEYS = "SELECT nextval('key') FROM generate_series(1, %s)"
_LOCK_ALONE, _LOCK_SHARED = (
    f"SELECT pg_advisory_xact_lock{shared}(%s)::text, pg_current_xact_id()::text, nextval('key')"  # noqa: S608
    " FROM generate_series(1, %s)"
    for shared in ("", "_shared")
)
_HEADER = Struct("!iiIii")  # dimensions, whether there are nulls, type, length, lower bound
_LENGTH = Struct("!i")
_NULL = _LENGTH.pack(-1)
_INT = Struct("!iq")


class _Ints(list[Any]):
    """An array of whole numbers."""


class _Texts(list[Any]):
    """An array of texts."""


class _Bodies(list[Any]):
    """An array of bytes."""


_ARRAYS: dict[type, type[list[Any]]] = {int: _Ints, str: _Texts, bytes: _Bodies}


class _IntsDumper(Dumper):
    format = Format.BINARY
    oid = postgres.types["int8"].array_oid

    def dump(self, obj: list[int | None]) -> bytes:
        parts = [_NULL if v is None else _INT.pack(8, v) for v in obj]
        return _HEADER.pack(1, 1, postgres.types["int8"].oid, len(parts), 1) + b"".join(parts)


class _BodiesDumper(Dumper):
    format = Format.BINARY
    oid = postgres.types["bytea"].array_oid
    of: ClassVar[int] = postgres.types["bytea"].oid

    def dump(self, obj: list[bytes | None]) -> bytes:
        parts = chain.from_iterable(
            (_NULL,) if v is None else (_LENGTH.pack(len(v)), v) for v in obj
        )
        return _HEADER.pack(1, 1, self.of, len(obj), 1) + b"".join(parts)


class _TextsDumper(_BodiesDumper):
    oid = postgres.types["text"].array_oid
    of = postgres.types["text"].oid

    def dump(self, obj: list[Any]) -> bytes:
        return super().dump([v if v is None else v.encode() for v in obj])


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Let a connection send our values in binary, each type always as the same one."""
    for kind, dumper in (
        (int, Int8BinaryDumper),
        (str, StrBinaryDumper),
        (bytes, BytesBinaryDumper),
        (_Ints, _IntsDumper),
        (_Texts, _TextsDumper),
        (_Bodies, _BodiesDumper),
    ):
        connection.adapters.register_dumper(kind, dumper)


class PostgresTx(SqlTx):
    """A transaction on PostgreSQL; nothing is sent before it is used.

    Attributes:
        number: PostgreSQL's own number of a transaction that writes.
    """

    mark = "%s"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__({})
        self._db = connection
        self._begun = self._shares = False
        self._own: set[str] = set()
        self._blocks: list[int] = []
        self._keys: Iterator[int] = iter(())
        self._last: list[tuple[str, Sequence[Any]]] | None = None
        self.number = ""

    def begin(self, lock: int, expects: Sequence[Expect | None], *, alone: bool) -> None:
        """Begin to write: take the lock and, of shared ones, the rows of the group's threads.

        Args:
            lock: The number of the lock of the whole.
            expects: What the members of the group will look up.
            alone: Nobody else may write meanwhile.
        """
        names = {name for e in expects if e for name in e.threads}
        ids = {stored for e in expects if e for stored in e.ids}
        blocks = -(-_PER_WRITE * len(expects) // KEYS)
        db, self._begun, self._shares, self._own = self._db, True, not alone, names
        with db.pipeline():
            db.execute("BEGIN")
            # before the others: what they find must be of after the lock
            keys = db.execute(_LOCK_ALONE if alone else _LOCK_SHARED, (lock, blocks), binary=True)
            threads = self._locked(ThreadRow, "name", list(names)) if names else None
            known = self._locked(CheckpointRow, "id", list(ids)) if ids else None
        taken = keys.fetchall()
        self._blocks, self.number = [row[-1] for row in taken], taken[0][1]
        if threads is not None:
            self._found_threads(names, list(map(ThreadRow._make, threads.fetchall())))
        if known is not None:
            self._found_ids(ids, list(map(CheckpointRow._make, known.fetchall())))

    def _locked(self, table: type[Any], column: str, values: list[Any]) -> psycopg.Cursor[Any]:
        where, bound = self._where({column: In(values)})
        text = select_sql(cast("Any", table), where, "", "")
        lock = " FOR UPDATE" if table is ThreadRow else ""
        return self._db.execute(text + lock, bound, binary=True)

    def update(self, *rows: Row) -> None:
        self._check_own(all(type(row) is ThreadRow and row.name in self._own for row in rows))
        super().update(*rows)

    def delete(self, table: type[R], **where: Cond) -> int:
        self._check_own(table in _PACKED)
        return super().delete(table, **where)

    def _check_own(self, own: bool) -> None:
        """Begin anew, alone, where a write turns out to change what others may be changing."""
        if self._shares and not own:
            raise _AloneError

    def commit(self) -> None:
        """Send what is buffered, as one statement, and commit."""
        with self._db.pipeline():
            self._last = []
            self.flush()
            if self._last:
                parts, values = zip(*self._last, strict=True)
                self._db.execute(_together(parts), tuple(chain.from_iterable(values)))
            self._db.execute("COMMIT")

    def end(self) -> None:
        """Undo what was not committed."""
        if self._begun and not self._db.closed:
            self._db.execute("ROLLBACK")

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        if self._begun:
            return self._db.execute(sql, values, binary=True).fetchall()
        self._begun = True
        with self._db.pipeline():
            self._db.execute(_BEGIN_READ)
            found = self._db.execute(sql, values, binary=True)
        return found.fetchall()

    def _execute(self, sql: str, values: Sequence[Any]) -> int:
        return self._db.execute(sql, values).rowcount

    def _insert_many(self, table: type[Any], rows: list[Any]) -> None:
        if len(rows) == 1:
            self._send(_INSERT_ONE[table], rows[0])
            return
        sql, kinds = _insert_sql(cast("Any", table))
        columns = zip(*rows, strict=True)
        self._send(sql, [kind(column) for kind, column in zip(kinds, columns, strict=True)])

    def _update_hot(self, rows: list[ThreadRow]) -> None:
        if len(rows) == 1:
            self._send(_UPDATE_HOT_ONE, hot_values(rows[0]))
            return
        columns = zip(*map(hot_values, rows), strict=True)
        self._send(_UPDATE_HOT, [_Ints(column) for column in columns])

    def _send(self, sql: str, values: Sequence[Any]) -> None:
        """Run a statement whose answer nobody needs; with the others that are the last to go."""
        if self._last is None:
            self._db.execute(sql, values)
        else:
            self._last.append((sql, values))

    def _most(self, values: Sequence[Any]) -> int:
        return 10_000

    def _among(self, column: str, values: list[Any]) -> tuple[str, list[Any]]:
        some = [value for value in values if value is not None]
        if not some:
            return "FALSE", []
        return f'"{column}" = ANY(%s)', [_ARRAYS[type(some[0])](some)]

    def next_pk(self, table: type[R]) -> int:
        key = next(self._keys, None)
        while key is None:
            if not self._blocks:
                self._blocks = [row[0] for row in self._fetch(_TAKE_KEYS, (1,))]
            start = self._blocks.pop(0)
            self._keys = iter(range(start, start + KEYS))
            key = next(self._keys, None)
        return key

    def keep_above(self, table: type[R], top: int) -> None:
        self._fetch("SELECT setval('key', greatest(%s, (SELECT last_value FROM key)))", (top,))

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        self._flush(CheckpointRow)
        # the text form begins with what is stored from the seventh byte on
        text = 'encode(substr("id", 7) || substr("id", 1, 6), \'hex\')'
        sql = f'SELECT "id" FROM "checkpoint" WHERE starts_with({text}, %s) LIMIT %s'  # noqa: S608
        return [row[0] for row in self._fetch(sql, (prefix, limit))]


class _AloneError(Exception):
    """A write that shares the lock wants to change what is not its own."""


_UPDATE_HOT = (
    f"UPDATE {table_name(ThreadRow)} AS t SET "  # noqa: S608
    + ", ".join(f'"{c}" = u."{c}"' for c in HOT)
    + f" FROM unnest({', '.join('%s' for _ in (*HOT, 'pk'))}) AS u("
    + ", ".join(f'"{c}"' for c in (*HOT, "pk"))
    + ') WHERE t."pk" = u."pk"'
)
_INSERT_ONE = {table: insert_sql(table, "%s") for table in TABLES}
_UPDATE_HOT_ONE = update_sql(ThreadRow, HOT, "%s")


@lru_cache
def _insert_sql(table: type[Any]) -> tuple[str, list[type[list[Any]]]]:
    """Return the statement that adds rows of a table, given an array a column, and their types."""
    kinds = [_ARRAYS[kinds_of(cast("Any", table))[name]] for name in table._fields]
    places = ", ".join("%s" for _ in kinds)
    columns = columns_of(table)
    return f"INSERT INTO {table_name(table)} ({columns}) SELECT * FROM unnest({places})", kinds  # noqa: S608


@lru_cache
def _together(statements: tuple[str, ...]) -> str:
    """Return one statement that does what several do, none of which sees another's rows."""
    *first, last = statements
    named = ", ".join(f"w{number} AS ({text})" for number, text in enumerate(first))
    return f"WITH {named} {last}" if first else last


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the driver's errors into ours.

    Args:
        where: The database, without a password.
    """
    try:
        yield
    except CheckpointError:
        raise
    except psycopg.Error as err:
        raise _ours(err, where) from err


def _ours(err: psycopg.Error, where: str) -> CheckpointError:
    said = str(err).strip().partition("\n")[0] or type(err).__name__
    match err:
        case errors.IntegrityError() | errors.SerializationFailure() | errors.DeadlockDetected():
            return Conflict(f"another write was first: {said}")
        case errors.LockNotAvailable() | errors.QueryCanceled():
            return StoreBusy(
                f"{where} is locked by another process, try again or set a longer busy_timeout: "
                f"{said}"
            )
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return Corrupted(f"{where} is damaged: {said}")
        case psycopg.DataError():
            return Unstorable(f"{where} cannot store this: {said}")
    return StoreUnavailable(f"{where} cannot be used: {said}")
