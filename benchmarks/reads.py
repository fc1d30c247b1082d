"""Figure 4: reading the newest and older checkpoints, and listing."""

from __future__ import annotations

import random

from ckpt_engine import CheckpointEngine, create_checkpoint_engine

from .common import Bench, Clock, Figure, engine_in, missing_extra, steps


async def run(bench: Bench) -> list[Figure]:
    """Read from engines that have just been opened, so that nothing comes from their caches."""
    with missing_extra("orjson"):
        import orjson
    count = bench.size(5000, 500)
    rng = random.Random(3)
    newest, older, warm, parse_newest, parse_older = (Clock() for _ in range(5))
    async with engine_in(bench.folder) as engine:
        ids = []
        for number, step in enumerate(steps(count, 3000)):
            ids.append(str(await engine.snapshot("long", **step)))
            if number % 500 == 0:
                bench.advance(f"reads: filling a thread, step {number} of {count}")
        for turn in range(bench.size(15, 5)):
            bench.advance(f"reads: round {turn}")
            for wanted, reading, parsing in (
                (ids[-1], newest, parse_newest),
                (rng.choice(ids[count // 10 : -1]), older, parse_older),
            ):
                async with await create_checkpoint_engine(engine.url) as fresh:
                    found = await reading.time(fresh.get(wanted))
                    if reading is newest:
                        await warm.time(fresh.get(wanted))
                whole = {"m": found.messages, "s": found.state, "r": found.tools_result}
                packed = orjson.dumps(whole)
                del found, whole
                parsing.call(lambda packed=packed: orjson.loads(packed))  # type: ignore[misc]
        listing = await _listing(engine, bench.size(50, 20))
    ratios = [r / p for r, p in zip(older.taken, parse_older.taken, strict=True)]
    return [
        Figure(
            f"read the newest of {count:,} / one orjson.loads",
            1.6,
            newest.median / parse_newest.median,
            note=f"{newest.ms} / {parse_newest.ms}; again from the cache {warm.ms}",
        ),
        Figure(
            "read a random older one / one orjson.loads",
            1.6,
            sorted(ratios)[len(ratios) // 2],
            note=f"{older.ms} / {parse_older.ms}",
        ),
        Figure("list 100 points", 5, listing.median * 1000, "ms"),
    ]


async def _listing(engine: CheckpointEngine, rounds: int) -> Clock:
    listing = Clock()
    for _ in range(rounds):
        assert len(await listing.time(engine.list_time_travel_points("long", limit=100))) == 100
    return listing
