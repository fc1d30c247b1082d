"""Tasks that write to one thread at once: each has its turn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.ops import writing


@pytest.mark.parametrize("attempts", [None, 0], ids=["as it is", "always within the transaction"])
async def test_tasks_that_snapshot_one_thread_in_a_loop_all_come_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int | None
) -> None:
    if attempts is not None:
        monkeypatch.setattr(writing, "_ATTEMPTS", attempts)
    tasks, steps = 8, 100
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/a.db") as engine:

        async def agent(task: int) -> None:
            for step in range(steps):
                await engine.snapshot("chat", append=[[task, step]], state={"task": task})

        await asyncio.gather(*(agent(task) for task in range(tasks)))
        latest = await engine.get_latest("chat")
        assert latest.step == tasks * steps - 1
        for task in range(tasks):
            mine = [step for owner, step in latest.messages if owner == task]
            assert mine == list(range(steps)), "each once, in the order of its task"
        assert (await engine.verify()).problems == ()
