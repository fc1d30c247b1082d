"""Large values are stored once, however many checkpoints and threads hold them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import SnapshotConfig, create_checkpoint_engine

TOOLS = [{"name": f"tool {n}", "schema": {"n": n, "about": f"{n * n} " * 40}} for n in range(60)]
CONFIG = SnapshotConfig(idle_seal_seconds=0)


def _ask(path: Path, sql: str) -> Any:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchone()[0]
    finally:
        db.close()


@pytest.mark.parametrize(
    "given",
    [
        {"append": [{"role": "system", "content": "prompt " * 2000}]},
        {"append": [{"role": "system", "tools": TOOLS, "at": 1}]},
        {"append": ["hello"], "state": {"tools": TOOLS, "n": 1}},
        {"append": ["hello"], "state": {"document": {"pages": TOOLS, "title": "t"}}},
        {"append": ["hello"], "tools_result": {"page": "words " * 1000}},
    ],
    ids=["prompt", "schemas in a message", "schemas in the state", "document", "result"],
)
async def test_threads_share_large_values(tmp_path: Path, given: dict[str, Any]) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        for n in range(10):
            taken = await engine.snapshot(f"thread {n}", **given)
            await engine.snapshot(f"thread {n}", append=["on"], state=given.get("state"))
        assert _ask(path, "SELECT count(*) FROM blob") == 1
        assert _ask(path, "SELECT max(length(body)) FROM batch") < 500
        assert (_ask(path, "SELECT max(length(body)) FROM state") or 0) < 500
        for n in range(9):
            await engine.forget(session_id=f"thread {n}")
        found = await engine.get(str(taken))
        for name in given:
            assert getattr(found, "messages" if name == "append" else name) == given[name]
        assert (await engine.verify()).ok
        await engine.forget(session_id="thread 9")
        assert _ask(path, "SELECT count(*) FROM blob") == 0


async def test_a_large_value_that_changes_costs_what_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        notes = [f"note {n * n} " * 20 for n in range(50)]
        for n in range(60):
            notes.append(f"new {n}")
            await engine.snapshot("t", state={"notes": notes})
        assert _ask(path, "SELECT count(*) FROM blob") == 1
        # the first is shared, the second is where it is whole, and every 32nd
        assert _ask(path, "SELECT count(*) FROM state WHERE length(body) > 400") <= 4
        first, last = await engine.time_travel_to_step("t", 0), await engine.get_latest("t")
        assert (len(first.state["notes"]), last.state["notes"]) == (51, notes)


async def test_equal_values_differ_in_nothing_however_they_are_kept(tmp_path: Path) -> None:
    async with await create_checkpoint_engine(str(tmp_path / "a.db"), CONFIG) as engine:
        first = str(await engine.snapshot("t", state={"tools": TOOLS}))
        await engine.snapshot("t", state={"tools": TOOLS[1:]})
        again = str(await engine.snapshot("t", state={"tools": TOOLS}))
        assert (await engine.diff(first, again)).state == ()


async def test_a_declared_log_costs_what_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(idle_seal_seconds=0, logs=("events",))
    async with await create_checkpoint_engine(str(path), config) as engine:
        events: list[Any] = []
        for n in range(200):
            events.append({"event": n})
            await engine.snapshot("t", state={"events": events, "n": n})
        assert _ask(path, "SELECT max(length(body)) FROM batch WHERE log = 'events'") < 30
        assert _ask(path, "SELECT max(length(body)) FROM state") < 60
        for n in (0, 63, 199):
            found = await engine.time_travel_to_step("t", n)
            assert found.state == {"events": events[: n + 1], "n": n}
