"""The groups of figures, each measured in a process of its own.

What one group leaves behind would be the next one's: an allocator that has once given back a large
block keeps blocks of that size at hand, and LangGraph's plain saver, which asks for a larger one at
each step, then takes a tenth less time than in a program of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import (
    branches,
    disk,
    experiments,
    histories,
    langgraph_saver,
    memory,
    overhead,
    postgres,
    reads,
    throughput,
    writes,
)
from .common import Bench, Figure, Missing

GROUPS: dict[str, Callable[[Bench], Coroutine[Any, Any, list[Figure]]]] = {
    "writes": writes.run,
    "disk": disk.run,
    "throughput": throughput.run,
    "reads": reads.run,
    "branches": branches.run,
    "langgraph": langgraph_saver.run,
    "memory": memory.run,
    "postgres": postgres.run,
    "experiments": experiments.run,
    "histories": histories.run,
    "overhead": overhead.run,
}


@dataclass
class Found:
    """What a group measured.

    Attributes:
        figures: Its figures.
        series: The single times that the plot shows, in seconds, by name.
        absent: Why there are none: a peer that is not installed, or what went wrong.
    """

    figures: list[Figure] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    absent: str = ""


def measure(name: str, quick: bool, advance: Callable[[str], None]) -> Found:
    """Measure a group in a new process, and tell what it is doing meanwhile."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(name, quick, sending))
    child.start()
    sending.close()  # so that the end of the child is the end of what is received
    try:
        while not isinstance(told := receiving.recv(), Found):
            advance(told)
        return told
    except EOFError:
        child.join()
        return Found(absent=f"{name} failed: its process ended with {child.exitcode}")
    finally:
        receiving.close()  # a child that goes on ends, and tidies up, when it next tells something
        child.join()


def _measure(name: str, quick: bool, telling: Connection) -> None:
    """Run a group and send a line for each thing it does, then what it found."""
    with TemporaryDirectory(prefix="ckpt-bench-") as folder:
        bench = Bench(Path(folder), quick, telling.send)
        try:
            found = Found(asyncio.run(GROUPS[name](bench)), bench.series)
        except Missing as missing:
            found = Found(absent=str(missing))
        except Exception as err:  # noqa: BLE001  (the other groups are measured all the same)
            found = Found(absent=f"{name} failed: {type(err).__name__}: {err}")
        telling.send(found)
