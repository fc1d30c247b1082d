"""A conversation that is left and taken up again very often stays cheap to read."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ckpt_engine import CheckpointEngine, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.ops.compacting import MOST

CONFIG = SnapshotConfig(logs=("events",), idle_seal_seconds=0)


def _pieces(path: Path) -> list[int]:
    db = sqlite3.connect(path)
    found = db.execute("SELECT pieces FROM lineage WHERE pieces IS NOT NULL").fetchall()
    db.close()
    return [len(pieces) for (raw,) in found for pieces in msgspec.msgpack.decode(raw).values()]


async def _add(engine: CheckpointEngine, thread: str, n: int, state: Any) -> str:
    state["events"].append(n)
    return str(await engine.snapshot(thread, append=[f"kept {n}", "x" * 5000], state=state))


@pytest.mark.parametrize("how", ["rewind", "branch"])
async def test_pieces_are_copied_together_now_and_then(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        state: dict[str, Any] = {"events": []}
        thread, told = "t", []
        for n in range(100):
            kept = await _add(engine, thread, n, state)
            told += [f"kept {n}", "x" * 5000]
            if how == "rewind":
                await engine.snapshot(thread, append=["is left"])
                await engine.rewind(kept)
            else:
                thread = (await engine.branch(kept, f"b{n}")).id
        assert 20 < max(_pieces(path)) <= MOST
        latest = await engine.get_latest(thread)
        assert (latest.messages, latest.state) == (told, {"events": list(range(100))})
        middle = await engine.time_travel_to_step(thread, 49)
        assert middle.messages == told[:100]
        assert (await engine.verify()).ok
