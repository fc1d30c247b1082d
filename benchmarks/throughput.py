"""Figure 3: checkpoints a second with 1, 8 and 64 agents at once."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from tempfile import mkdtemp

from ckpt_engine import CheckpointEngine

from .common import Bench, Figure, engine_in, steps
from .peers import BareInsert, NaiveSqlAlchemy, RawInline, Step, Take

SIZE = 2000
PROMISES = {1: (0.6, 0.35), 8: (1.6, 0.9), 64: (2.5, 1.3)}


async def run(bench: Bench) -> list[Figure]:
    """Let the contenders take turns, and compare the medians of their rates."""
    figures = []
    for agents, (inline, bare) in PROMISES.items():
        rates = await _rates(bench, agents)
        ours = rates["engine"]
        names = {
            "raw": (f"{agents} agents: checkpoints/s / raw sqlite3 doing the same work", inline),
            "bare": (f"{agents} agents: checkpoints/s / bare 2 KB inserts", bare),
            "naive": (f"{agents} agents: checkpoints/s / naive SQLAlchemy-async", 10.0),
        }
        for peer, (name, limit) in names.items():
            promised = limit if peer != "naive" or agents == 64 else None
            note = f"{ours:,.0f} / {rates[peer]:,.0f} per second"
            figures.append(Figure(name, promised, ours / rates[peer], at_least=True, note=note))
    return [*figures, await _without_a_pause(bench)]


async def _rates(bench: Bench, agents: int) -> dict[str, float]:
    each = max(1, bench.size(512, 128) // agents)
    taken: dict[str, list[float]] = {name: [] for name in ("engine", "raw", "bare", "naive")}
    folder = Path(mkdtemp(dir=bench.folder))
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engine_in(folder, "engine.db"))
        raw, bare = RawInline(folder / "raw.db"), BareInsert(folder / "bare.db")
        naive = NaiveSqlAlchemy.on_sqlite(folder / "naive.db")
        await naive.begin()
        for peer in (raw, bare, naive):
            await stack.enter_async_context(aclosing(_Closing(peer)))
        takers: dict[str, Take] = {
            "engine": _taker(engine),
            "raw": raw.take,
            "bare": bare.take,
            "naive": naive.take,
        }
        lines = {name: lines_of(agents) for name in takers}
        for turn in range(bench.size(15, 3)):
            bench.advance(f"throughput: {agents} agents, round {turn}")
            # there and back, so that none always comes after the same other one
            for name in list(takers)[:: 1 if turn % 2 else -1]:
                taken[name].append(await rate_of(takers[name], lines[name], each))
    return {name: statistics.median(rates) for name, rates in taken.items()}


async def _without_a_pause(bench: Bench) -> Figure:
    """Return the rate over so many steps that rows are packed meanwhile, as raw never does."""
    agents, each, turns = 64, 16, bench.size(24, 3)
    folder = Path(mkdtemp(dir=bench.folder))
    seconds = {"engine": 0.0, "raw": 0.0}
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engine_in(folder, "engine.db"))
        raw = RawInline(folder / "raw.db")
        await stack.enter_async_context(aclosing(_Closing(raw)))
        takers: dict[str, Take] = {"engine": _taker(engine), "raw": raw.take}
        lines = {name: lines_of(agents) for name in takers}
        for turn in range(turns):
            bench.advance(f"throughput: {agents} agents without a pause, round {turn}")
            for name, take in takers.items():
                seconds[name] += agents * each / await rate_of(take, lines[name], each)
    rates = {name: turns * agents * each / took for name, took in seconds.items()}
    return Figure(
        f"{agents} agents, {turns * each} steps each without a pause: checkpoints/s / raw sqlite3",
        None,
        rates["engine"] / rates["raw"],
        note=f"{rates['engine']:,.0f} / {rates['raw']:,.0f} per second, rows are packed meanwhile",
    )


class _Closing:
    def __init__(self, peer: RawInline | BareInsert | NaiveSqlAlchemy) -> None:
        self._peer = peer

    async def aclose(self) -> None:
        await self._peer.close()


def _taker(engine: CheckpointEngine) -> Take:
    async def take(agent: int, step: Step) -> None:
        await engine.snapshot(f"agent {agent}", **step)

    return take


def lines_of(agents: int) -> list[Iterator[Step]]:
    """Return an endless line of steps for each agent."""
    made = list(steps(64, SIZE))  # made beforehand: inventing texts is not what is timed
    return [itertools.cycle(made) for _ in range(agents)]


async def rate_of(take: Take, lines: list[Iterator[Step]], each: int) -> float:
    """Return how many steps a second are taken, all agents together."""

    async def agent(number: int) -> None:
        for step in itertools.islice(lines[number], each):
            await take(number, step)

    start = time.perf_counter()
    await asyncio.gather(*(agent(number) for number in range(len(lines))))
    return len(lines) * each / (time.perf_counter() - start)
