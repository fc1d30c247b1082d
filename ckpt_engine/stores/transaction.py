"""What transactions on SQL databases share: rows are buffered, and statements made from row types.

Everything here runs on the thread that owns the connection.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, cast, get_type_hints

from ..store import (
    SEALED,
    TABLES,
    Above,
    CheckpointRow,
    Cond,
    Expect,
    In,
    R,
    Row,
    Span,
    ThreadRow,
    Tx,
    Upto,
    sealed,
)

__all__ = [
    "HOT",
    "SqlTx",
    "columns_of",
    "hot_values",
    "insert_sql",
    "kinds_of",
    "select_sql",
    "table_name",
    "update_sql",
]

HOT = ("head", "open_tip", "step", "n_cp", "crc")
"""The columns of a thread that a commit changes."""


class SqlTx(Tx):
    """Buffers what is inserted, so that a group's rows of a table go out in one statement.

    Attributes:
        mark: The place of a value in a statement.
        columns_sql: What is read of a row type's columns, where that is not simply all of them.
        changes: How often something was changed.
    """

    mark: ClassVar[str] = "?"
    columns_sql: ClassVar[Mapping[type[Any], str]] = {}

    def __init__(self, stored: dict[str, ThreadRow]) -> None:
        self._inserts: dict[type[Any], list[Any]] = {}
        self._stored = stored  # as in the database, of those in _threads
        self._threads: dict[str, ThreadRow | None] = {}
        self._ids: dict[bytes, CheckpointRow | None] = {}
        self.changes = 0

    @abstractmethod
    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows of a query."""

    @abstractmethod
    def _execute(self, sql: str, values: Sequence[Any]) -> int:
        """Run a statement; return how many rows it changed."""

    @abstractmethod
    def _insert_many(self, table: type[Any], rows: list[Any]) -> None:
        """Add rows of one table."""

    @abstractmethod
    def _update_hot(self, rows: list[ThreadRow]) -> None:
        """Write the columns of :data:`HOT` of some threads."""

    @abstractmethod
    def _most(self, values: Sequence[Any]) -> int:
        """Return how many of such values a condition may have."""

    @abstractmethod
    def _among(self, column: str, values: list[Any]) -> tuple[str, list[Any]]:
        """Return the condition that a column is one of some values, and what to bind."""

    def prefetch(self, expects: Sequence[Expect | None]) -> None:
        """Load what a group's members will look up."""
        names: set[str] = set()
        ids: set[bytes] = set()
        for expect in filter(None, expects):
            ids.update(expect.ids)
            for name in expect.threads:
                if (known := self._stored.get(name)) is not None:
                    self._threads[name] = known
                else:
                    names.add(name)
        if names:
            self._found_threads(names, self._select(ThreadRow, {"name": In(list(names))}))
        if ids:
            self._found_ids(ids, self._select(CheckpointRow, {"id": In(list(ids))}))

    def _found_threads(self, names: set[str], rows: list[ThreadRow]) -> None:
        self._threads.update(dict.fromkeys(names))
        for row in rows:
            self._threads[row.name] = self._stored[row.name] = row

    def _found_ids(self, ids: set[bytes], rows: list[CheckpointRow]) -> None:
        self._ids.update(dict.fromkeys(ids))
        self._ids.update({row.id: row for row in rows})

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
        parts = list(self._chunks(where))
        for part in parts:
            sql, values = self._where(part)
            text = select_sql(
                cast("Any", table),
                sql,
                order,
                self.mark if limit else "",
                self.columns_sql.get(table),
            )
            found = self._fetch(text, (*values, limit) if limit else values)
            rows += self._made(table, found)
        if len(parts) > 1:
            column = table._fields.index(order.lstrip("-") or TABLES[table].key[0])
            rows.sort(key=lambda row: cast("Any", row[column]), reverse=order.startswith("-"))
        return rows if limit is None else rows[:limit]

    def _made(self, table: type[R], found: list[Any]) -> Iterable[R]:
        """Return what a query found as rows."""
        return map(cast("Any", table)._make, found)

    def columns(self, table: type[R], *names: str, **where: Cond) -> list[list[Any]]:
        self._flush(table)
        columns = ", ".join(f'"{name}"' for name in names)
        found: list[Any] = []
        for part in self._chunks(where):
            sql, values = self._where(part)
            found += self._fetch(f"SELECT {columns} FROM {table_name(table)}{sql}", values)  # noqa: S608
        return list(map(list, zip(*found, strict=True))) if found else [[] for _ in names]

    def count(self, table: type[R], **where: Cond) -> int:
        self._flush(table)
        total = 0
        for part in self._chunks(where):
            sql, values = self._where(part)
            total += self._fetch(f"SELECT count(*) FROM {table_name(table)}{sql}", values)[0][0]  # noqa: S608
        return total

    def insert(self, *rows: Row) -> None:
        self.changes += 1
        for row in rows:
            table = type(row)
            waiting = self._inserts.get(table)
            if waiting is None:
                waiting = self._inserts[table] = []
            waiting.append(sealed(row) if table in SEALED else row)
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
                self._replace(sealed(row))
                self._forget(row)

    def _replace(self, row: Row) -> None:
        keys = TABLES[type(row)].key
        values = (*row, *(getattr(row, name) for name in keys))
        self._execute(update_sql(cast("Any", type(row)), row._fields, self.mark), values)

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
        gone = 0
        for part in self._chunks(where):
            sql, values = self._where(part)
            gone += self._execute(f"DELETE FROM {table_name(table)}{sql}", values)  # noqa: S608
        return gone

    def flush(self) -> None:
        """Send everything that is buffered."""
        for table in tuple(self._inserts):
            self._flush(table)
        self._flush(ThreadRow)

    def _flush(self, table: type[Any]) -> None:
        rows = self._inserts.pop(table, None)
        if rows:
            self._insert_many(table, rows)
        if table is ThreadRow:
            self._flush_threads()

    def _flush_threads(self) -> None:
        hot: list[ThreadRow] = []
        for name, thread in self._threads.items():
            old = self._stored.get(name)
            if thread is None or old is None or thread is old:
                continue
            row = sealed(thread)
            self._threads[name] = self._stored[name] = row
            if row[:5] == old[:5] and row[8:13] == old[8:13] and row[14:18] == old[14:18]:
                hot.append(row)
            else:
                self._replace(row)
        if hot:
            self._update_hot(hot)

    def _chunks(self, where: dict[str, Cond]) -> Iterator[dict[str, Cond]]:
        for column, wanted in where.items():
            if isinstance(wanted, In) and len(wanted.values) > self._most(wanted.values):
                values, most = list(dict.fromkeys(wanted.values)), self._most(wanted.values)
                for start in range(0, len(values), most):
                    yield from self._chunks({**where, column: In(values[start : start + most])})
                return
        yield where

    def _where(self, where: dict[str, Cond]) -> tuple[str, tuple[Any, ...]]:
        if not where:
            return "", ()
        parts: list[str] = []
        values: list[Any] = []
        mark = self.mark
        for column, wanted in where.items():
            match wanted:
                case In(many):
                    part, some = self._among(column, list(many))
                    parts.append(part)
                    values += some
                case Upto(limit):
                    parts.append(f'"{column}" <= {mark}')
                    values.append(limit)
                case Above(limit):
                    parts.append(f'"{column}" > {mark}')
                    values.append(limit)
                case Span(above, upto):
                    parts.append(f'"{column}" > {mark} AND "{column}" <= {mark}')
                    values += (above, upto)
                case None:
                    parts.append(f'"{column}" IS NULL')
                case _:
                    parts.append(f'"{column}" = {mark}')
                    values.append(wanted)
        return " WHERE " + " AND ".join(parts), tuple(values)


def hot_values(row: ThreadRow) -> tuple[Any, ...]:
    """Return the values of the columns of :data:`HOT`, and the key."""
    return (row.head, row.open_tip, row.step, row.n_cp, row.crc, row.pk)


def table_name(table: type[Any]) -> str:
    """Return a table's name as SQL."""
    return f'"{TABLES[table].name}"'


def columns_of(table: type[Any]) -> str:
    """Return a table's columns as SQL."""
    return ", ".join(f'"{name}"' for name in table._fields)


@lru_cache
def kinds_of(table: type[Any]) -> dict[str, type]:
    """Return the type of each of a table's columns, without ``None``."""
    return {
        name: next(t for t in getattr(hint, "__args__", (hint,)) if t is not type(None))
        for name, hint in get_type_hints(table).items()
    }


@lru_cache(maxsize=512)
def select_sql(
    table: type[Any], where: str, order: str, limit: str, columns: str | None = None
) -> str:
    """Return a query of one table.

    Args:
        table: The row type.
        where: The condition.
        order: A column, with a ``-`` before it for downwards; the key where it is empty.
        limit: The place of how many rows, if there is one.
        columns: What of each row, where that is not simply its columns.
    """
    by = f'"{order.lstrip("-")}"' if order else ", ".join(f'"{c}"' for c in TABLES[table].key)
    down = " DESC" if order.startswith("-") else ""
    text = (
        f"SELECT {columns or columns_of(table)} FROM {table_name(table)}{where} "  # noqa: S608
        f"ORDER BY {by}{down}"
    )
    return f"{text} LIMIT {limit}" if limit else text


def insert_sql(table: type[Any], mark: str) -> str:
    """Return the statement that adds one row of a table."""
    places = ", ".join(mark for _ in table._fields)
    return f"INSERT INTO {table_name(table)} ({columns_of(table)}) VALUES ({places})"  # noqa: S608


@lru_cache
def update_sql(table: type[Any], columns: tuple[str, ...], mark: str) -> str:
    """Return the statement that writes columns of one row, found by its key."""
    sets = ", ".join(f'"{c}" = {mark}' for c in columns)
    keys = " AND ".join(f'"{c}" = {mark}' for c in TABLES[table].key)
    return f"UPDATE {table_name(table)} SET {sets} WHERE {keys}"  # noqa: S608
