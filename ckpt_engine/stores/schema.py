"""The version of the tables: how it is read, checked, and brought to the newest by Alembic.

A database says its version in Alembic's own table, ``alembic_version``. Opening one only reads
that; Alembic is not imported before there is something to do.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..errors import SchemaMismatch
from ..store import TABLES

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "FLOORS",
    "NEWEST",
    "READ_VERSION",
    "check_older",
    "check_version",
    "floor_key",
    "upgrade",
]

NEWEST = "0003"
"""The version that this release reads and writes: the last file of ``migrations/versions``."""

_ALEMBIC = threading.Lock()  # it keeps what it works on in globals

READ_VERSION = "SELECT version_num FROM alembic_version"

FLOORS = tuple(row for row, table in TABLES.items() if table.key in (("pk",), ("cid",)))
"""Row types with a key of one whole number; SQLite's ``meta`` has the highest ever given."""


def floor_key(table: type[Any]) -> str:
    """Return the fact's name under which a table's highest key is kept once its row is gone."""
    return f"floor:{TABLES[table].name}"


def check_version(found: str | None, where: str) -> None:
    """Refuse a database of another version.

    Args:
        found: What :data:`READ_VERSION` answers; ``None`` where there is no such table.
        where: The database, without a password.

    Raises:
        SchemaMismatch: With what to do about it.
    """
    if found == NEWEST:
        return
    if found is not None and not found.isdigit():
        raise SchemaMismatch(f"{where} is not a checkpoint database: name another")
    if found is not None and found > NEWEST:
        raise SchemaMismatch(
            f"{where} has schema version {found}, this ckpt-engine knows {NEWEST}: "
            "upgrade it with `pip install --upgrade ckpt-engine`"
        )
    has = f"has schema version {found}" if found else "is from before schema versions were kept"
    raise SchemaMismatch(
        f"{where} {has}, this ckpt-engine needs version {NEWEST}: "
        "stop its workers and run `ckpt db upgrade`"
    )


def check_older(found: str | None, where: str) -> None:
    """Refuse to upgrade what is no older version.

    Raises:
        SchemaMismatch: With what to do about it.
    """
    if found is not None and not (found.isdigit() and found <= NEWEST):
        check_version(found, where)


def upgrade(connection: Connection, *, stamp: str = "") -> None:
    """Bring the tables to the newest version, within the transaction that the caller has begun.

    Args:
        connection: To the database.
        stamp: Only record that the tables are those of this version.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "ckpt_engine.stores:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    with _ALEMBIC:
        if stamp:
            command.stamp(config, stamp)
        else:
            command.upgrade(config, "head")
