"""What ``verify`` finds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ckpt_engine import StepCommit, WorkflowRun, create_checkpoint_engine, new_checkpoint_id
from ckpt_engine.store import TABLES

COLUMNS = {
    "thread": "head",
    "head_move": "to_id",
    "lineage": "pieces",
    "checkpoint": "meta",
    "edge": "parent",
    "batch": "body",
    "state": "body",
    "blob": "body",
    "blob_ref": "owner",
    "tag": "name",
    "pin": "owner",
    "run": "workflow_id",
    "meta": "value",
}


async def _filled(path: Path) -> None:
    """Write rows of every kind."""
    async with await create_checkpoint_engine(str(path)) as engine:
        ids = [
            str(
                await engine.snapshot(
                    "t",
                    append=[{"n": n}],
                    state={"n": n, "s": "x" * 80 + str(n)},
                    metadata={"m": n},
                )
            )
            for n in range(5)
        ]
        await engine.snapshot("t", append=[{"large": "0123456789" * 1000}])
        await engine.rewind(ids[2])
        await engine.snapshot("t", append=["after"])
        await engine.tag(ids[1], "best")
        await engine.pin([ids[1]], "owner", ttl_seconds=600)
        await engine.register_run(
            "t",
            WorkflowRun(
                namespace="n", workflow_id="w", run_id="r", workflow_type="T", task_queue="q"
            ),
        )
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
        assert (await engine.verify()).ok


async def _problems(path: Path) -> int:
    async with await create_checkpoint_engine(str(path)) as engine:
        return len((await engine.verify()).problems)


def _flip(value: object) -> object:
    if isinstance(value, bytes):
        middle = len(value) // 2
        return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
    if isinstance(value, int):
        return value ^ 1
    return f"{value}x"


@pytest.mark.parametrize(
    "table", [t.name for t in TABLES.values() if t.name != "meta" and t.name != "tombstone"]
)
async def test_a_flipped_byte_is_found(tmp_path: Path, table: str) -> None:
    path, column = tmp_path / "a.db", COLUMNS[table]
    await _filled(path)
    db = sqlite3.connect(path)
    found = db.execute(
        f'SELECT rowid, "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL LIMIT 1'
    ).fetchone()
    db.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (_flip(found[1]), found[0]))
    db.commit()
    db.close()
    assert await _problems(path) > 0


@pytest.mark.parametrize(
    "table", [t.name for t in TABLES.values() if t.name not in ("meta", "tombstone")]
)
async def test_a_missing_row_is_found(tmp_path: Path, table: str) -> None:
    path = tmp_path / "a.db"
    await _filled(path)
    db = sqlite3.connect(path)
    db.execute(f'DELETE FROM "{table}" WHERE rowid = (SELECT max(rowid) FROM "{table}")')
    db.commit()
    db.close()
    assert await _problems(path) > 0
