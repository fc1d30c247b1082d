"""Forgetting."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import Erased, InvalidRequest, ThreadNotFound
from .contract_base import ContractBase
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

    async def test_what_cannot_be_forgotten_is_refused(self, engine: Any) -> None:
        await _said(engine, "t", 1)
        with pytest.raises(ThreadNotFound):
            await engine.forget(thread_id="nobody")
        with pytest.raises(InvalidRequest):
            await engine.forget()
        with pytest.raises(InvalidRequest):
            await engine.forget(thread_id="t", session_id="t")
        assert len(await _left(engine, "t")) == 1
