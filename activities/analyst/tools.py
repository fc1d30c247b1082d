"""The analyst's tools: they look at data and cannot change it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelRetry

from .data import only_reading, open_data

__all__ = ["describe", "list_tables", "run_sql"]

MOST_ROWS = 200
MOST_CHARACTERS = 2000  # of one cell
_Agent = RunContext[Mapping[str, Any]]


def list_tables(ctx: _Agent) -> list[dict[str, Any]]:
    """List the tables with their columns and how many rows they have."""
    with open_data(ctx.deps) as db:
        return [
            {
                "table": table,
                "rows": db.execute(f"SELECT count(*) FROM {_quote(table)}").fetchone()[0],  # noqa: S608
                "columns": [column for column, _ in _columns(db, table)],
            }
            for table in _tables(db)
        ]


def describe(ctx: _Agent, table: str) -> dict[str, Any]:
    """Describe the columns of a table: type, how many distinct values, smallest and largest.

    Args:
        ctx: The call; its ``deps`` are the agent's state.
        table: Name of the table.
    """
    with open_data(ctx.deps) as db:
        tables = _tables(db)
        if table not in tables:
            raise ModelRetry(f"There is no table {table!r}. Tables: {', '.join(tables)}.")
        return {
            "table": table,
            "columns": [_describe(db, table, *column) for column in _columns(db, table)],
        }


def run_sql(ctx: _Agent, sql: str, max_rows: int = 50) -> dict[str, Any]:
    """Run one SELECT statement of SQLite and return its rows. Dates are ISO text.

    Args:
        ctx: The call; its ``deps`` are the agent's state.
        sql: The statement. Anything that writes is refused by the database.
        max_rows: Most rows to return, up to 200.
    """
    limit = max(1, min(max_rows, MOST_ROWS))
    with open_data(ctx.deps) as db:
        only_reading(db)
        cursor = db.execute(sql)
        rows = cursor.fetchmany(limit + 1)
        names = [column[0] for column in cursor.description or ()]
    result: dict[str, Any] = {
        "columns": names,
        "rows": [[_shown(v) for v in row] for row in rows[:limit]],
    }
    if len(rows) > limit:
        result["note"] = f"Only the first {limit} rows; there are more."
    return result


def _tables(db: sqlite3.Connection) -> list[str]:
    found = db.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [name for (name,) in found]


def _columns(db: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    found = db.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
    return [(name, kind or "ANY") for name, kind in found]


def _describe(db: sqlite3.Connection, table: str, column: str, kind: str) -> dict[str, Any]:
    name = _quote(column)
    distinct, filled, low, high = db.execute(
        f"SELECT count(DISTINCT {name}), count({name}), min({name}), max({name})"  # noqa: S608
        f" FROM {_quote(table)}"
    ).fetchone()
    return {
        "column": column,
        "type": kind,
        "distinct": distinct,
        "filled": filled,
        "min": _shown(low),
        "max": _shown(high),
    }


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return f"{value[:MOST_CHARACTERS]}… ({len(value)} characters)"
    return value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
