"""The tables as SQL, made from the row types, and the versions of them."""

from __future__ import annotations

from typing import Any, get_type_hints

from ..errors import SchemaMismatch
from ..store import TABLES, Meta, Table, sealed

__all__ = ["FLOORS", "SCHEMA_VERSION", "check_version", "first_facts", "floor_key", "statements"]

SCHEMA_VERSION = 1
"""Version of the tables; kept in ``meta`` under ``schema_version``."""

FLOORS = tuple(row for row, table in TABLES.items() if table.key in (("pk",), ("cid",)))
"""Row types with a key of one whole number; ``meta`` has the highest that was ever given."""

_SQLITE_TYPES = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}


def statements(types: dict[type, str] | None = None) -> list[str]:
    """Return the statements that make every table and index.

    Args:
        types: Python type -> column type; SQLite's by default.
    """
    made: list[str] = []
    for row, table in TABLES.items():
        made.append(_table(row, table, types or _SQLITE_TYPES))
        made += [_index(table, columns, unique=True) for columns in table.unique]
        made += [_index(table, columns, unique=False) for columns in table.index]
    return made


def floor_key(table: type[Any]) -> str:
    """Return the fact's name under which a table's highest key is kept once its row is gone."""
    return f"floor:{TABLES[table].name}"


def first_facts() -> list[Meta]:
    """Return the facts that a new database begins with."""
    facts = {"schema_version": SCHEMA_VERSION, **{floor_key(table): 0 for table in FLOORS}}
    return [sealed(Meta(key, str(value))) for key, value in facts.items()]


def _table(row: type[Any], table: Table, types: dict[type, str]) -> str:
    hints = get_type_hints(row)
    columns = [_column(name, hints[name], table, types) for name in row._fields]
    if not _has_row_key(table, hints):
        columns.append(f"PRIMARY KEY ({_names(table.key)})")
    return f'CREATE TABLE "{table.name}" ({", ".join(columns)})'


def _has_row_key(table: Table, hints: dict[str, Any]) -> bool:
    return len(table.key) == 1 and hints[table.key[0]] is int


def _column(name: str, hint: Any, table: Table, types: dict[type, str]) -> str:
    options = [t for t in getattr(hint, "__args__", (hint,)) if t is not type(None)]
    column = f'"{name}" {types[options[0]]}'
    if (name,) == table.key and options[0] is int:
        return f"{column} PRIMARY KEY"
    return column if hasattr(hint, "__args__") else f"{column} NOT NULL"


def _index(table: Table, columns: tuple[str, ...], *, unique: bool) -> str:
    kind = "UNIQUE INDEX" if unique else "INDEX"
    name = f"{table.name}_by_{'_'.join(columns)}"
    return f'CREATE {kind} "{name}" ON "{table.name}" ({_names(columns)})'


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def check_version(found: str | None, where: str) -> None:
    """Refuse a database of another schema version.

    Raises:
        SchemaMismatch: With what to do about it.
    """
    if found == str(SCHEMA_VERSION):
        return
    if found is None or not found.isdigit():
        raise SchemaMismatch(
            f"{where} is not a checkpoint database (its meta table has no schema version); "
            "name another file"
        )
    if int(found) > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{where} has schema version {found}, this ckpt-engine knows {SCHEMA_VERSION}: "
            "upgrade it with `pip install --upgrade ckpt-engine`"
        )
    raise SchemaMismatch(
        f"{where} has schema version {found}, which this ckpt-engine cannot bring to "
        f"{SCHEMA_VERSION}: open it with the release that wrote it"
    )
