"""What the throughput is compared with: raw ``sqlite3``, and SQLAlchemy used as it comes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from sqlalchemy import LargeBinary
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Step = dict[str, Any]
Take = Callable[[int, Step], Awaitable[object]]
"""Takes one agent's step."""


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


class RawInline:
    """Encodes and writes the engine's rows inline, one transaction a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.db = _connect(path)
        self.db.executescript(
            "CREATE TABLE thread(id INTEGER PRIMARY KEY, name UNIQUE, head, step, crc);"
            "CREATE TABLE batch(id INTEGER PRIMARY KEY, lineage, log, pos, n, codec, body,"
            " UNIQUE(lineage, log, pos));"
            "CREATE TABLE state(id INTEGER PRIMARY KEY, base, depth, codec, body, digest);"
            "CREATE INDEX by_base ON state(base);"
            "CREATE TABLE checkpoint(cid INTEGER PRIMARY KEY, id UNIQUE, lineage, step, parent,"
            " nparents, own, state, len, logs, trigger, at, node, meta, result, fmt, chain, digest,"
            " UNIQUE(lineage, step));"
        )
        self.zstd = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self.threads: dict[int, tuple[int, int | None]] = {}

    async def take(self, agent: int, step: Step) -> None:
        """Take one step."""
        pack, squeeze, digest = msgspec.msgpack.encode, self.zstd.compress, blake2b
        body = pack(step["append"])
        state = pack(step["state"])
        result = pack(step["tools_result"])
        chain, own = digest(body, digest_size=16).digest(), digest(state, digest_size=16).digest()
        stored_id = time.time_ns().to_bytes(8, "big") + agent.to_bytes(8, "big")
        whole = digest(chain + own + result, digest_size=16).digest()
        self.db.execute("BEGIN IMMEDIATE")
        if agent not in self.threads:
            self.db.execute("INSERT INTO thread VALUES (?, ?, NULL, 0, 0)", (agent, f"t{agent}"))
        number, head = self.threads.get(agent, (0, None))
        self.db.execute("SELECT * FROM thread WHERE name = ?", (f"t{agent}",)).fetchone()
        self.db.execute(
            "INSERT INTO batch VALUES (NULL, ?, '', ?, 1, 1, ?)", (agent, number, squeeze(body))
        )
        row = self.db.execute(
            "INSERT INTO state VALUES (NULL, NULL, 0, 0, ?, ?)", (state, own)
        ).lastrowid
        same = b"" if step["tools_result"] == step["append"][0] else squeeze(result)
        meta = pack([{}, step["next_node"], None])
        now = time.time_ns() // 1_000_000
        head = self.db.execute(
            "INSERT INTO checkpoint VALUES"
            " (NULL, ?, ?, ?, ?, 1, 1, ?, ?, NULL, 1, ?, ?, ?, ?, 1, ?, ?)",
            (
                stored_id,
                agent,
                number,
                head,
                row,
                number,
                now,
                step["node"],
                meta,
                same,
                chain,
                whole,
            ),
        ).lastrowid
        self.db.execute("UPDATE thread SET head = ?, step = ? WHERE id = ?", (head, number, agent))
        self.db.execute("COMMIT")
        self.threads[agent] = (number + 1, head)

    async def close(self) -> None:
        """Close the database."""
        self.db.close()


class BareInsert:
    """Inserts 2 KB that are ready, one transaction each."""

    def __init__(self, path: Path) -> None:
        self.db = _connect(path)
        self.db.execute("CREATE TABLE row(id INTEGER PRIMARY KEY, body)")
        self.body = b"x" * 2048

    async def take(self, agent: int, step: Step) -> None:
        """Insert one row."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO row VALUES (NULL, ?)", (self.body,))
        self.db.execute("COMMIT")

    async def close(self) -> None:
        """Close the database."""
        self.db.close()


class _Base(DeclarativeBase):
    pass


class _Batch(_Base):
    __tablename__ = "batch"
    id: Mapped[int] = mapped_column(primary_key=True)
    thread: Mapped[int] = mapped_column(index=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class _State(_Base):
    __tablename__ = "state"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class _Checkpoint(_Base):
    __tablename__ = "checkpoint"
    id: Mapped[int] = mapped_column(primary_key=True)
    thread: Mapped[int] = mapped_column(index=True)
    state: Mapped[int]
    result: Mapped[bytes] = mapped_column(LargeBinary)


class _Thread(_Base):
    __tablename__ = "thread"
    id: Mapped[int] = mapped_column(primary_key=True)
    head: Mapped[int | None]


class NaiveSqlAlchemy:
    """SQLAlchemy's async ORM as its tutorial has it: a session and a transaction a checkpoint."""

    def __init__(self, url: str, **connect: Any) -> None:
        self.engine = create_async_engine(url, connect_args=connect, pool_timeout=120)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def on_sqlite(cls, path: Path) -> NaiveSqlAlchemy:
        """Open a file that is as durable as the others."""
        _connect(path).close()
        return cls(f"sqlite+aiosqlite:///{path}", timeout=60)

    async def begin(self) -> None:
        """Make the tables."""
        async with self.engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)

    async def take(self, agent: int, step: Step) -> None:
        """Take one step."""
        pack = msgspec.json.encode
        async with self.session() as session, session.begin():
            batch = _Batch(thread=agent, body=pack(step["append"]))
            state = _State(body=pack(step["state"]))
            session.add_all([batch, state])
            await session.flush()
            result = pack(step["tools_result"])
            checkpoint = _Checkpoint(thread=agent, state=state.id, result=result)
            session.add(checkpoint)
            await session.flush()
            await self._move(session, agent, checkpoint.id)

    @staticmethod
    async def _move(session: AsyncSession, agent: int, head: int) -> None:
        thread = await session.get(_Thread, agent)
        if thread is None:
            session.add(_Thread(id=agent, head=head))
        else:
            thread.head = head

    async def close(self) -> None:
        """Close the database."""
        await self.engine.dispose()
