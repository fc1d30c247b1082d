"""What the figure groups share: figures, sizes, made-up conversations, clocks."""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ckpt_engine import CheckpointEngine, create_checkpoint_engine

__all__ = ["Bench", "Clock", "Figure", "Missing", "engine_in", "missing_extra", "steps", "text"]


class Missing(Exception):
    """A peer package is absent; the message says what to install."""


@contextmanager
def missing_extra(peer: str) -> Iterator[None]:
    """Turn a failed import into a line that says which extra has the package."""
    try:
        yield
    except ImportError as err:
        raise Missing(f"{peer} is not installed: pip install 'ckpt-engine[bench]'") from err


@dataclass(frozen=True)
class Figure:
    """One promise and what was measured.

    Attributes:
        name: What is measured.
        limit: The promised bound, in ``unit``; ``None`` for a figure shown beside others.
        measured: The value, in ``unit``.
        unit: Such as ``x`` or ``ms``.
        at_least: Whether the bound is a lower one.
        note: The values it was made from.
    """

    name: str
    limit: float | None
    measured: float
    unit: str = "x"
    at_least: bool = False
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the promise is kept."""
        if self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass
class Bench:
    """One run: where it works, how large, and whom it tells.

    Attributes:
        folder: Where the databases are made.
        quick: Smaller sizes, for trying; the promises are about the full ones.
        advance: Called with a line about what is being done.
    """

    folder: Path
    quick: bool
    advance: Callable[[str], None]
    series: dict[str, list[float]] = field(default_factory=dict)

    def size(self, full: int, quick: int) -> int:
        """Return a size for this run."""
        return quick if self.quick else full


@dataclass
class Clock:
    """Times single calls, in seconds."""

    taken: list[float] = field(default_factory=list)

    async def time(self, work: Awaitable[Any]) -> Any:
        """Wait for something and note how long it took."""
        start = time.perf_counter()
        answer = await work
        self.taken.append(time.perf_counter() - start)
        return answer

    def call(self, work: Callable[[], Any]) -> Any:
        """Call something and note how long it took."""
        start = time.perf_counter()
        answer = work()
        self.taken.append(time.perf_counter() - start)
        return answer

    @property
    def median(self) -> float:
        """The median in seconds."""
        return statistics.median(self.taken)

    @property
    def ms(self) -> str:
        """The median in milliseconds, to show."""
        return f"{self.median * 1000:.3g} ms"


@asynccontextmanager
async def engine_in(folder: Path, name: str = "", **config: Any) -> AsyncIterator[CheckpointEngine]:
    """Open an engine on SQLite, in a folder of its own unless the database is named."""
    from ckpt_engine import SnapshotConfig

    with TemporaryDirectory(dir=folder) as own:
        path = folder / name if name else Path(own) / "bench.db"
        async with await create_checkpoint_engine(
            f"sqlite:///{path}", SnapshotConfig(**config)
        ) as engine:
            yield engine


def disk_bytes(url: str) -> int:
    """Return the bytes of a database with everything that belongs to it.

    Its write-ahead log is written back first, for every contender alike: it is a few megabytes
    whatever the database holds, and says nothing about what is stored.
    """
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(p.stat().st_size for p in path.parent.glob(path.name + "*"))


_rng = random.Random(7)
_WORDS = [
    "".join(_rng.choices("etaoinshrdlucmfwypvbgk", k=_rng.randint(2, 11))) for _ in range(4000)
]
_WEIGHTS = [1 / rank for rank in range(1, len(_WORDS) + 1)]


def text(rng: random.Random, length: int) -> str:
    """Return about ``length`` characters of words as frequent as those of a natural language."""
    words = rng.choices(_WORDS, _WEIGHTS, k=length // 5)
    return " ".join(words)[:length].ljust(length, ".")


def steps(count: int, size: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield what an agent hands over at each step: a message that is also the result, and state.

    Args:
        count: How many steps.
        size: Length of the message in characters.
        seed: Other seeds give other texts.
    """
    rng = random.Random(seed)
    for number in range(count):
        if number % 2:
            message = {"role": "tool", "tool_call_id": f"call_{rng.getrandbits(64):x}"}
        else:
            message = {"role": "assistant", "name": "agent"}
        message["content"] = text(rng, size)
        yield {
            "append": [message],
            "state": {"step": number, "plan": ["look", "think", "act"], "budget": 1000 - number},
            "tools_result": message,
            "next_node": "model" if number % 2 else "tools",
            "node": message["role"],
        }


def distinct_bytes(step: dict[str, Any]) -> int:
    """Return the JSON bytes of a step that are new: its message, once, and its state."""
    return len(json.dumps(step["append"][0])) + len(json.dumps(step["state"]))
