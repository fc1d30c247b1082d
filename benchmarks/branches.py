"""Figure 5: branches, and dropping half of a long thread."""

from __future__ import annotations

from ckpt_engine import CheckpointEngine
from ckpt_engine.retention import KEEP_LAST_N, KEEP_MILESTONES

from .common import Bench, Clock, Figure, engine_in, steps


async def run(bench: Bench) -> list[Figure]:
    """Branch from a short and from a long thread in turns; then collect half of the long one."""
    short, long = bench.size(50, 20), bench.size(5000, 500)
    from_short, from_long, snapshot = Clock(), Clock(), Clock()
    async with engine_in(bench.folder) as engine:
        tips = {}
        for name, count in (("short", short), ("long", long)):
            bench.advance(f"branches: filling a thread of {count} steps")
            tips[name] = await _fill(engine, name, count, snapshot)
        for number in range(bench.size(200, 50)):
            await from_short.time(engine.branch(tips["short"], f"b{number}"))
            await from_long.time(engine.branch(tips["long"], f"b{number}"))
    collected = await _collected(bench, long)
    ratio = from_long.median / from_short.median
    return [
        Figure(
            f"branch p50, after {long:,} steps / after {short:,}",
            1.25,
            ratio,
            note=f"{from_long.ms} / {from_short.ms}",
        ),
        *collected,
    ]


async def _collected(bench: Bench, count: int) -> list[Figure]:
    """Collect half of a long thread in two ways, in turns, each time of a new database."""
    halves = {"the older half": KEEP_LAST_N(count // 2), "every other": KEEP_MILESTONES(count // 2)}
    snapshot, clocks = Clock(), {which: Clock() for which in halves}
    for number in range(1, bench.size(9, 1) + 1):
        for which, policy in halves.items():
            bench.advance(f"branches: dropping {which} of {count} and collecting, {number}")
            async with engine_in(bench.folder) as engine:
                await _fill(engine, "long", count, snapshot)
                report = await clocks[which].time(engine.collect(policy, thread_id="long"))
                assert len(report.dropped) == count - count // 2
    return [
        Figure(
            f"drop {which} of {count:,} and collect / one snapshot",
            50,
            clock.median / snapshot.median,
            note=f"{clock.ms} / {snapshot.ms}",
        )
        for which, clock in clocks.items()
    ]


async def _fill(engine: CheckpointEngine, thread: str, count: int, clock: Clock) -> str:
    checkpoint_id = ""
    for step in steps(count, 3000):
        checkpoint_id = str(await clock.time(engine.snapshot(thread, **step)))
    return checkpoint_id
