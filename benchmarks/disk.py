"""Figure 2: disk, with all metadata, against the bytes that are distinct."""

from __future__ import annotations

import asyncio
import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ckpt_engine import CheckpointEngine

from .common import Bench, Figure, disk_bytes, distinct_bytes, engine_in, steps

_SAME = 10  # seconds: twice the time after which a thread counts as idle
CONVERSATIONS = Path(__file__).parents[2] / "shared" / "data" / "tau_airline_gpt4o.jsonl"


async def run(bench: Bench) -> list[Figure]:
    """Measure long threads, and many short ones that grow in turns."""
    figures = []
    for count in (bench.size(1000, 200), bench.size(5000, 1000)):
        bench.advance(f"disk: {count} steps")
        figures.append(await _long_thread(bench, count))
    if not CONVERSATIONS.exists():
        bench.advance(f"disk: recorded conversations left out, no {CONVERSATIONS.name}")
        return figures
    return figures + await _conversations(bench)


async def _long_thread(bench: Bench, count: int) -> Figure:
    distinct = 0
    async with engine_in(bench.folder) as engine:
        for step in steps(count, 3000):
            distinct += distinct_bytes(step)
            await engine.snapshot("long", **step)
        used = disk_bytes(engine.url)
        await engine.optimize()
        after = disk_bytes(engine.url)
    note = f"{_mb(used)} / {_mb(distinct)}; {after / distinct:.2f}x after optimize()"
    return Figure(f"disk / distinct, {count:,} steps of 3 KB", 0.5, used / distinct, note=note)


async def _conversations(bench: Bench) -> list[Figure]:
    lines = CONVERSATIONS.read_text().splitlines()[: bench.size(100, 20)]
    threads = [json.loads(line)["messages"] for line in lines]
    distinct = sum(len(m) for m in {json.dumps(m) for thread in threads for m in thread})
    async with engine_in(bench.folder) as engine:
        bench.advance(f"disk: {len(threads)} recorded conversations, interleaved")
        await _interleaved(engine, threads)
        before = disk_bytes(engine.url)
        bench.advance("disk: until nothing more is packed by itself")
        idle = await _at_rest(engine.url)
        await engine.optimize()
        after = disk_bytes(engine.url)
    name, note = "disk / distinct, recorded conversations", f"distinct {_mb(distinct)}"
    return [
        Figure(f"{name}, live", 1.4, before / distinct, note=f"{_mb(before)}, {note}"),
        Figure(f"{name}, idle", 1.0, idle / distinct, note=f"{_mb(idle)}, {note}"),
        Figure(f"{name}, optimized", 1.0, after / distinct, note=f"{_mb(after)}, {note}"),
    ]


async def _at_rest(url: str) -> int:
    """Return the bytes of a database once they have stayed the same for a while."""
    sizes = [disk_bytes(url)]
    while len(sizes) < _SAME or len(set(sizes[-_SAME:])) > 1:
        await asyncio.sleep(1)
        sizes.append(disk_bytes(url))
    return sizes[-1]


async def _interleaved(engine: CheckpointEngine, threads: list[list[Any]]) -> None:
    for turn in zip_longest(*threads):
        for number, message in enumerate(turn):
            if message is not None:
                await engine.snapshot(f"conversation {number}", append=[message])


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
