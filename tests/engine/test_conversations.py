"""Recorded conversations, imported with a checkpoint a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import create_checkpoint_engine

DATA = Path(__file__).parents[3] / "shared" / "data" / "tau_airline_gpt4o.jsonl"


@pytest.mark.skipif(not DATA.exists(), reason="the recorded conversations are not here")
async def test_every_prefix_of_every_conversation_reads_back(tmp_path: Path) -> None:
    talks = [json.loads(line)["messages"] for line in DATA.read_text().splitlines()]
    distinct = sum(map(len, {json.dumps(m) for talk in talks for m in talk}))
    async with await create_checkpoint_engine(str(tmp_path / "talks.db")) as engine:
        ids: dict[str, tuple[int, int]] = {}
        for place in range(max(map(len, talks))):  # interleaved, as agents that run together
            for number, talk in enumerate(talks):
                if place < len(talk):
                    message: list[Any] = [talk[place]]
                    taken = await engine.snapshot(f"talk {number}", append=message)
                    ids[str(taken)] = (number, place + 1)
        for optimized in (False, True):
            if optimized:
                report = await engine.optimize()
                assert report.size_after <= 1.0 * distinct
            for checkpoint_id, (number, length) in ids.items():
                found = (await engine.get(checkpoint_id)).messages
                assert json.dumps(found) == json.dumps(talks[number][:length])
        assert (await engine.verify()).ok
