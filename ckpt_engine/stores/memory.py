"""A store in memory: the reference backend, for tests and for agents that need no durability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from ..errors import Conflict, EngineClosed
from ..model import id_from_bytes
from ..store import (
    TABLES,
    Above,
    CheckpointRow,
    Cond,
    Expect,
    In,
    R,
    Row,
    Span,
    Store,
    Tx,
    Upto,
    sealed,
)

__all__ = ["MemoryStore"]

T = TypeVar("T")
_Key = tuple[Any, ...]


class _Rows:
    """The rows of one table by key, with its unique sets and indexes."""

    def __init__(self, row: type[Any]) -> None:
        table = TABLES[row]
        self.key_of = _getter(table.key)
        self.unique = {columns: _getter(columns) for columns in (table.key, *table.unique)}
        self.keys: dict[tuple[str, ...], dict[_Key, Any]] = {c: {} for c in self.unique}
        # rows by the first column of each set of columns that the table can be searched by
        firsts = {columns[0] for columns in (table.key, *table.unique, *table.index)}
        self.by_first: dict[str, dict[Any, dict[_Key, Any]]] = {
            first: defaultdict(dict) for first in firsts
        }
        self.order = table.key
        self.top = 0

    def add(self, row: Any) -> None:
        for columns, getter in self.unique.items():
            if getter(row) in self.keys[columns]:
                raise Conflict(f"a row with this {', '.join(columns)} exists already")
        for columns, getter in self.unique.items():
            self.keys[columns][getter(row)] = row
        for first, rows in self.by_first.items():
            rows[getattr(row, first)][self.key_of(row)] = row
        if isinstance(row[0], int):
            self.top = max(self.top, row[0])

    def remove(self, row: Any) -> None:
        for columns, getter in self.unique.items():
            del self.keys[columns][getter(row)]
        for first, rows in self.by_first.items():
            del rows[getattr(row, first)][self.key_of(row)]

    def matching(self, where: dict[str, Cond]) -> list[Any]:
        rows = self._candidates(where)
        return [row for row in rows if all(_meets(getattr(row, c), w) for c, w in where.items())]

    def _candidates(self, where: dict[str, Cond]) -> list[Any]:
        for first, rows in self.by_first.items():
            wanted = where.get(first)
            if first in where and not isinstance(wanted, (Upto, Above, Span)):
                values = wanted.values if isinstance(wanted, In) else (wanted,)
                return [row for v in dict.fromkeys(values) if v in rows for row in rows[v].values()]
        return list(self.keys[self.order].values())


def _getter(columns: tuple[str, ...]) -> Callable[[Any], _Key]:
    if len(columns) == 1:
        one = attrgetter(columns[0])
        return lambda row: (one(row),)
    return attrgetter(*columns)


def _meets(value: Any, wanted: Cond) -> bool:
    match wanted:
        case In(values):
            return value in values
        case Upto(limit):
            return value is not None and bool(value <= limit)
        case Above(limit):
            return value is not None and bool(value > limit)
        case Span(above, upto):
            return value is not None and bool(above < value <= upto)
    return bool(value == wanted)


class _MemoryTx(Tx):
    """A transaction: changes are made at once, and undone when it fails."""

    def __init__(self, tables: dict[type[Any], _Rows]) -> None:
        self._tables = tables
        self._undo: list[Callable[[], None]] = []

    def find(
        self, table: type[R], order: str = "", limit: int | None = None, **where: Cond
    ) -> list[R]:
        rows = self._tables[table].matching(where)
        columns = (order.lstrip("-"),) if order else TABLES[table].key
        rows.sort(key=_getter(columns), reverse=order.startswith("-"))
        return rows if limit is None else rows[:limit]

    def count(self, table: type[R], **where: Cond) -> int:
        return len(self._tables[table].matching(where))

    def insert(self, *rows: Row) -> None:
        for row in map(sealed, rows):
            table = self._tables[type(row)]
            table.add(row)
            self._undo.append(lambda table=table, row=row: table.remove(row))  # type: ignore[misc]

    def update(self, *rows: Row) -> None:
        for row in map(sealed, rows):
            table = self._tables[type(row)]
            old = table.keys[table.order][table.key_of(row)]
            self._swap(table, old, row)
            self._undo.append(lambda t=table, o=old, n=row: self._swap(t, n, o))  # type: ignore[misc]

    @staticmethod
    def _swap(table: _Rows, old: Any, new: Any) -> None:
        table.remove(old)
        table.add(new)

    def delete(self, table: type[R], **where: Cond) -> int:
        rows = self._tables[table].matching(where)
        for row in rows:
            self._tables[table].remove(row)
            self._undo.append(lambda row=row: self._tables[table].add(row))  # type: ignore[misc]
        return len(rows)

    def next_pk(self, table: type[R]) -> int:
        rows = self._tables[table]
        rows.top += 1
        return rows.top

    def keep_above(self, table: type[R], top: int) -> None:
        rows = self._tables[table]
        rows.top = max(rows.top, top)

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        found = self._tables[CheckpointRow].keys[("id",)]
        return [key for (key,) in found if id_from_bytes(key).startswith(prefix)][:limit]

    def roll_back(self) -> None:
        """Undo everything, newest first."""
        for undo in reversed(self._undo):
            undo()


class MemoryStore(Store):
    """Everything in this process; gone when it is closed."""

    url = "memory:"

    def __init__(self) -> None:
        self._tables = {row: _Rows(row) for row in TABLES}
        self._closed = False

    async def read(self, work: Callable[[Tx], T]) -> T:
        self._check()
        return work(_MemoryTx(self._tables))

    async def write(self, work: Callable[[Tx], T], expect: Expect | None = None) -> T:
        self._check()
        tx = _MemoryTx(self._tables)
        try:
            answer = work(tx)
        except BaseException:
            tx.roll_back()
            raise
        if self.observer is not None:
            self.observer.committed(1)
        return answer

    def _check(self) -> None:
        if self._closed:
            raise EngineClosed("the engine was closed")

    async def reclaim(self, *, erase: bool = False, thorough: bool = False) -> None:
        pass

    async def size(self) -> int:
        columns = (
            column
            for t in self._tables.values()
            for row in t.keys[t.order].values()
            for column in row
        )
        return sum(len(c) if isinstance(c, (str, bytes)) else 8 for c in columns)

    async def close(self) -> None:
        self._closed = True
        self._tables.clear()
