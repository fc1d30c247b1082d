"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # keys, times, checksums
NUMBER = sa.Integer()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # ordered as SQLite does it
BODY = sa.LargeBinary()


def upgrade() -> None:
    """Make them."""
    _threads()
    _checkpoints()
    _content()
    _names()
    if op.get_bind().dialect.name == "postgresql":
        _for_postgresql()


def _for_postgresql() -> None:
    op.execute("CREATE SEQUENCE key INCREMENT BY 64")
    op.execute("ALTER TABLE thread SET (fillfactor = 50)")  # heads move within their page
    for table in ("batch", "state", "blob"):  # compressed already
        op.execute(f"ALTER TABLE {table} ALTER COLUMN body SET STORAGE EXTERNAL")


def _threads() -> None:
    op.create_table(
        "thread",
        sa.Column("pk", KEY, primary_key=True, autoincrement=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("session", KEY, nullable=False),
        sa.Column("branch", TEXT, nullable=False),
        *(sa.Column(name, KEY) for name in ("origin", "head", "open_tip")),
        sa.Column("step", NUMBER, nullable=False),
        *(sa.Column(name, KEY) for name in ("superseded", "active", "turned")),
        *(sa.Column(name, KEY, nullable=False) for name in ("closed", "at")),
        *(sa.Column(f"n_{n}", NUMBER, nullable=False) for n in ("cp", "tag", "move", "run")),
        sa.Column("crc", KEY, nullable=False),
    )
    op.create_index("thread_by_name", "thread", ["name"], unique=True)
    op.create_index("thread_by_session_branch", "thread", ["session", "branch"], unique=True)
    op.create_table(
        "head_move",
        sa.Column("thread", KEY, primary_key=True, autoincrement=False),
        sa.Column("no", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("from_id", KEY),
        sa.Column("to_id", KEY),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("undoes", NUMBER),
        sa.Column("at", KEY, nullable=False),
        sa.Column("crc", KEY, nullable=False),
    )
    op.create_table(
        "lineage",
        sa.Column("pk", KEY, primary_key=True, autoincrement=False),
        sa.Column("thread", KEY, nullable=False),
        sa.Column("parent", KEY),
        sa.Column("fork_step", NUMBER),
        sa.Column("late", NUMBER, nullable=False),
        sa.Column("pieces", BODY),
        sa.Column("crc", KEY, nullable=False),
    )
    op.create_index("lineage_by_thread", "lineage", ["thread"])
    op.create_index("lineage_by_parent", "lineage", ["parent"])


def _checkpoints() -> None:
    op.create_table(
        "checkpoint",
        sa.Column("cid", KEY, primary_key=True, autoincrement=False),
        sa.Column("id", BODY, nullable=False),
        sa.Column("lineage", KEY, nullable=False),
        sa.Column("step", NUMBER, nullable=False),
        sa.Column("parent", KEY),
        sa.Column("nparents", NUMBER, nullable=False),
        sa.Column("own", NUMBER, nullable=False),
        sa.Column("state", KEY),
        sa.Column("length", NUMBER, nullable=False),
        sa.Column("logs", BODY),
        sa.Column("trigger", NUMBER, nullable=False),
        sa.Column("at", KEY, nullable=False),
        sa.Column("node", TEXT),
        sa.Column("meta", BODY),
        sa.Column("result", BODY),
        sa.Column("fmt", NUMBER, nullable=False),
        sa.Column("chain", BODY, nullable=False),
        sa.Column("digest", BODY, nullable=False),
    )
    op.create_index("checkpoint_by_id", "checkpoint", ["id"], unique=True)
    op.create_index("checkpoint_by_lineage_step", "checkpoint", ["lineage", "step"], unique=True)
    op.create_table(
        "edge",
        sa.Column("child", KEY, primary_key=True, autoincrement=False),
        sa.Column("ord", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("parent", KEY, nullable=False),
    )
    op.create_index("edge_by_parent", "edge", ["parent"])


def _content() -> None:
    op.create_table(
        "batch",
        sa.Column("pk", KEY, primary_key=True, autoincrement=False),
        sa.Column("lineage", KEY, nullable=False),
        sa.Column("log", TEXT, nullable=False),
        *(sa.Column(name, NUMBER, nullable=False) for name in ("pos", "n", "codec")),
        sa.Column("body", BODY, nullable=False),
    )
    op.create_index("batch_by_lineage_log_pos", "batch", ["lineage", "log", "pos"], unique=True)
    op.create_table(
        "state",
        sa.Column("pk", KEY, primary_key=True, autoincrement=False),
        sa.Column("base", KEY),
        *(sa.Column(name, NUMBER, nullable=False) for name in ("depth", "codec")),
        *(sa.Column(name, BODY, nullable=False) for name in ("body", "digest")),
    )
    op.create_index("state_by_base", "state", ["base"])
    op.create_table(
        "blob",
        sa.Column("pk", KEY, primary_key=True, autoincrement=False),
        sa.Column("digest", BODY, nullable=False),
        sa.Column("codec", NUMBER, nullable=False),
        sa.Column("body", BODY, nullable=False),
    )
    op.create_index("blob_by_digest", "blob", ["digest"], unique=True)
    op.create_table(
        "blob_ref",
        sa.Column("blob", KEY, primary_key=True, autoincrement=False),
        sa.Column("owner_kind", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("owner", KEY, primary_key=True, autoincrement=False),
    )
    op.create_index("blob_ref_by_owner_kind_owner", "blob_ref", ["owner_kind", "owner"])


def _names() -> None:
    op.create_table(
        "tag",
        sa.Column("checkpoint", KEY, primary_key=True, autoincrement=False),
        sa.Column("name", TEXT, primary_key=True),
        *(sa.Column(name, KEY, nullable=False) for name in ("thread", "at", "crc")),
    )
    op.create_index("tag_by_thread_name", "tag", ["thread", "name"])
    op.create_table(
        "pin",
        sa.Column("checkpoint", KEY, primary_key=True, autoincrement=False),
        sa.Column("owner", TEXT, primary_key=True),
        *(sa.Column(name, KEY, nullable=False) for name in ("expires", "crc")),
    )
    op.create_index("pin_by_owner", "pin", ["owner"])
    facts = ("namespace", "workflow_id", "run_id", "workflow_type", "task_queue")
    op.create_table(
        "run",
        sa.Column("thread", KEY, primary_key=True, autoincrement=False),
        sa.Column("no", NUMBER, primary_key=True, autoincrement=False),
        *(sa.Column(name, TEXT, nullable=False) for name in facts),
        sa.Column("supervisor", TEXT),
        *(sa.Column(name, KEY, nullable=False) for name in ("at", "crc")),
    )
    op.create_index("run_by_workflow_id", "run", ["workflow_id"])
    op.create_table(
        "meta",
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("crc", KEY, nullable=False),
    )
