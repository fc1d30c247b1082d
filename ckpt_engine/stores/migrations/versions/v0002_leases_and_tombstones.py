"""A thread counts its leases; what was erased leaves a tombstone; facts are always there."""

from __future__ import annotations

import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COLUMNS = (
    *("pk", "name", "session", "branch", "origin", "head", "open_tip", "step", "superseded"),
    *("active", "turned", "closed", "at", "n_cp", "n_tag", "n_move", "n_run", "n_pin"),
)
_PINS = (
    "(SELECT count(*) FROM pin p JOIN checkpoint c ON c.cid = p.checkpoint "
    "JOIN lineage l ON l.pk = c.lineage WHERE l.thread = thread.pk)"
)


def upgrade() -> None:
    """Add them."""
    op.add_column(
        "thread", sa.Column("n_pin", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.create_table(
        "tombstone",
        sa.Column("key", sa.LargeBinary(), primary_key=True),
        sa.Column("kind", sa.Integer(), nullable=False),
        *(sa.Column(name, KEY, nullable=False) for name in ("at", "crc")),
    )
    op.execute("DELETE FROM meta WHERE key = 'schema_version'")  # Alembic keeps it now
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        _set_floors(db)
    _count_leases(db)


def _count_leases(db: sa.Connection) -> None:
    """Count each thread's leases, and renew its checksum: that is over every column."""
    db.execute(sa.text(f"UPDATE thread SET n_pin = {_PINS}"))
    rows = db.execute(sa.text(f"SELECT {', '.join(_COLUMNS)} FROM thread")).fetchall()
    renew = sa.text("UPDATE thread SET crc = :crc WHERE pk = :pk")
    for row in rows:
        db.execute(renew, {"crc": _checksum(tuple(row)), "pk": row[0]})


def _set_floors(db: sa.Connection) -> None:
    for name in ("thread", "lineage", "checkpoint", "batch", "state", "blob"):
        key = f"floor:{name}"
        db.execute(
            sa.text("INSERT OR IGNORE INTO meta (key, value, crc) VALUES (:key, '0', :crc)"),
            {"key": key, "crc": _checksum((key, "0"))},
        )


def _checksum(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))
