"""Rows that are not what was written: telling them from mistakes of a caller's or our own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, get_args, get_type_hints

from ..errors import CheckpointError, Corrupted
from ..model import id_from_bytes
from ..store import TABLES, CheckpointRow, Cond, R, Row, ThreadRow, Tx

__all__ = ["BREAKS", "called", "is_damage", "name_of", "typed"]

BREAKS = (Corrupted, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What work on damaged rows raises; what a driver does, as for a lost connection, is not of it."""


def is_damage(err: Exception) -> bool:
    """Tell whether one of :data:`BREAKS` may be due to a row: an answer to the caller is not."""
    return isinstance(err, Corrupted) or not isinstance(err, CheckpointError)


def name_of(row: CheckpointRow) -> str:
    """Return what a checkpoint is called, also one whose id is damaged."""
    return (
        id_from_bytes(row.id) if isinstance(row.id, bytes) and len(row.id) == 16 else repr(row.id)
    )


def called(row: CheckpointRow | ThreadRow) -> str:
    """Return what an error calls a row."""
    return f"thread {row.name!r}" if isinstance(row, ThreadRow) else f"checkpoint {name_of(row)}"


def typed(tx: Tx) -> Tx:
    """Return a transaction for reading that refuses a value of a type that its column never has.

    SQLite keeps a value of any type in any column. To look at each would make every read slower, so
    this is for when something broke: then it says whether that was a row.
    """
    return _TypedTx(tx)


class _TypedTx(Tx):
    def __init__(self, inner: Tx) -> None:
        self._inner = inner

    def find(
        self, table: type[R], order: str = "", limit: int | None = None, **where: Cond
    ) -> list[R]:
        rows = self._inner.find(table, order, limit, **where)
        for row in rows:
            _check_types(row)
        return rows

    def columns(self, table: type[R], *names: str, **where: Cond) -> list[list[Any]]:
        return self._inner.columns(table, *names, **where)  # which looks at each value anyway

    def count(self, table: type[R], **where: Cond) -> int:
        return self._inner.count(table, **where)

    def insert(self, *rows: Row) -> None:
        self._inner.insert(*rows)

    def update(self, *rows: Row) -> None:
        self._inner.update(*rows)

    def delete(self, table: type[R], **where: Cond) -> int:
        return self._inner.delete(table, **where)

    def next_pk(self, table: type[R]) -> int:
        return self._inner.next_pk(table)

    def keep_above(self, table: type[R], top: int) -> None:
        self._inner.keep_above(table, top)

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        return self._inner.match_ids(prefix, limit)


def _check_types(row: Row) -> None:
    table: Any = type(row)
    for (column, types), value in zip(_types(table), row, strict=True):
        if not isinstance(value, types):
            kept = TABLES[table]
            key = "/".join(repr(getattr(row, name)) for name in kept.key)
            raise Corrupted(
                f"the {column} of {kept.name} {key} is damaged: it is a {type(value).__name__}"
            )


@lru_cache
def _types(table: type[Any]) -> list[tuple[str, tuple[type, ...]]]:
    """Return the columns of a table with the types that their values have."""
    return [(name, get_args(hint) or (hint,)) for name, hint in get_type_hints(table).items()]
