"""What one agent alone writes, step after step, is committed without a way to another thread."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from ckpt_engine import CheckpointEngine, SnapshotConfig, StoreBusy, create_checkpoint_engine
from ckpt_engine.store import Expect, Meta, Tx
from ckpt_engine.stores import in_place
from ckpt_engine.stores.in_place import InPlace
from ckpt_engine.stores.sql import SqlStore

SMALL = Expect(("a",), (), 100)
HERE, THERE = threading.main_thread().name, "ckpt-write"


def after(commits: int, expect: Expect = SMALL, took: float = 0.0002) -> InPlace:
    """Return what is known after some commits, one each millisecond of the first seconds."""
    known = InPlace()
    for number in range(commits):
        known.note([expect], took, number / 1000)
    return known


def test_one_thread_alone_commits_in_place_after_a_few_quick_commits() -> None:
    assert not after(4).fits(SMALL, 0.01)
    assert after(5).fits(SMALL, 0.01)


@pytest.mark.parametrize(
    "expect",
    [
        None,
        Expect(("b",), (), 100),
        Expect(("a",)),
        Expect(("a",), (), 10_000_000),
    ],
    ids=["anything", "another thread's", "of unknown size", "large"],
)
def test_other_writes_do_not(expect: Expect | None) -> None:
    assert not after(100).fits(expect, 0.1)


def test_a_slow_disk_is_never_waited_for_in_place() -> None:
    assert not after(100, took=0.01).fits(SMALL, 0.1)


def test_one_slow_commit_sends_the_next_ones_to_the_thread() -> None:
    known = after(100)
    known.made(SMALL, 0.01, 0.11)
    for number in range(4):
        assert not known.fits(SMALL, 0.12)
        known.note([SMALL], 0.0002, 0.12 + number / 1000)
    assert known.fits(SMALL, 0.13)


def test_whatever_was_in_the_way_sends_the_next_ones_to_the_thread() -> None:
    known = after(100)
    known.failed()
    assert not known.fits(SMALL, 0.11)


def test_several_agents_share_transactions_on_the_thread() -> None:
    known = after(100)
    known.note([SMALL, Expect(("b",), (), 100)], 0.0002, 0.11)
    assert not known.fits(SMALL, 0.12)
    for number in range(100):
        known.note([Expect((f"agent {number % 2}",), (), 100)], 0.0002, 0.2 + number / 1000)
        assert not any(known.fits(Expect((f"agent {n}",), (), 100), 0.31) for n in range(2))


def test_packing_beside_a_step_says_nothing() -> None:
    known = after(100)
    known.note([SMALL, Expect(("a",))], 0.0005, 0.11)
    known.note([Expect(("a",))], 0.02, 0.12)
    assert known.fits(SMALL, 0.13)


@pytest.mark.parametrize("other", [None, Expect(("b",)), Expect(("b",), (), 10_000_000)])
def test_whatever_another_agent_writes_sends_the_next_ones_to_the_thread(
    other: Expect | None,
) -> None:
    beside, between = after(100), after(100)
    beside.note([SMALL, other], 0.0005, 0.11)
    between.note([other], 0.0005, 0.11)
    assert not beside.fits(SMALL, 0.12)
    assert not between.fits(SMALL, 0.12)


def test_after_a_pause_nobody_knows_how_quick_the_disk_is() -> None:
    assert not after(100).fits(SMALL, 2.0)


def test_the_log_is_written_back_before_sqlite_does_it_within_a_commit() -> None:
    for size in (0, 2_000, 60_000):
        known = InPlace()
        expect = Expect(("a",), (), size)
        commits = next(n for n in itertools.count(1) if known.made(expect, 0.0002, n / 1000))
        assert 500 < commits * (8 + size / 4096) <= 1_000
        assert not known.made(expect, 0.0002, 1.0), "counting begins anew"


def test_others_have_their_turn_a_millisecond_after_the_last() -> None:
    known = InPlace()
    due = [known.turn_is_due(1.0 + number * 0.0004) for number in range(7)]
    assert due == [True, False, False, True, False, False, True]


@pytest.fixture
def any_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every disk count as quick: the limits are tested above."""
    monkeypatch.setattr(in_place, "_QUICK", 60.0)
    monkeypatch.setattr(in_place, "_PAUSE", 60.0)


@asynccontextmanager
async def engine_at(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[CheckpointEngine, list[str]]]:
    """Open an engine, and a list to which each commit adds the name of its thread."""
    url = f"sqlite:///{folder}/in-place.db"
    async with await create_checkpoint_engine(url, config=SnapshotConfig(**options)) as engine:
        yield engine, commits_of(cast("SqlStore", engine._store))


def commits_of(store: SqlStore) -> list[str]:
    commits: list[str] = []

    def trace(sql: str) -> None:
        if sql == "COMMIT":
            commits.append(threading.current_thread().name)

    store._writer.set_trace_callback(trace)
    return commits


async def until_in_place(step: Callable[[], Any], commits: list[str]) -> int:
    """Take steps until one is committed in place; return how many."""
    for number in range(1, 100):
        await step()
        if commits[-1] == HERE:
            return number
    raise AssertionError("a hundred steps in a row, and none was committed in place")


@pytest.mark.usefixtures("any_disk")
async def test_snapshots_of_one_agent_are_committed_in_place_and_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "_HELD", 0.0)
    async with engine_at(tmp_path) as (engine, commits):
        turns, ids = list[int](), list[str]()  # turns of the other task since each step

        async def step() -> None:
            turns.append(0)
            made = await engine.snapshot(
                "a", append=[f"message {len(ids)}"], state={"step": len(ids)}
            )
            assert made is not None
            ids.append(made)

        async def other() -> None:
            while True:
                turns[-1] += 1
                await asyncio.sleep(0)

        await step()
        beside = asyncio.create_task(other())
        await until_in_place(step, commits)
        for _ in range(20):
            await until_in_place(step, commits)
        beside.cancel()
        assert all(turns[1:]), "another task ran between any two steps"
        assert set(commits) == {HERE, THERE}
        for number, made in enumerate(ids):
            found = await engine.get(made)
            assert found.messages == [f"message {n}" for n in range(number + 1)]
            assert found.state == {"step": number}
        assert (await engine.verify()).problems == ()


@pytest.mark.usefixtures("any_disk")
async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    async with engine_at(tmp_path, in_place=False) as (engine, commits):
        for number in range(50):
            await engine.snapshot("a", append=[number])
        assert set(commits) == {THERE}


@pytest.mark.usefixtures("any_disk")
async def test_what_is_more_than_adding_rows_goes_to_the_thread(tmp_path: Path) -> None:
    async with engine_at(tmp_path) as (engine, commits):
        number, large = itertools.count(), os.urandom(100_000).hex()

        async def step() -> None:
            await engine.snapshot("a", append=[next(number)])

        for change in (
            {"append": [large]},
            {"messages": ["another conversation"]},
            {"append": [1], "state": {"large": large}},
            {"append": [1], "tools_result": {"large": large}},
            {
                "append": [1],
                "metadata": {"large": [large[n : n + 100] for n in range(0, 100_000, 100)]},
            },
            {"append": [1], "tags": [f"tag {n}" for n in range(1_000)]},
        ):
            await until_in_place(step, commits)
            await engine.snapshot("a", **change)
            assert commits[-1] == THERE, change
        await until_in_place(step, commits)
        older = (await engine.list_time_travel_points("a"))[0].id
        await engine.snapshot("a", append=[0], parent_checkpoint_id=older)
        assert commits[-1] == THERE
        await until_in_place(step, commits)
        await engine.branch((await engine.get_latest("a")).id, "other")
        assert commits[-1] == THERE


@asynccontextmanager
async def store_in_place(folder: Path) -> AsyncIterator[tuple[SqlStore, list[str]]]:
    """Open a store that has just committed a write in place."""
    store = await SqlStore.open(str(folder / "in-place.db"), busy_timeout=60.0)
    commits = commits_of(store)
    names = itertools.count()
    try:
        await until_in_place(
            lambda: store.write(lambda tx: put(tx, f"before {next(names)}"), SMALL), commits
        )
        yield store, commits
    finally:
        await store.close()


def put(tx: Tx, key: str) -> str:
    tx.insert(Meta(key, ""))
    return key


def put_half(tx: Tx, error: BaseException) -> None:
    put(tx, "half")
    assert tx.count(Meta, key="half") == 1
    raise error


@pytest.mark.usefixtures("any_disk")
async def test_the_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    async with store_in_place(tmp_path) as (store, commits):
        with closing(sqlite3.connect(tmp_path / "in-place.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.create_task(store.write(lambda tx: put(tx, "waits"), SMALL))
            done, _ = await asyncio.wait([write], timeout=0.05)
            assert not done
            other.execute("ROLLBACK")
        assert await write == "waits"
        assert commits[-1] == THERE


@pytest.mark.usefixtures("any_disk")
async def test_who_comes_while_the_thread_is_at_work_waits_in_its_queue(tmp_path: Path) -> None:
    async with store_in_place(tmp_path) as (store, commits):
        may, begun = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(tx: Tx) -> str:
            loop.call_soon_threadsafe(begun.set)
            may.wait()
            return put(tx, "slow")

        first = asyncio.create_task(store.write(slow))
        await begun.wait()
        second = asyncio.create_task(store.write(lambda tx: put(tx, "second"), SMALL))
        await asyncio.sleep(0)
        may.set()
        assert [await first, await second] == ["slow", "second"]
        assert commits[-2:] == [THERE, THERE]


@pytest.mark.usefixtures("any_disk")
async def test_what_fails_in_place_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async with store_in_place(tmp_path) as (store, commits):
        with pytest.raises(ZeroDivisionError):
            await store.write(partial(put_half, error=ZeroDivisionError()), SMALL)

        def refused(_: Tx) -> None:
            raise StoreBusy("refused")

        await until_in_place(lambda: store.write(lambda tx: None, SMALL), commits)
        with pytest.raises(StoreBusy, match="refused"):
            await store.write(refused, SMALL)
        assert commits[-1] == HERE
        assert await store.write(lambda tx: put(tx, "after"), SMALL) == "after"
        assert await store.read(lambda tx: tx.count(Meta, key="half")) == 0


@pytest.mark.usefixtures("any_disk")
async def test_who_is_cancelled_in_place_has_written_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "_HELD", 0.0)
    async with store_in_place(tmp_path) as (store, commits):
        write = asyncio.create_task(store.write(lambda tx: put(tx, "cancelled"), SMALL))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        assert commits[-1] == HERE
        assert await store.read(lambda tx: tx.count(Meta, key="cancelled")) == 1
        assert await store.write(lambda tx: put(tx, "after"), SMALL) == "after"


@pytest.mark.usefixtures("any_disk")
async def test_the_log_stays_short_however_much_is_committed_in_place(tmp_path: Path) -> None:
    async with engine_at(tmp_path) as (engine, commits):
        for number in range(600):
            await engine.snapshot("a", append=[{"n": number, "text": f"{number} " * 500}])
        assert commits.count(HERE) > 0
        assert (tmp_path / "in-place.db-wal").stat().st_size < 6_000_000


class _Interrupted(BaseException):
    """What a signal's handler raises, as that of Ctrl-C does."""


@pytest.mark.usefixtures("any_disk")
async def test_a_signal_whose_handler_raises_leaves_neither_a_lock_nor_a_transaction(
    tmp_path: Path,
) -> None:
    async with store_in_place(tmp_path) as (store, commits):
        with pytest.raises(_Interrupted):
            await store.write(partial(put_half, error=_Interrupted()), SMALL)
        # as it is left where the handler raises right after the transaction was begun
        store._writer.execute("BEGIN IMMEDIATE")
        assert await store.write(lambda tx: put(tx, "in place"), SMALL) == "in place"
        assert commits[-1] == HERE
        store._writer.execute("BEGIN IMMEDIATE")
        assert await store.write(lambda tx: put(tx, "on the thread")) == "on the thread"
        assert commits[-1] == THERE
        assert await store.read(lambda tx: tx.count(Meta, key="half")) == 0
