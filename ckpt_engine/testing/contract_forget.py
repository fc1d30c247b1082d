"""Forgetting."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import Erased, InvalidRequest, ThreadNotFound
from .contract_base import ContractBase, say
from .contract_retention import _left, _reads, _said

__all__ = ["ForgetContract"]


class ForgetContract(ContractBase):
    """``forget``."""

    async def test_forgetting_a_session_leaves_nothing(self, engine: Any) -> None:
        ids = await _said(engine, "t", 5)
        side = (await engine.branch(ids[2], "side")).id
        ids += await _said(engine, side, 3, start=100)
        (other,) = await _said(engine, "other", 1)
        report = await engine.forget(session_id="t")
        assert set(report.erased) == set(ids)
        assert report.kept == {}
        for checkpoint_id in ids:
            with pytest.raises(InvalidRequest):
                await engine.get(checkpoint_id)
        await _reads(engine, other, range(1))
        assert (await engine.verify()).problems == ()

    async def test_forgetting_a_branch_leaves_the_others_whole(self, engine: Any) -> None:
        ids = await _said(engine, "t", 5)
        side = (await engine.branch(ids[2], "side")).id
        erased = await _said(engine, side, 3, start=100)
        nested = (await engine.branch(erased[1], "nested")).id
        erased += await _said(engine, nested, 2, start=200)
        before = [await engine.get(i) for i in ids]
        report = await engine.forget(thread_id=side)
        assert set(report.erased) == set(erased)
        assert [await engine.get(i) for i in ids] == before
        for checkpoint_id in erased:
            with pytest.raises(Erased):
                await engine.get(checkpoint_id)
        await _said(engine, "t", 1, start=5)
        assert (await engine.verify()).problems == ()

    async def test_what_others_have_of_it_stays_and_is_reported(self, engine: Any) -> None:
        ids = await _said(engine, "t", 3)
        side = (await engine.branch(ids[1], "side")).id
        mine = await _said(engine, side, 40, start=100)
        merged = (await engine.merge_branch(side, "t", strategy="theirs")).checkpoint_id
        onward = (await engine.branch(ids[2], "onward")).id
        await engine.rewind(mine[5], thread_id=onward)
        other = await engine.snapshot("other", append=[say("x" * 9000)])
        await engine.snapshot(side, append=[say("x" * 9000)])
        kept = [*ids, mine[5], merged, other]
        before = [await engine.get(i) for i in kept]
        report = await engine.forget(thread_id=side)
        assert set(mine) - set(report.erased) == {mine[5]}
        assert set(report.kept) == {ids[1], mine[5], merged, other}
        assert "onward" in report.kept[mine[5]]
        assert "copy" in report.kept[merged]
        after = [await engine.get(i) for i in kept]
        for was, now in zip(before, after, strict=True):
            assert (was.messages, was.state, was.step) == (now.messages, now.state, now.step)
        assert (await engine.get_latest(onward)).id == mine[5]
        assert (await engine.get(merged)).parents == (ids[2], mine[5])
        assert (await engine.verify()).problems == ()

    async def test_a_name_is_used_again_only_on_purpose(self, engine: Any) -> None:
        (old,) = await _said(engine, "t", 1)
        await engine.forget(session_id="t")
        for call in (
            engine.snapshot("t", append=[say("by mistake")]),
            engine.get_latest("t"),
            engine.resolve(old),
        ):
            with pytest.raises(Erased):
                await call
        assert (await engine.forget(session_id="t")).erased == ()
        await engine.create_thread("t")
        (new,) = await _said(engine, "t", 1)
        assert [point.id for point in await _left(engine, "t")] == [new]
        assert (await engine.forget(thread_id="t")).erased == (new,)

    async def test_a_rewind_cannot_be_undone_to_what_was_forgotten(self, engine: Any) -> None:
        ids = await _said(engine, "t", 3)
        side = (await engine.branch(ids[0], "side")).id
        (secret,) = await _said(engine, side, 1)
        await engine.rewind(secret, thread_id="t")
        await engine.rewind(ids[1], thread_id="t")
        await engine.forget(thread_id=side)
        with pytest.raises(Erased):
            await engine.undo("t")
        await _reads(engine, ids[1], range(2))

    async def test_a_root_goes_with_its_session_though_origins_were_erased(
        self, engine: Any
    ) -> None:
        ids = await _said(engine, "t", 2)
        side = (await engine.branch(ids[1], "side")).id
        (between,) = await _said(engine, side, 1)
        deep = (await engine.branch(between, "deep")).id
        (last,) = await _said(engine, deep, 1)
        await engine.rewind(last, thread_id="t")
        report = await engine.forget(thread_id=side)
        assert report.erased == (between,)
        assert "'t' goes on from it" in report.kept[last]
        assert (await engine.get_thread(deep)).origin == ids[1]
        await engine.rewind(ids[0], thread_id="t")
        report = await engine.forget(thread_id="t")
        assert (set(report.erased), report.kept) == ({*ids, last}, {})
        with pytest.raises(Erased):
            await engine.get_thread(deep)
        assert await engine.list_sessions() == []
        assert (await engine.verify()).problems == ()

    async def test_a_thread_still_began_where_its_erased_origin_led_back_to(
        self, engine: Any
    ) -> None:
        """Each thread begins in the one before; the third is erased, then the second."""
        (first,) = await _said(engine, "t", 1)
        threads, ids = ["t"], [first]
        for name in ("second", "third", "fourth"):
            threads.append((await engine.branch(ids[-1], name)).id)
            ids += await _said(engine, threads[-1], 1)
        await engine.rewind(ids[3], thread_id="t")
        assert (await engine.forget(thread_id=threads[2])).erased == (ids[2],)
        await engine.rewind(first, thread_id="t")
        report = await engine.forget(thread_id=threads[1])
        assert set(report.erased) == {ids[1], ids[3]}
        assert [t.id for t in await engine.list_threads("t")] == ["t"]
        assert (await engine.verify()).problems == ()

    async def test_what_the_forgotten_reached_by_rewinds_and_merges_is_reported(
        self, engine: Any
    ) -> None:
        ids = await _said(engine, "t", 3)
        side = (await engine.branch(ids[0], "side")).id
        await _said(engine, side, 1, start=100)
        await engine.rewind(ids[1], thread_id=side)
        await _said(engine, side, 1, start=200)
        other = (await engine.branch(ids[0], "other")).id
        (work,) = await _said(engine, other, 1, start=300)
        assert (await engine.merge_branch(other, side, strategy="theirs")).created
        await engine.rewind(ids[2], thread_id=side)
        report = await engine.forget(thread_id=side)
        assert dict(report.kept) == {
            ids[0]: "the branch began here; it belongs to thread 't'",
            ids[1]: "the branch went on from it; it belongs to thread 't'",
            ids[2]: "the branch was rewound to it; it belongs to thread 't'",
            work: f"the branch joined a copy of its work; it belongs to thread {other!r}",
        }
        assert (await engine.verify()).problems == ()

    async def test_what_cannot_be_forgotten_is_refused(self, engine: Any) -> None:
        await _said(engine, "t", 1)
        with pytest.raises(ThreadNotFound):
            await engine.forget(thread_id="nobody")
        with pytest.raises(InvalidRequest):
            await engine.forget()
        with pytest.raises(InvalidRequest):
            await engine.forget(thread_id="t", session_id="t")
        side = (await engine.branch((await engine.get_latest("t")).id, "side")).id
        with pytest.raises(InvalidRequest, match="thread_id"):
            await engine.forget(session_id=side)
        assert len(await _left(engine, "t")) == 1
