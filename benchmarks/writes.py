"""Figure 1: a write costs the same late in a conversation as early."""

from __future__ import annotations

from .common import Bench, Clock, Figure, engine_in, steps


async def run(bench: Bench) -> list[Figure]:
    """Alternate between a thread at its beginning and one near its end."""
    last, early, late = bench.size(5000, 500), Clock(), Clock()
    first = last // 20
    async with engine_in(bench.folder) as engine:
        filling = steps(last, 3000)
        for number, step in zip(range(last - 2 * first), filling, strict=False):
            await engine.snapshot("late", **step)
            if number % 500 == 0:
                bench.advance(f"writes: filling a thread, step {number} of {last}")
        fresh = steps(3 * first, 3000, seed=2)
        for _, step in zip(range(first), fresh, strict=False):
            await engine.snapshot("early", **step)
        bench.advance("writes: early and late, alternating")
        for young, old in zip(fresh, filling, strict=False):
            await early.time(engine.snapshot("early", **young))
            await late.time(engine.snapshot("late", **old))
    bench.series["write early (s)"], bench.series["write late (s)"] = early.taken, late.taken
    name = f"write p50, steps {last - 2 * first:,}-{last:,} / steps {first:,}-{3 * first:,}"
    ratio = late.median / early.median
    return [Figure(name, 1.25, ratio, note=f"{late.ms} / {early.ms}")]
