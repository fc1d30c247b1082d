"""What the throughput is compared with: raw ``sqlite3``, and SQLAlchemy used as it comes."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from sqlalchemy import LargeBinary
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ckpt_engine.stores.sql import upgrade_file

Step = dict[str, Any]
Take = Callable[[int, Step], Awaitable[object]]
"""Takes one agent's step."""


def _connect(path: Path, *settings: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    for setting in settings:
        db.execute(f"PRAGMA {setting}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


class RawInline:
    """Encodes and writes the engine's rows inline, one transaction a checkpoint.

    Tables, indexes and settings are the engine's own; keys and threads are remembered as there.
    """

    def __init__(self, path: Path) -> None:
        self.db = _connect(path, "auto_vacuum = INCREMENTAL", "secure_delete = FAST")
        upgrade_file(self.db, 5.0)
        self.zstd = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self.threads: dict[int, tuple[int, int | None, bytes]] = {}

    async def take(self, agent: int, step: Step) -> None:
        """Take one step."""
        pack, squeeze, digest = msgspec.msgpack.encode, self.zstd.compress, blake2b
        body = pack(step["append"])
        state = pack(step["state"])
        result = pack(step["tools_result"])
        same = b"" if step["tools_result"] == step["append"][0] else squeeze(result)
        meta = pack([None, step["next_node"], None])
        stored_id = time.time_ns().to_bytes(8, "big") + agent.to_bytes(8, "big")
        now = time.time_ns() // 1_000_000
        execute = self.db.execute
        execute("BEGIN IMMEDIATE")
        execute("PRAGMA data_version").fetchone()
        if agent not in self.threads:
            self._make_thread(agent, now)
        number, head, chain = self.threads.get(agent, (0, None, b""))
        chain = digest(body, digest_size=16, key=chain).digest()
        execute(
            "INSERT INTO batch VALUES (NULL, ?, '', ?, 1, 33, ?)", (agent, number, squeeze(body))
        )
        sealed = state + zlib.crc32(state).to_bytes(4, "big")
        row = execute("INSERT INTO state VALUES (NULL, NULL, 0, 32, ?)", (sealed,)).lastrowid
        place = (stored_id, agent, number, head, 1, 1, row, number + 1, None, 4, now)
        facts = (*place, step["node"], meta, same, 34, chain)
        whole = digest(pack(facts) + digest(state, digest_size=16).digest(), digest_size=16)
        places = ", ".join("?" * 17)
        head = execute(
            f"INSERT INTO checkpoint VALUES (NULL, {places})", (*facts, whole.digest())
        ).lastrowid
        hot = (head, head, number, number + 1)
        execute(
            "UPDATE thread SET head = ?, open_tip = ?, step = ?, n_cp = ?, crc = ? WHERE pk = ?",
            (*hot, zlib.crc32(repr((agent, *hot)).encode()), agent),
        )
        execute("COMMIT")
        self.threads[agent] = (number + 1, head, chain)

    def _make_thread(self, agent: int, now: int) -> None:
        names = (f"agent {agent}", agent, "main")
        rest = (None, None, None, 0, None, None, None, 0, now, 0, 0, 0, 0, 0, 0)
        places = ", ".join("?" * 19)
        self.db.execute(f"INSERT INTO thread VALUES ({places})", (agent, *names, *rest))

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
