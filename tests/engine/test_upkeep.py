"""What the engine does by itself, beside the agents' work."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest

from ckpt_engine import (
    KEEP_LAST_N,
    CheckpointEngine,
    SnapshotConfig,
    create_checkpoint_engine,
)
from ckpt_engine.ops import collecting
from ckpt_engine.retention import Candidates, RetentionPolicy


def _noise(n: int) -> str:
    return "".join(random.Random(n).choices(ascii_letters, k=3000))


async def _until_small(path: Path, most: int) -> None:
    while path.stat().st_size > most:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("idle", [0.05, 0])
async def test_space_comes_back_by_itself(tmp_path: Path, idle: float) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(retention=KEEP_LAST_N(2), idle_seal_seconds=idle)
    async with await create_checkpoint_engine(str(path), config) as engine:
        for n in range(300):
            await engine.snapshot("t", messages=[_noise(n)])
        assert path.stat().st_size + path.with_name("a.db-wal").stat().st_size > 500_000
        await asyncio.wait_for(_until_small(path, 400_000), 30)
        assert (await engine.get_latest("t")).messages == [_noise(299)]
        assert (await engine.verify()).ok


async def _until_left(engine: CheckpointEngine, thread: str, count: int) -> None:
    while len(await engine.list_time_travel_points(thread, limit=None)) > count:
        await asyncio.sleep(0.02)


async def test_a_session_that_comes_to_rest_is_collected_however_short(tmp_path: Path) -> None:
    config = SnapshotConfig(retention=KEEP_LAST_N(2), idle_seal_seconds=0.05)
    async with await create_checkpoint_engine(str(tmp_path / "a.db"), config) as engine:
        for n in range(5):
            await engine.snapshot("t", append=[n])
        await asyncio.wait_for(_until_left(engine, "t", 2), 30)


async def test_a_long_session_is_not_read_again_for_each_few_that_come_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    plan = collecting._plan

    def counted(*args: Any, **given: Any) -> Any:
        nonlocal looked
        looked += 1
        return plan(*args, **given)

    monkeypatch.setattr(collecting, "_plan", counted)
    url, policy = str(tmp_path / "a.db"), KEEP_LAST_N(2000)
    async with await create_checkpoint_engine(url) as engine:
        for n in range(2000):
            await engine.snapshot("t", append=[n])
    for _ in range(60):  # a process for each message
        async with await create_checkpoint_engine(url, SnapshotConfig(retention=policy)) as engine:
            await engine.snapshot("t", append=["more"])
    assert looked < 15


async def test_the_file_gets_shorter_after_a_collection_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(idle_seal_seconds=0)
    async with await create_checkpoint_engine(str(path), config) as engine:
        for n in range(300):
            await engine.snapshot("t", messages=[_noise(n)])
        report = await engine.collect(KEEP_LAST_N(2), thread_id="t")
        assert report.bytes_freed > 500_000
        await asyncio.wait_for(_until_small(path, 400_000), 30)


async def test_a_log_that_was_long_is_cut_and_one_of_common_length_is_used_again(
    tmp_path: Path,
) -> None:
    log = tmp_path / "a.db-wal"
    async with await create_checkpoint_engine(str(tmp_path / "a.db")) as engine:
        await engine.snapshot("t", append=[[_noise(n) for n in range(3000)]])
        assert log.stat().st_size > 5_000_000
        await engine.optimize()
        assert log.stat().st_size > 0
        await engine.snapshot("t", append=["next"])
        assert log.stat().st_size < 4_300_000


async def test_blocks_that_are_mostly_dead_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(idle_seal_seconds=0)
    async with await create_checkpoint_engine(str(path), config) as engine:
        ids = [str(await engine.snapshot("t", append=[_noise(n)])) for n in range(32)]
        await engine.optimize()
        branch = await engine.branch(ids[5], "side")  # needs the first six of the one block
        await engine.snapshot("t", messages=["all else is replaced"])
        before = path.stat().st_size
        report = await engine.collect(KEEP_LAST_N(1), session_id="t")
        await engine.optimize()
        assert len(report.dropped) == 31
        assert before - path.stat().st_size > 24 * 2000
        assert (await engine.get_latest(branch.id)).messages == [_noise(n) for n in range(6)]
        assert (await engine.verify()).ok


def test_an_engine_goes_on_in_another_event_loop(tmp_path: Path) -> None:
    """As in a notebook, or a script that calls ``asyncio.run`` for each thing it does."""
    path = tmp_path / "a.db"
    config = SnapshotConfig(retention=KEEP_LAST_N(2), idle_seal_seconds=0.05)

    async def first() -> CheckpointEngine:
        engine = await create_checkpoint_engine(str(path), config)
        await engine.snapshot("t", append=["first"])
        return engine

    async def second(engine: CheckpointEngine) -> None:
        for n in range(300):
            await engine.snapshot("t", messages=[_noise(n)])
        await asyncio.wait_for(_until_small(path, 400_000), 30)
        assert (await engine.verify()).ok

    engine = asyncio.run(first())
    asyncio.run(second(engine))
    asyncio.run(engine.close())


async def test_optimizing_waits_for_another_process_that_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path)) as engine:
        for n in range(50):
            await engine.snapshot("t", messages=[_noise(n)])
        await engine.collect(KEEP_LAST_N(1))
        await engine.snapshot("t", messages=[_noise(50)])
        await engine.collect(KEEP_LAST_N(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            report = asyncio.create_task(engine.optimize())
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.3)
            other.execute("ROLLBACK")
            assert (await report).size_after > 0


async def test_a_policy_that_fails_keeps_the_upkeep_going(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RetentionPolicy):
        called = 0

        def kept(self, checkpoints: Candidates, now: datetime) -> list[int]:
            self.called += 1
            raise LookupError("no such milestone")

    policy = Broken()
    config = SnapshotConfig(retention=policy)
    async with await create_checkpoint_engine(str(tmp_path / "a.db"), config) as engine:

        async def until(calls: int) -> None:
            while policy.called < calls:
                await engine.snapshot("t", append=["more"])

        await asyncio.wait_for(until(2), 30)
        await engine.snapshot("t", append=["last"])
    assert "failed: LookupError: no such milestone" in caplog.text
    caplog.clear()
