"""Fewer pages: no indexes that nobody asks, no digest of a state (a checkpoint's own covers it).

On SQLite tables whose rows are little more than their key are kept in the key's own order.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BY_KEY = ("head_move", "edge", "blob_ref", "tag", "pin", "run", "tombstone", "meta")


def upgrade() -> None:
    """Drop them."""
    op.drop_index("state_by_base", "state")
    op.drop_index("edge_by_parent", "edge")
    op.drop_index("lineage_by_parent", "lineage")
    op.drop_column("state", "digest")
    if op.get_bind().dialect.name == "sqlite":
        for table in _BY_KEY:
            _without_row_ids(op.get_bind(), table)


def _without_row_ids(db: sa.Connection, table: str) -> None:
    made = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = :name AND sql > '' ORDER BY 1")
    indexes = [row[0] for row in db.execute(made, {"name": table}) if "INDEX" in row[0][:20]]
    whole = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name")
    statement = db.execute(whole, {"name": table}).scalar_one()
    op.execute(f'ALTER TABLE "{table}" RENAME TO old')
    op.execute(sa.text(statement.replace(":", "\\:") + " WITHOUT ROWID"))
    op.execute(f'INSERT INTO "{table}" SELECT * FROM old')
    op.execute("DROP TABLE old")
    for index in indexes:
        op.execute(sa.text(index))
