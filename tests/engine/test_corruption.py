"""What ``verify`` finds: any column of any kind of row that is not what it was, any row missing."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import (
    CheckpointEngine,
    CheckpointError,
    SnapshotConfig,
    StepCommit,
    WorkflowRun,
    create_checkpoint_engine,
    new_checkpoint_id,
)
from ckpt_engine.store import TABLES

CONFIG = SnapshotConfig(logs=("log",), idle_seal_seconds=0)
NAMES = [table.name for table in TABLES.values()]
KEYS = {t.name: ", ".join(f'"{column}"' for column in t.key) for t in TABLES.values()}


async def _say(engine: CheckpointEngine, thread: str, n: int) -> str:
    taken = await engine.snapshot(
        thread,
        append=[{"n": n, "text": f"message {n}"}],
        state={"n": n, "same": "x" * 80, "log": list(range(n))},
        tools_result={"found": f"{n} things", "more": [n] * 20},
        metadata={"m": n},
        node="node",
        next_node="next",
    )
    return str(taken)


async def _fill(engine: CheckpointEngine) -> None:
    """Write rows of every kind, with a value in every column."""
    ids = [await _say(engine, "t", n) for n in range(6)]
    await engine.snapshot("t", append=[{"large": "0123456789" * 1000}])
    await engine.optimize()
    await _say(engine, "t", 7)
    await engine.rewind(ids[2])
    await engine.undo("t")
    await engine.rewind(ids[3])
    await engine.snapshot("t", messages=["edited"], tags=["edit"])
    side = (await engine.branch(ids[1], "side")).id
    await _say(engine, side, 9)
    await engine.merge_branch(side, "t", strategy="ours")
    await engine.supersede("t", by=side)
    await engine.tag(ids[1], "best")
    await engine.pin([ids[1]], "owner", ttl_seconds=600)
    names = {"namespace": "n", "workflow_id": "w", "run_id": "r", "workflow_type": "T"}
    await engine.register_run("t", WorkflowRun(**names, task_queue="q", supervisor="s"))
    await engine.create_thread("wf")
    root, a, b, c = (new_checkpoint_id() for _ in range(4))
    for step, (i, parents) in enumerate([(root, ()), (a, (root,)), (b, (root,)), (c, (a, b))]):
        await engine.commit_step(
            StepCommit(
                checkpoint_id=i,
                thread_id="wf",
                step=step,
                parents=parents,
                first=i != b,
                append=[step],
            )
        )
    await engine.snapshot("gone", append=["forgotten"])
    await engine.forget(session_id="gone")


async def _make(path: Path) -> None:
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        await _fill(engine)
        assert (await engine.verify()).problems == ()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which nothing is wrong."""
    path = tmp_path_factory.mktemp("sound") / "a.db"
    asyncio.run(_make(path))
    return path


@contextmanager
def _changed(sound: Path, path: Path) -> Iterator[sqlite3.Connection]:
    path.unlink(missing_ok=True)
    shutil.copy(sound, path)
    db = sqlite3.connect(path)
    try:
        yield db
        db.commit()
    finally:
        db.close()


async def _is_found(path: Path) -> bool:
    """Tell whether ``verify`` finds something, or the database is not even opened."""
    try:
        async with await create_checkpoint_engine(str(path), CONFIG) as engine:
            return not (await engine.verify()).ok
    except CheckpointError:
        return True


def _by_key(table: str) -> str:
    """Return the condition that names a row."""
    return " AND ".join(f"{column} = ?" for column in KEYS[table].split(", "))


def _flipped(value: Any) -> Any:
    if isinstance(value, bytes):
        middle = len(value) // 2
        return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
    return value ^ 1 if isinstance(value, int) else f"{value[:-1]}{chr(ord(value[-1]) ^ 1)}"


def _flip(db: sqlite3.Connection, table: str, column: str) -> None:
    """Flip a bit of a column of some row that has a value there."""
    where = f"\"{column}\" NOT IN ('', x'')"
    if (table, column) == ("batch", "pk"):  # nothing else names it: a batch is found by its place
        where = "pk IN (SELECT owner FROM blob_ref WHERE owner_kind = 0)"
    found = db.execute(f'SELECT "{column}", {KEYS[table]} FROM "{table}" WHERE {where}').fetchall()
    assert found, f"no {table} has a {column}"
    value, *key = found[len(found) // 2]
    text = f'UPDATE "{table}" SET "{column}" = ? WHERE {_by_key(table)}'
    try:
        db.execute(text, (_flipped(value), *key))
    except sqlite3.IntegrityError:  # there is such a row already
        db.execute(text, (value + 2**20, *key))


@pytest.mark.parametrize("table", NAMES)
async def test_a_flipped_bit_is_found_in_every_column(
    sound: Path, tmp_path: Path, table: str
) -> None:
    (kind,) = (kind for kind, t in TABLES.items() if t.name == table)
    missed = []
    for column in kind._fields:
        with _changed(sound, tmp_path / "b.db") as db:
            _flip(db, table, column)
        if not await _is_found(tmp_path / "b.db"):
            missed.append(column)
    assert missed == []


@pytest.mark.parametrize("table", NAMES)
async def test_every_missing_row_is_found(sound: Path, tmp_path: Path, table: str) -> None:
    with _changed(sound, tmp_path / "b.db") as db:
        keys = db.execute(f'SELECT {KEYS[table]} FROM "{table}"').fetchall()
    assert keys
    missed = []
    for key in keys:
        with _changed(sound, tmp_path / "b.db") as db:
            gone = db.execute(f'SELECT * FROM "{table}" WHERE {_by_key(table)}', key).fetchone()
            db.execute(f'DELETE FROM "{table}" WHERE {_by_key(table)}', key)
        if not await _is_found(tmp_path / "b.db"):
            missed.append(gone)
    assert missed == []


@pytest.mark.parametrize(("table", "rows"), [
    ("batch", "SELECT b.pk, b.body, t.name FROM batch b JOIN lineage l ON b.lineage = l.pk"),
    ("state", "SELECT s.pk, s.body, t.name FROM state s JOIN checkpoint c ON c.state = s.pk "
     "JOIN lineage l ON c.lineage = l.pk"),
    ("blob", "SELECT b.pk, b.body, t.name FROM blob b JOIN blob_ref r ON r.blob = b.pk "
     "AND r.owner_kind = 0 JOIN batch m ON r.owner = m.pk JOIN lineage l ON m.lineage = l.pk"),
])  # fmt: skip
async def test_damage_leads_to_the_threads_that_have_it(
    sound: Path, tmp_path: Path, table: str, rows: str
) -> None:
    with _changed(sound, tmp_path / "b.db") as db:
        found = db.execute(f"{rows} JOIN thread t ON l.thread = t.pk").fetchall()
        pk, body, thread = found[-1]
        db.execute(f"UPDATE {table} SET body = ? WHERE pk = ?", (_flipped(body), pk))
    async with await create_checkpoint_engine(str(tmp_path / "b.db"), CONFIG) as engine:
        problems = (await engine.verify()).problems
    assert any(p.kind == table and thread in p.threads for p in problems)
    assert all(p.threads for p in problems), "each of them leads somewhere"
