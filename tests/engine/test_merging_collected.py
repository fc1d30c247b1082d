"""Merges come out alike whether or not anything was collected before."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ckpt_engine import (
    KEEP_LAST_N,
    KEEP_MILESTONES,
    CheckpointEngine,
    SnapshotConfig,
    create_checkpoint_engine,
)
from ckpt_engine.errors import InvalidRequest, MergeConflictError
from ckpt_engine.merge import Strategy
from ckpt_engine.model import seed_ids

POLICIES = (
    *(KEEP_LAST_N(1), KEEP_LAST_N(2), KEEP_LAST_N(1, per="session")),
    *(KEEP_MILESTONES(3), KEEP_MILESTONES(2, per="session")),
)
STRATEGIES: tuple[Strategy, ...] = ("raise", "ours", "theirs")
DEEDS = (
    ["snap"] * 5 + ["merge"] * 3 + ["collect"] * 2 + ["edit", "branch", "rewind", "undo", "aside"]
)


class _Twins:
    """Two engines that do the same under the same ids; only the second one collects."""

    def __init__(self, seed: int, plain: CheckpointEngine, collected: CheckpointEngine) -> None:
        self.random = random.Random(seed)
        self.both = plain, collected
        self.ids: dict[str, str] = {}  # collected engine's id -> the plain one's
        self.threads = ["s"]

    async def do(self, deed: Callable[[CheckpointEngine, int], Awaitable[Any]]) -> list[Any]:
        """Do something to each, given its place, and return what came of it."""
        found = []
        seed = self.random.randbytes(8)
        for place, engine in enumerate(self.both):
            seed_ids(seed)  # ids order what has equal steps
            found.append(await deed(engine, place))
        seed_ids()
        return found

    async def commit(
        self, thread: str, parents: tuple[str, str] | None = None, **given: Any
    ) -> None:
        def deed(engine: CheckpointEngine, at: int) -> Awaitable[str | None]:
            parent = parents and parents[at]
            return engine.snapshot(thread, parent_checkpoint_id=parent, **given)

        plain, collected = await self.do(deed)
        self.ids[collected] = plain

    async def act(self, number: int) -> None:
        deed, thread = self.random.choice(DEEDS), self.random.choice(self.threads)
        await getattr(self, deed)(number, thread)

    async def some(self, thread: str) -> tuple[str, str]:
        """Return a checkpoint of the thread's path that survives, by both ids."""
        head = (await self.both[1].get_latest(thread)).id
        collected = self.random.choice([info.id for info in await self.both[1].path(head)])
        return self.ids[collected], collected

    async def snap(self, number: int, thread: str) -> None:
        state = (await self.both[0].get_latest(thread)).state
        state[self.random.choice("klm")] = number
        if self.random.random() < 0.3:
            state["log"] = [*state.get("log", ()), number]
        append = [number] if self.random.random() < 0.8 else []
        await self.commit(thread, append=append, state=state)

    async def edit(self, number: int, thread: str) -> None:
        messages = (await self.both[0].get_latest(thread)).messages
        messages[self.random.randrange(len(messages))] = f"edit {number}"
        await self.commit(thread, messages=messages)

    async def aside(self, number: int, thread: str) -> None:
        await self.commit(thread, await self.some(thread), append=[number])

    async def branch(self, number: int, thread: str) -> None:
        ids = await self.some(thread)
        await self.do(lambda e, at: e.branch(ids[at], f"b{number}", thread_id=f"b{number}"))
        self.threads.append(f"b{number}")

    async def rewind(self, number: int, thread: str) -> None:
        ids = await self.some(thread)
        await self.do(lambda e, at: e.rewind(ids[at], thread_id=thread))

    async def undo(self, number: int, thread: str) -> None:
        async def deed(engine: CheckpointEngine, at: int) -> bool:
            try:
                await engine.undo(thread)
            except InvalidRequest:
                return False
            return True

        plain, collected = await self.do(deed)
        assert plain == collected

    async def merge(self, number: int, thread: str) -> None:
        branch = self.random.choice(self.threads)
        strategy: Strategy = self.random.choice(STRATEGIES)

        async def deed(engine: CheckpointEngine, at: int) -> Any:
            try:
                return await engine.merge_branch(branch, thread, strategy=strategy)
            except MergeConflictError as err:
                return err.conflicts

        plain, collected = await self.do(deed)
        if isinstance(plain, tuple) or isinstance(collected, tuple):
            assert plain == collected
            return
        assert (plain.created, plain.resolved) == (collected.created, collected.resolved)
        self.ids[collected.checkpoint_id] = plain.checkpoint_id

    async def collect(self, number: int, thread: str) -> None:
        report = await self.both[1].collect(self.random.choice(POLICIES))
        for gone in report.dropped:
            del self.ids[gone]

    async def check(self) -> None:
        for collected, plain in self.ids.items():
            found, expected = await self.both[1].get(collected), await self.both[0].get(plain)
            assert (found.messages, found.state) == (expected.messages, expected.state)
        assert (await self.both[1].verify()).problems == ()


@pytest.mark.parametrize("start", range(0, 120, 40))
async def test_any_history_merges_alike(start: int) -> None:
    config = SnapshotConfig(logs=("log",))
    for seed in range(start, start + 40):
        async with (
            await create_checkpoint_engine("memory:", config) as plain,
            await create_checkpoint_engine("memory:", config) as collected,
        ):
            twins = _Twins(seed, plain, collected)
            await twins.commit("s", append=["m"], state={"k": 0})
            for number in range(twins.random.randrange(10, 60)):
                await twins.act(number)
            await twins.check()


@pytest.mark.parametrize("collected", [False, True])
async def test_a_merge_after_a_way_back_knows_what_was_merged_before(collected: bool) -> None:
    async with await create_checkpoint_engine("memory:") as engine:
        first = str(await engine.snapshot("s", append=["hello"]))
        await engine.branch(first, "b", thread_id="b")
        merged = await engine.snapshot("b", append=["b1"])
        await engine.snapshot("s", append=["s1"])
        await engine.merge_branch("b", "s")
        await engine.snapshot("s", append=["s2"])
        second = str(await engine.snapshot("b", append=["b2"]))
        await engine.merge_branch("s", "b")
        if collected:
            report = await engine.collect(KEEP_LAST_N(2))
            assert merged not in report.dropped
            assert len(report.dropped) == report.kept["merge base"] == 1
        await engine.rewind(second)
        await engine.merge_branch("b", "s")
        messages = (await engine.get_latest("s")).messages
        assert messages == ["hello", "s1", "b1", "s2", "b2"]
