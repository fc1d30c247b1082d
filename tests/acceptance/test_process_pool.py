"""Steps in a process pool: their memory goes there and back, and never to another step."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ckpt_engine.temporal import NotAStep, current_step
from ckpt_engine.temporal.context import Step, StepScope, current_scope
from ckpt_engine.temporal.headers import StepHeader

from .conftest import Stage
from .courier import Trip
from .ledger import Ledger, until
from .workers import CONTEXT


async def test_steps_in_one_process_see_their_own_agents_memory(stage: Stage) -> None:
    undisturbed = await stage.undisturbed(Trip(how="thread"))
    async with stage.worker(processes=True):
        agents = [await stage.start(Trip(how="process")) for _ in range(6)]
        for agent in agents:
            assert await agent.result() == ["at 0", "at 1", "at 2", "at 3"]
    tokens: set[str] = set()
    for agent in agents:
        stored = await stage.agreed(agent)
        assert stored.story() == undisturbed
        tokens.update(m["token"] for c in stored.steps.values() for m in c.messages)
    assert len(tokens) == 6 * 4


def ask() -> str:
    try:
        return current_step.from_thread().checkpoint_id
    except NotAStep:
        return "not a step"


def fork_within_a_step(path: str) -> None:
    """Fork a pool's process while a step is current, as the first activity of a pool does."""

    async def within() -> str:
        header = StepHeader(session="s", thread="t", id="0" * 32, step=1, parents=["1" * 32])

        async def load() -> Step:
            return Step(header, [], {})

        current_scope.set(StepScope(header, load))
        assert await asyncio.to_thread(ask) == "0" * 32
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, ask)

    Ledger(Path(path)).note("asked", answer=asyncio.run(within()))


async def test_a_forked_process_does_not_take_its_parents_step_for_its_own(tmp_path: Path) -> None:
    process = CONTEXT.Process(target=fork_within_a_step, args=(str(tmp_path / "ledger"),))
    process.start()
    await until(lambda: not process.is_alive())
    (asked,) = Ledger(tmp_path / "ledger").read("asked")
    assert asked["answer"] == "not a step"
