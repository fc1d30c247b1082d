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
