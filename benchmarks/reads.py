"""Figure 4: reading the newest and older checkpoints, and listing."""

from __future__ import annotations

import gc
import random
import statistics

from ckpt_engine import CheckpointEngine, create_checkpoint_engine

from .common import Bench, Clock, Figure, engine_in, missing_extra, steps

TIMES = 3
"""How often each checkpoint is read, and its content parsed."""


async def run(bench: Bench) -> list[Figure]:
    """Read from engines that have just been opened, so that nothing comes from their caches."""
    with missing_extra("orjson"):
        import orjson  # noqa: F401
    count = bench.size(5000, 500)
    rng = random.Random(3)
    newest, older = _Pairs(), _Pairs()
    async with engine_in(bench.folder) as engine:
        ids = []
        for number, step in enumerate(steps(count, 3000)):
            ids.append(str(await engine.snapshot("long", **step)))
            if number % 500 == 0:
                bench.advance(f"reads: filling a thread, step {number} of {count}")
        for turn in range(bench.size(15, 5)):
            bench.advance(f"reads: round {turn}")
            await newest.add(engine.url, ids[-1])
            await older.add(engine.url, rng.choice(ids[count // 10 : -1]))
        listing = await _listing(engine, bench.size(50, 20))
    return [
        Figure(
            f"read the newest of {count:,} / one orjson.loads",
            1.6,
            newest.ratio,
            note=f"{newest.read.ms} / {newest.parse.ms}; again from the cache {newest.warm.ms}",
        ),
        Figure(
            "read a random older one / one orjson.loads",
            1.6,
            older.ratio,
            note=f"{older.read.ms} / {older.parse.ms}; each from {min(older.ratios):.2f}x to "
            f"{max(older.ratios):.2f}x",
        ),
        Figure("list 100 points", 5, listing.median * 1000, "ms"),
    ]


class _Pairs:
    """Reads of checkpoints, each beside parsing the very same content."""

    def __init__(self) -> None:
        self.read, self.warm, self.parse = Clock(), Clock(), Clock()
        self.ratios: list[float] = []

    async def add(self, url: str, wanted: str) -> None:
        """Read a checkpoint and parse its content, in turns.

        Both are given memory of this size that was used before: a page that the system has to
        find first costs as much as reading it does. What lies about is collected before either.
        """
        read, parse = Clock(), Clock()
        await self._turn(url, wanted, Clock(), Clock())
        for _ in range(TIMES):
            await self._turn(url, wanted, read, parse)
        self.ratios.append(read.median / parse.median)
        self.read.taken += read.taken
        self.parse.taken += parse.taken

    async def _turn(self, url: str, wanted: str, read: Clock, parse: Clock) -> None:
        import orjson

        async with await create_checkpoint_engine(url) as fresh:
            gc.collect()
            found = await read.time(fresh.get(wanted))
            whole = {"m": found.messages, "s": found.state, "r": found.tools_result}
            packed = orjson.dumps(whole)
            await self.warm.time(fresh.get(wanted))
        del found, whole
        gc.collect()
        parse.call(lambda: orjson.loads(packed))

    @property
    def ratio(self) -> float:
        """The median over the checkpoints."""
        return statistics.median(self.ratios)


async def _listing(engine: CheckpointEngine, rounds: int) -> Clock:
    listing = Clock()
    for _ in range(rounds):
        assert len(await listing.time(engine.list_time_travel_points("long", limit=100))) == 100
    return listing
