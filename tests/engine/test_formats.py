"""What an older release has written can be read and gone on from."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import (
    CheckpointEngine,
    SchemaMismatch,
    SnapshotConfig,
    codec,
    create_checkpoint_engine,
)
from ckpt_engine.quickstart import database_version

FORMATS = Path(__file__).with_name("formats")
CONFIG = SnapshotConfig(logs=("events",), idle_seal_seconds=0)
PROMPT = "You are a helpful agent. " * 300
TOOLS = [
    {"name": f"tool {n}", "schema": {"type": "object", "n": n, "x": "y" * 90}} for n in range(50)
]


def given(n: int) -> dict[str, Any]:
    """Return what the n-th checkpoint was given; a row of every kind comes of some of them."""
    message = {"role": "user", "content": f"message {n}"}
    return {
        "messages": [{"role": "system", "content": PROMPT, "tools": TOOLS}]
        + [{"role": "user", "content": f"message {k}"} for k in range(n + 1)],
        "state": {
            "n": n,
            "tools": TOOLS,
            "list": list(range(n)),
            "events": [{"at": k} for k in range(n)],
        },
        "tools_result": [None, message, n, {"text": PROMPT}, f"other {n} " * 20][n % 5],
        "metadata": {"cost": n / 2},
        "summary": f"step {n}",
    }


async def write(engine: CheckpointEngine) -> None:
    """Write what the files in ``formats`` hold: a thread, half of it packed, and a branch."""
    for n in range(40):
        await engine.snapshot("t", **given(n))
    await engine.optimize()
    for n in range(40, 45):
        await engine.snapshot("t", **given(n))
    origin = (await engine.time_travel_to_step("t", 20)).id
    branch = await engine.branch(origin, "side")
    await engine.snapshot(branch.id, **given(21))


async def _check(engine: CheckpointEngine, thread: str, upto: int) -> None:
    for n in range(upto):
        found = await engine.time_travel_to_step(thread, n)
        expected = given(n)
        for name in ("messages", "state", "tools_result", "summary"):
            assert getattr(found, name) == expected[name], (n, name)
        assert found.metadata["cost"] == n / 2


@pytest.mark.parametrize("dump", sorted(FORMATS.glob("*.sql")), ids=lambda path: path.stem)
async def test_an_older_format_is_read_and_gone_on_from(tmp_path: Path, dump: Path) -> None:
    path = tmp_path / "old.db"
    db = sqlite3.connect(path)
    db.executescript(dump.read_text())
    db.close()
    await database_version(f"sqlite:///{path}", upgrade=True)
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        await _check(engine, "t", 45)
        await _check(engine, "t/side", 22)
        for n in range(45, 50):
            await engine.snapshot("t", **given(n))
        await _check(engine, "t", 50)
        await engine.optimize()
        await _check(engine, "t", 50)
        assert (await engine.verify()).problems == ()


async def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with await create_checkpoint_engine(str(path)) as engine:
        taken = str(await engine.snapshot("t", append=["x"]))
        await engine.snapshot("t", append=["y"])
    newer = codec.versioned(codec.RAW) + 16
    db = sqlite3.connect(path)
    db.execute("UPDATE batch SET codec = ?", [newer])
    db.commit()
    db.close()
    async with await create_checkpoint_engine(str(path)) as engine:
        with pytest.raises(SchemaMismatch, match=f"format {newer >> 4}.*upgrade"):
            await engine.get(taken)
        assert not (await engine.verify()).ok
