"""Collecting, what protects from it, optimizing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ..config import SnapshotConfig
from ..errors import InvalidRequest
from ..model import CheckpointInfo
from ..retention import KEEP_AGE, KEEP_ALL, KEEP_LAST_N, KEEP_MILESTONES
from .contract_base import ContractBase, OpenEngine, contents, say

__all__ = ["RetentionContract"]


async def _said(engine: Any, thread: str, count: int, start: int = 0) -> list[str]:
    """Take so many checkpoints that append their number; return the ids."""
    return [
        str(await engine.snapshot(thread, append=[say(str(n))], state={"n": n, "pad": "x" * 50}))
        for n in range(start, start + count)
    ]


async def _reads(engine: Any, checkpoint_id: str, numbers: Any) -> None:
    found = await engine.get(checkpoint_id)
    assert contents(found) == [str(n) for n in numbers]


async def _left(engine: Any, thread: str) -> list[CheckpointInfo]:
    points: list[CheckpointInfo] = await engine.list_time_travel_points(thread, limit=10_000)
    return points[::-1]


class RetentionContract(ContractBase):
    """``collect``, ``pin`` and ``optimize``."""

    async def test_what_is_kept_reads_back_and_the_rest_is_gone(self, engine: Any) -> None:
        ids = await _said(engine, "t", 40)
        planned = await engine.collect(KEEP_LAST_N(5), thread_id="t", dry_run=True)
        assert planned.dry_run
        assert len(await _left(engine, "t")) == 40
        report = await engine.collect(KEEP_LAST_N(5), thread_id="t")
        assert (set(report.dropped), report.dry_run) == (set(ids[:35]), False)
        assert set(planned.dropped) == set(report.dropped)
        assert [p.id for p in await _left(engine, "t")] == ids[35:]
        for n in range(35, 40):
            await _reads(engine, ids[n], range(n + 1))
        with pytest.raises(InvalidRequest):
            await engine.get(ids[3])
        assert (await engine.collect(KEEP_LAST_N(5), thread_id="t")).dropped == ()
        assert (await engine.verify()).problems == ()

    async def test_milestones_of_a_long_thread(self, engine: Any) -> None:
        ids = await _said(engine, "t", 601)
        await engine.collect(KEEP_MILESTONES(7), thread_id="t")
        left = await _left(engine, "t")
        assert [p.step for p in left] == [0, 100, 200, 300, 400, 500, 600]
        assert [p.parents for p in left[1:]] == [(p.id,) for p in left[:-1]]
        await _reads(engine, ids[300], range(301))
        assert (await engine.time_travel_to_step("t", 250)).id == ids[200]
        assert (await engine.verify()).problems == ()

    async def test_age_and_keep_all_drop_nothing_that_is_new(self, engine: Any) -> None:
        await _said(engine, "t", 5)
        for policy in (KEEP_ALL, KEEP_AGE(timedelta(hours=1)), KEEP_ALL | KEEP_LAST_N(1)):
            assert (await engine.collect(policy, session_id="t")).dropped == ()
        everything = KEEP_AGE(timedelta(microseconds=1)) & KEEP_LAST_N(1)
        await asyncio.sleep(0.005)
        assert len((await engine.collect(everything, session_id="t")).dropped) == 4

    async def test_no_collection_breaks_a_branch(self, engine: Any) -> None:
        ids = await _said(engine, "t", 20)
        branch = await engine.branch(ids[7], "side")
        side = await _said(engine, branch.id, 5, start=100)
        await engine.tag(ids[3], "best")
        await engine.pin([ids[11]], "a seed", ttl_seconds=60)
        await engine.rewind(ids[15])
        report = await engine.collect(KEEP_LAST_N(1), session_id="t")
        kept = {ids[3], ids[7], ids[11], ids[15], ids[19], side[-1]}
        assert set(report.dropped) == {*ids, *side} - kept
        assert report.kept["branch point"] == 1
        await _reads(engine, ids[7], range(8))
        await _reads(engine, side[-1], [*range(8), *range(100, 105)])
        assert (await engine.undo("t")).checkpoint.id == ids[19]
        await _reads(engine, ids[19], range(20))
        tree = await engine.get_checkpoint_tree("t")
        assert {(e.parent, e.child) for e in tree.edges if e.kind == "fork"} == {(ids[7], side[-1])}
        assert (await engine.verify()).problems == ()

    async def test_a_pin_ends_with_its_owner_or_its_time(self, engine: Any) -> None:
        ids = await _said(engine, "t", 6)
        await engine.pin(ids[1:3], "one", ttl_seconds=60)
        await engine.pin([ids[3]], "two", ttl_seconds=0.001)
        await asyncio.sleep(0.01)
        report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
        assert set(report.dropped) == {ids[0], ids[3], ids[4]}
        await engine.unpin("one")
        report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
        assert set(report.dropped) == {ids[1], ids[2]}

    async def test_a_merge_still_finds_its_base_after_collecting(self, engine: Any) -> None:
        ids = await _said(engine, "t", 5)
        branch = await engine.branch(ids[2], "side")
        await _said(engine, branch.id, 5, start=100)
        await engine.collect(KEEP_LAST_N(1), session_id="t")
        await engine.merge_branch(branch.id, "t", strategy="ours")
        merged = await engine.get_latest("t")
        assert contents(merged) == [str(n) for n in (0, 1, 2, 3, 4, *range(100, 105))]

    @pytest.mark.parametrize("idle", [5.0, 0.0])
    async def test_the_configured_policy_is_applied_by_itself(
        self, opened: OpenEngine, idle: float
    ) -> None:
        engine = await opened(SnapshotConfig(retention=KEEP_LAST_N(10), idle_seal_seconds=idle))
        taken = 0
        while len(await _left(engine, "t") if taken else ()) == taken:
            await _said(engine, "t", 10, start=taken)
            taken += 10
            await asyncio.sleep(0)
            assert taken < 2000, "nothing was ever collected"
        await _reads(engine, (await engine.get_latest("t")).id, range(taken))

    async def test_however_short_they_are_processes_leave_no_more_than_is_kept(
        self, opened: OpenEngine
    ) -> None:
        if not self.durable:
            pytest.skip("nothing is kept")
        config = SnapshotConfig(retention=KEEP_LAST_N(5))
        for start in range(0, 40, 10):
            engine = await opened(config)
            await _said(engine, "t", 10, start)
            await engine.close()
            engine = await opened()
            assert len(await _left(engine, "t")) == 5
            await engine.close()

    async def test_it_is_said_what_stays_of_checkpoints_that_are_gone(self, engine: Any) -> None:
        await _said(engine, "t", 10)
        assert (await engine.collect(KEEP_LAST_N(3))).messages_kept == 7
        await engine.snapshot("t", messages=[say(f"anew {n}") for n in range(20)])
        await _said(engine, "t", 1)
        assert (await engine.collect(KEEP_LAST_N(1))).messages_kept == 20
        assert (await engine.collect(KEEP_LAST_N(1))).messages_kept == 20

    async def test_space_is_reported(self, engine: Any) -> None:
        for n in range(60):
            text = f"{n:06d}" + "".join(chr(32 + (n * k * k) % 90) for k in range(3000))
            await engine.snapshot("t", messages=[say(text)])
        report = await engine.collect(KEEP_LAST_N(1), thread_id="t")
        assert len(report.dropped) == 59
        assert report.bytes_freed > 0 or not self.shrinks

    async def test_optimize_changes_nothing_that_is_read(self, engine: Any) -> None:
        ids = await _said(engine, "t", 100)
        side = (await engine.branch(ids[50], "side")).id
        more = await _said(engine, side, 40, start=1000)
        await engine.collect(KEEP_MILESTONES(20), session_id="t")
        before = {p.id: await engine.get(p.id) for t in ("t", side) for p in await _left(engine, t)}
        report = await engine.optimize()
        assert report.size_after <= report.size_before
        await engine.optimize()
        for checkpoint_id, checkpoint in before.items():
            assert await engine.get(checkpoint_id) == checkpoint
        first, *_ = await _said(engine, side, 3, start=2000)
        assert (await engine.get_info(first)).parents == (more[-1],)
        latest = await engine.get_latest(side)
        assert contents(latest)[-3:] == ["2000", "2001", "2002"]
        assert (await engine.verify()).problems == ()
