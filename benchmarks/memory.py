"""Memory: neither reading nor a snapshot holds more than about twice the content."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
from pathlib import Path

from ckpt_engine import create_checkpoint_engine

from .common import Bench, Figure, engine_in

MESSAGE = 100_000
STATUS = Path("/proc/self/status")
"""On Linux; what ``getrusage`` says there begins with what the parent process had."""


async def run(bench: Bench) -> list[Figure]:
    """Measure in processes of their own, since a process never gives memory back in full."""
    messages = bench.size(600, 200)
    size = messages * MESSAGE
    figures = []
    async with engine_in(bench.folder) as engine:
        for verb in ("snapshot", "read"):
            bench.advance(f"memory: {verb} of {size // 1_000_000} MB")
            held = await _child(verb, engine.url, messages)
            # what is snapshotted is there before; what is read is there afterwards
            note = f"{held / 1e6:.0f} MB for {size / 1e6:.0f} MB"
            figures.append(
                Figure(f"memory held by one {verb} / content", 2.2, held / size, note=note)
            )
    return figures


async def _child(verb: str, url: str, messages: int) -> int:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, verb, url, str(messages), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the process that measures {verb} failed")
    return int(out)


def _start() -> int:
    """Return the bytes held now, and let the peak begin here."""
    gc.collect()
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path("/proc/self/clear_refs").write_text("5")
    return _held("VmRSS")


def _peak() -> int:
    """Return the most bytes held since."""
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _held("VmHWM")


def _held(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


async def _measure(verb: str, url: str, count: int) -> int:
    async with await create_checkpoint_engine(url) as engine:
        await engine.snapshot("warm", append=["x"])
        await engine.get_latest("warm")
        if verb == "read":
            before = _start()
            assert len((await engine.get_latest("large")).messages) == count
            return _peak() - before
        messages = [os.urandom(MESSAGE // 2).hex() for _ in range(count)]
        before = _start()
        await engine.snapshot("large", messages=messages)
        return _peak() - before


if __name__ == "__main__":
    print(asyncio.run(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
