"""Memory: neither reading nor a snapshot holds more than about twice the content."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckpt_engine import SnapshotConfig, create_checkpoint_engine

from .common import Bench, Figure, engine_in

STATUS = Path("/proc/self/status")
"""On Linux; what ``getrusage`` says there begins with what the parent process had."""

CONFIG = SnapshotConfig(idle_seal_seconds=0)


def _texts(size: int, each: int) -> list[str]:
    return [os.urandom(each // 2).hex() for _ in range(size // each)]


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "100 KB messages": lambda size: {"messages": _texts(size, 100_000)},
    "3 KB messages": lambda size: {
        "messages": [{"role": "user", "content": text} for text in _texts(size, 3_000)]
    },
    "one text": lambda size: {"messages": [{"role": "user", "content": _texts(size, size)[0]}]},
    "a state of lists": lambda size: {"state": {"rows": _texts(size, 3_000)}},
    "a list as result": lambda size: {"tools_result": _texts(size, 3_000)},
}
"""What a checkpoint of about so many bytes is made of; half of it compresses away."""


async def run(bench: Bench) -> list[Figure]:
    """Measure in processes of their own, since a process never gives memory back in full."""
    size = bench.size(60_000_000, 20_000_000)
    figures = []
    async with engine_in(bench.folder) as engine:
        for shape in SHAPES:
            for verb in ("snapshot", "read"):
                bench.advance(f"memory: {verb} of {size // 1_000_000} MB, {shape}")
                held, content = await _child(verb, engine.url, shape, size)
                # what is snapshotted is there before; what is read is there afterwards
                figures.append(
                    Figure(
                        f"memory held by one {verb} / content, {shape}",
                        2.2,
                        held / content,
                        note=f"{held / 1e6:.0f} MB for {content / 1e6:.0f} MB",
                    )
                )
    return figures


async def _child(verb: str, url: str, shape: str, size: int) -> tuple[int, int]:
    """Return the bytes that a verb holds, and those that the content takes as Python's values."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, verb, url, shape, str(size), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the process that measures {verb} failed")
    held, content = map(int, out.split())
    return held, content


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


def _taken(value: Any) -> int:
    """Return the bytes that a value takes; keys are shared."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(map(_taken, value.values()))
    return size + sum(map(_taken, value)) if isinstance(value, list) else size


async def _measure(verb: str, url: str, shape: str, size: int) -> tuple[int, int]:
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        await engine.snapshot("warm", append=["x"])
        await engine.get_latest("warm")
        if verb == "read":
            before = _start()
            found = await engine.get_latest(shape)
            peak = _peak()
            assert found is not None
            return peak - before, _taken([found.messages, found.state, found.tools_result])
        given = SHAPES[shape](size)
        before = _start()
        await engine.snapshot(shape, **given)
        return _peak() - before, _taken(given)


if __name__ == "__main__":
    print(*asyncio.run(_measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
