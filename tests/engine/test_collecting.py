"""Between the plan of a collection and its sweep others go on; and what a plan is made from."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import (
    KEEP_AGE,
    KEEP_LAST_N,
    KEEP_MILESTONES,
    CheckpointEngine,
    create_checkpoint_engine,
)
from ckpt_engine.errors import CheckpointNotFound, Corrupted, InvalidRequest
from ckpt_engine.model import StepCommit, new_checkpoint_id
from ckpt_engine.ops import collecting
from ckpt_engine.ops.place import StaleError
from ckpt_engine.ops.session import load
from ckpt_engine.ops.source import Source
from ckpt_engine.retention import Candidates, RetentionPolicy
from ckpt_engine.store import CheckpointRow, StateRow, Tx
from ckpt_engine.stores import sqlite

from .test_schema import url_of

Deed = Callable[[CheckpointEngine, list[str]], Awaitable[Any]]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CheckpointEngine]:
    url = "memory:" if request.param == "memory" else url_of(request.param, tmp_path)
    async with await create_checkpoint_engine(url) as engine:
        yield engine


async def _step(engine: CheckpointEngine, step: int, *parents: str, **given: Any) -> str:
    commit = StepCommit(
        checkpoint_id=new_checkpoint_id(),
        thread_id="t",
        step=step,
        parents=parents,
        append=[f"step {step}"],
        state_set={"step": step},
        **given,
    )
    return (await engine.commit_step(commit)).checkpoint_id


async def _filled(engine: CheckpointEngine) -> list[str]:
    """Take eight steps in a row, two side by side, and one that joins them; return their ids."""
    await engine.create_thread("t")
    ids = [await _step(engine, 0)]
    for n in range(1, 8):
        ids.append(await _step(engine, n, ids[-1]))
    ids += [await _step(engine, 8, ids[7]), await _step(engine, 9, ids[7], first=False)]
    ids.append(await _step(engine, 10, ids[8], ids[9]))
    return ids


DEEDS: dict[str, Deed] = {
    "a tag": lambda engine, ids: engine.tag(ids[3], "good"),
    "a pin": lambda engine, ids: engine.pin([ids[3]], "someone", ttl_seconds=60),
    "a branch": lambda engine, ids: engine.branch(ids[3], "side"),
    "a rewind": lambda engine, ids: engine.rewind(ids[3]),
    "a snapshot": lambda engine, ids: engine.snapshot("t", parent_checkpoint_id=ids[3]),
    "a step after one that others followed": lambda engine, ids: _step(engine, 11, ids[3]),
    "a step after one that was joined": lambda engine, ids: _step(engine, 11, ids[9]),
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_came_to_be_needed_since_the_plan_is_not_swept(
    engine: CheckpointEngine, deed: str
) -> None:
    ids = await _filled(engine)
    (session,) = await engine._read(partial(collecting._sessions, name="t"))
    plan = await engine._read(
        partial(collecting._plan, session=session, policy=KEEP_LAST_N(1), only=None)
    )
    assert len(plan.ids) == 10
    await DEEDS[deed](engine, ids)
    with pytest.raises(StaleError):
        await engine._sweep(plan, [])
    for n in range(8):
        assert (await engine.get(ids[n])).messages == [f"step {k}" for k in range(n + 1)]
    assert (await engine.verify()).problems == ()
    report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
    assert 0 < len(report.dropped) < 10
    assert (await engine.verify()).problems == ()


async def test_two_that_collect_at_once_count_right(engine: CheckpointEngine) -> None:
    await _filled(engine)
    (session,) = await engine._read(partial(collecting._sessions, name="t"))
    plan = await engine._read(
        partial(collecting._plan, session=session, policy=KEEP_LAST_N(1), only=None)
    )
    await engine.collect(KEEP_LAST_N(3), thread_id="t")
    with pytest.raises(StaleError):
        await engine._sweep(plan, [])
    assert (await engine.verify()).problems == ()
    await engine.collect(KEEP_LAST_N(1), thread_id="t")
    assert (await engine.verify()).problems == ()


@pytest.mark.parametrize("parts", [1, 2, 3])
async def test_a_sweep_that_is_overtaken_half_way_reports_and_removes_everything(
    engine: CheckpointEngine, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(collecting, "_CHUNK", 3)
    drop, overtaken = collecting._drop, False

    def some(tx: Tx, *, start: int, **given: Any) -> None:
        nonlocal overtaken
        if start == 3 * parts and not overtaken:
            overtaken = True
            raise StaleError
        drop(tx, start=start, **given)

    monkeypatch.setattr(collecting, "_drop", some)
    plan = {"plan": ["look", "think", "act"] * 20}
    ids = [await engine.snapshot("t", state={**plan, "n": n // 2}) for n in range(12)]
    ids.append(await engine.snapshot("t", messages=["anew"], state={**plan, "n": 0}))
    report = await engine.collect(KEEP_LAST_N(1))
    assert overtaken
    assert list(report.dropped) == ids[:-1]
    named = await engine._store.read(lambda tx: tx.columns(StateRow, "pk", "base"))
    (kept,) = await engine._store.read(lambda tx: tx.columns(CheckpointRow, "state"))
    assert set(named[0]) == {*kept, *named[1]} - {None}, "each is needed by something"
    assert (await engine.get_latest("t")).state == {**plan, "n": 0}
    await engine.forget(session_id="t")
    assert await engine._store.read(lambda tx: tx.count(StateRow)) == 0


async def test_a_parent_of_a_join_stays_known_where_the_first_line_is_gone(
    engine: CheckpointEngine,
) -> None:
    """The nearest kept one of another line takes the place of one that is dropped."""
    await engine.create_thread("t")
    root = await _step(engine, 0)
    x = await _step(engine, 1, root)
    y0 = await _step(engine, 2, root, first=False)
    y = await _step(engine, 3, y0)
    z = await _step(engine, 4, root, first=False)
    join = await _step(engine, 5, x, y, z)
    await _step(engine, 6, join)
    for n, kept in enumerate((y0, y, z, join)):
        await engine.tag(kept, f"tag {n}")
    await engine.collect(KEEP_LAST_N(1), session_id="t")
    assert (await engine.get_info(join)).parents == (root, y, z)  # y and z meet in the root
    for tag, parents in (("tag 1", (root, y0, z)), ("tag 0", (z,)), ("tag 2", ())):
        await engine.untag("t", tag)
        await engine.collect(KEEP_LAST_N(1), session_id="t")
        assert (await engine.get_info(join)).parents == parents
        assert (await engine.verify()).problems == ()


async def test_what_follows_a_join_keeps_its_only_parent_when_the_join_goes(
    engine: CheckpointEngine,
) -> None:
    await engine.create_thread("t")
    root = await _step(engine, 0)
    x = await _step(engine, 1, root)
    y = await _step(engine, 2, root, first=False)
    join = await _step(engine, 3, x, y)
    last = await _step(engine, 4, join)
    await engine.tag(y, "y")
    await engine.tag(join, "join")
    await engine.collect(KEEP_LAST_N(1), session_id="t")
    assert (await engine.get_info(join)).parents == (y,)
    await engine.untag("t", "join")
    await engine.collect(KEEP_LAST_N(1), session_id="t")
    assert (await engine.get_info(last)).parents == (y,)
    assert (await engine.verify()).problems == ()


async def test_many_pins_are_no_matter(engine: CheckpointEngine) -> None:
    ids = [str(await engine.snapshot("t", append=[n])) for n in range(6)]
    for n in range(50):
        await engine.pin(ids[2:4], f"owner {n}", ttl_seconds=60)
    report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
    assert report.dropped == (ids[0], ids[1], ids[4])
    for n in range(50):
        await engine.unpin(f"owner {n}")
    assert (await engine.collect(KEEP_LAST_N(1), thread_id="t")).dropped == (ids[2], ids[3])
    assert (await engine.verify()).problems == ()


@pytest.mark.parametrize("runs", [1, 2, 16, 17, 40])
async def test_what_is_dropped_in_runs_goes_and_nothing_else(
    engine: CheckpointEngine, runs: int
) -> None:
    ids = [str(await engine.snapshot("t", append=[n])) for n in range(3 * runs + 1)]
    for at in range(0, len(ids), 3):
        await engine.tag(ids[at], f"tag {at}")
    report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
    assert report.dropped == tuple(i for at, i in enumerate(ids) if at % 3)
    points = await engine.list_time_travel_points("t")
    assert [point.id for point in points] == ids[::-3]
    assert (await engine.verify()).problems == ()


async def test_an_older_sqlite_that_ends_at_a_zero_byte_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await create_checkpoint_engine(tmp_path / "ckpt.db") as engine:
        ids = [str(await engine.snapshot("t", append=[n])) for n in range(9)]
        reports = []
        for keeps in (True, False):
            monkeypatch.setattr(sqlite, "_keeps_bytes", lambda keeps=keeps: keeps)
            sqlite._lists_sql.cache_clear()
            reports.append(await engine.collect(KEEP_LAST_N(2), dry_run=True))
        sqlite._lists_sql.cache_clear()
        assert reports[0] == reports[1]
        assert reports[0].dropped == tuple(ids[:7])


@pytest.mark.parametrize("who", ["the same engine", "another one"])
async def test_a_parent_that_was_collected_is_not_gone_on_from(tmp_path: Path, who: str) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    async with (
        await create_checkpoint_engine(url) as engine,
        await create_checkpoint_engine(url) as other,
    ):
        ids = await _filled(engine)
        await (engine if who == "the same engine" else other).collect(KEEP_LAST_N(1))
        with pytest.raises(CheckpointNotFound, match=ids[3]):
            await engine.snapshot("t", parent_checkpoint_id=ids[3])
        with pytest.raises(CheckpointNotFound, match=ids[3]):
            await _step(engine, 11, ids[3])
        fallen_back = await _step(engine, 11, ids[3], fallback_to_head=True)
        found = await engine.get(fallen_back)
        assert (found.parents, found.metadata) == ((ids[10],), {"gap": [ids[3]]})
        assert (await engine.verify()).problems == ()


async def test_a_sweep_of_several_writes_drops_the_whole_plan(
    engine: CheckpointEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "_CHUNK", 3)
    ids = await _filled(engine)
    report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
    assert set(report.dropped) == set(ids[:10])
    assert (await engine.get(ids[10])).state["step"] == 10
    states = await engine._store.read(lambda tx: tx.count(StateRow))
    assert states < 5, "states that only the dropped ones had are still there"
    assert (await engine.verify()).problems == ()


async def test_a_plan_knows_the_parents_that_reading_finds(engine: CheckpointEngine) -> None:
    """Also those that an earlier collection has left to be found by position."""
    ids = await _filled(engine)
    side = await engine.branch(ids[4], "side")
    for n in range(6):
        await engine.snapshot(side.id, append=[n])
    await engine.branch(ids[4], "bare")
    await engine.snapshot("t", messages=["all else is replaced"])
    await engine.merge_branch(side.id, "t", strategy="ours")
    await engine.snapshot("t", append=["more"])

    def parents(source: Source) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        session = load(source.tx, source.thread("t").session)
        cids = session.cids
        planned = {cid: [cids[p] for p in session.parents(n)] for n, cid in enumerate(cids)}
        rows = source.tx.find(CheckpointRow)
        return planned, {row.cid: [p.cid for p in source.parents(row)] for row in rows}

    for policy in (KEEP_LAST_N(99), KEEP_MILESTONES(4), KEEP_MILESTONES(2), KEEP_LAST_N(1)):
        report = await engine.collect(policy, session_id="t")
        assert bool(report.dropped) == (policy != KEEP_LAST_N(99))
        planned, found = await engine._read(parents)
        assert planned == found
        assert (await engine.verify()).problems == ()


async def test_a_clock_that_is_put_back_makes_nothing_older(tmp_path: Path) -> None:
    """What came after something counts as no older than that."""
    path, day, hour = tmp_path / "ckpt.db", timedelta(days=1), timedelta(hours=1)
    ago = [9 * day, 8 * day, 2 * hour, 7 * day, hour, 0 * hour]
    async with await create_checkpoint_engine(f"sqlite:///{path}") as engine:
        ids = [str(await engine.snapshot("t", append=[n])) for n in range(len(ago))]
        with closing(sqlite3.connect(path)) as db, db:
            for step, age in enumerate(ago):
                past = age // timedelta(milliseconds=1)
                db.execute("UPDATE checkpoint SET at = at - ? WHERE step = ?", (past, step))
        for branch in ("one", "two"):  # on one lineage, then on two
            report = await engine.collect(KEEP_AGE(day), session_id="t", dry_run=True)
            assert report.dropped == (ids[0], ids[1])
            side = await engine.branch(ids[4], branch)
            await engine.snapshot(side.id, append=[branch])


async def test_an_id_of_another_length_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.db"
    async with await create_checkpoint_engine(f"sqlite:///{path}") as engine:
        for n in range(4):
            await engine.snapshot("t", append=[n])
        for size in (15, 32):  # the latter as of two
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE checkpoint SET id = zeroblob(?) WHERE step = 1", (size,))
            with pytest.raises(Corrupted, match="checkpoint"):
                await engine.collect(KEEP_LAST_N(1))


class _EverySecond(RetentionPolicy):
    def kept(self, checkpoints: Candidates, now: Any) -> set[int]:
        return {n for n, c in enumerate(checkpoints) if c.step % 2 == 0 and c.thread_id == "t"}


class _Ids(RetentionPolicy):
    def kept(self, checkpoints: Candidates, now: Any) -> Any:
        return {c.id for c in checkpoints}


async def test_users_have_policies_of_their_own(engine: CheckpointEngine) -> None:
    ids = [str(await engine.snapshot("t", append=[n])) for n in range(9)]
    with pytest.raises(InvalidRequest, match="positions from 0 to 8"):
        await engine.collect(_Ids())
    report = await engine.collect(_EverySecond() | KEEP_LAST_N(2))
    assert report.dropped == (ids[1], ids[3], ids[5])
