"""What the throughput is compared with: raw ``sqlite3``, and SQLAlchemy used as it comes."""

from __future__ import annotations

import random
import sqlite3
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from sqlalchemy import LargeBinary
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.codec import split_map
from ckpt_engine.delta import base_depth, diff
from ckpt_engine.store import Lineage, ThreadRow, crc_of, sealed
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


@dataclass(slots=True)
class _Line:
    """What is remembered of an agent's thread: its row, and what its newest step stands on."""

    row: ThreadRow
    chain: bytes = bytes(16)
    depth: int = -1
    states: dict[int, tuple[int, dict[str, bytes]]] = field(default_factory=dict)


class RawInline:
    """Encodes and writes the engine's rows inline, one transaction a checkpoint.

    Tables, indexes, settings, rows, compression, digests and checksums are the engine's own (its
    ``verify`` finds nothing amiss); keys and threads are remembered as there. What it leaves out:
    looking for values that cannot be stored or are to be kept apart, everything that is decided by
    where a checkpoint goes, and all that it would take for two to write at once.
    """

    def __init__(self, path: Path) -> None:
        db = _connect(path, "auto_vacuum = INCREMENTAL", "secure_delete = FAST")
        upgrade_file(db, 5.0)
        self.prepare(db, f"sqlite:///{path}")

    def prepare(self, db: Any, url: str) -> None:
        """Begin with nothing, on a connection to an empty database of the engine."""
        self.db, self.url = db, url
        self.zstd = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self.lines: dict[int, _Line] = {}
        self.top = 0

    async def take(self, agent: int, step: Step) -> None:
        """Take one step."""
        execute = self.db.execute
        execute("BEGIN IMMEDIATE")
        execute("PRAGMA data_version").fetchone()
        now = time.time_ns() // 1_000_000
        line = self.lines.get(agent) or self._make_thread(agent, now)
        row, number = line.row, line.row.n_cp
        self.top = key = self.top + 1  # the same for a step's rows of each table
        (message,) = step["append"]
        item = _pack(message)
        chain = blake2b(item, digest_size=16, key=line.chain).digest()
        body = self.zstd.compress(b"\x91" + item)
        execute(_BATCH, (key, row.pk, "", number, 1, 33, body))
        state = self._put_state(line, key, step["state"])
        result = _pack((0, len(item))) if step["tools_result"] == message else None
        if result is None:
            result = b"\x21" + self.zstd.compress(_pack(step["tools_result"]))
        meta = _pack([None, step["next_node"], None])
        stored_id = (now << 80 | random.getrandbits(80)).to_bytes(16, "big")
        head, length, parents = row.head, number + 1, int(number > 0)
        facts = (key, stored_id, row.pk, key, number, head, parents, 1, length, None)
        more = (4, now, step["node"], meta, result, 34, chain)
        digest = blake2b(_pack((facts, more, (), state)), digest_size=16).digest()
        place = (key, stored_id, row.pk, number, head, parents, 1, key, length, None)
        execute(_CHECKPOINT, (*place, *more, digest))
        row = row._replace(head=key, open_tip=key, step=number, n_cp=length)
        line.row, line.chain = row._replace(crc=crc_of(row)), chain
        execute(_HOT, (key, key, number, length, line.row.crc, row.pk))
        execute("COMMIT")

    def _put_state(self, line: _Line, key: int, state: dict[str, Any]) -> bytes:
        """Write the state, as a difference where that is shorter; return its digest."""
        whole = _pack(state)
        values = split_map(whole)
        depth = line.depth + 1
        body, base = whole, None
        if (below := base_depth(depth)) is not None and below in line.states:
            base, before = line.states[below]
            body = diff(before, values)
            if len(body) >= len(whole) * 3 // 4:
                body, base = whole, None
        if base is None:
            depth = 0
            line.states.clear()
        line.depth, line.states[depth] = depth, (key, values)
        crc = zlib.crc32(body).to_bytes(4, "big")
        self.db.execute(_STATE, (key, base, depth, 32, body + crc))
        return blake2b(whole, digest_size=16).digest()

    def _make_thread(self, agent: int, now: int) -> _Line:
        pk = agent + 1
        names = (f"agent {agent}", pk, "main")
        row = sealed(ThreadRow(pk, *names, *(None,) * 3, 0, *(None,) * 3, 0, now, *(0,) * 5))
        columns = ", ".join(f'"{name}"' for name in row._fields)
        self.db.execute(f"INSERT INTO thread ({columns}) VALUES ({_places(19)})", row)
        own = sealed(Lineage(pk, pk, None, None, 0, None))
        self.db.execute(f"INSERT INTO lineage VALUES ({_places(7)})", own)
        return self.lines.setdefault(agent, _Line(row))

    async def close(self) -> None:
        """Close the database, once the engine has found nothing amiss in it."""
        self.db.close()
        async with await create_checkpoint_engine(self.url) as engine:
            report = await engine.verify()
        assert not report.problems, report.problems
        assert report.checkpoints == self.top


def _places(count: int) -> str:
    return ", ".join("?" * count)


_pack = msgspec.msgpack.Encoder().encode
_BATCH = f"INSERT INTO batch VALUES ({_places(7)})"
_STATE = f"INSERT INTO state VALUES ({_places(5)})"
_CHECKPOINT = f"INSERT INTO checkpoint VALUES ({_places(18)})"
_HOT = "UPDATE thread SET head = ?, open_tip = ?, step = ?, n_cp = ?, crc = ? WHERE pk = ?"


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
