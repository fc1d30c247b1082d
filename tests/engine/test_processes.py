"""Several processes on one database, on both backends: who is first wins, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import CheckpointEngine, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.errors import Conflict, StoreBusy

from .test_schema import DATABASES, url_of

COMMON = """
import asyncio, json, os, signal, sys, threading
from ckpt_engine import SnapshotConfig, create_checkpoint_engine
from ckpt_engine.errors import CheckpointError, Conflict
def say(what): print(json.dumps(what), flush=True)
async def main(engine, *given): ...
async def run():
    config = SnapshotConfig(busy_timeout=float(sys.argv[2]))
    async with await create_checkpoint_engine(sys.argv[1], config) as engine:
        say("open")
        sys.stdin.readline()
        await main(engine, *sys.argv[3:])
"""
EXTEND = """
async def main(engine, name, times):
    for n in range(int(times)):
        head = (await engine.get_latest("t")).id
        try:
            taken = await engine.snapshot("t", append=[name], expected_head=head)
        except Conflict:
            say({"lost": head})
        else:
            say({"won": head, "id": taken})
"""
FREEZE = """
from ckpt_engine.ops import writing
place = writing.place
def freezing(tx, draft):
    placed = place(tx, draft)
    tx.flush() if hasattr(tx, "flush") else None
    writing.place = place
    # sent to this very thread: another one might stop the process a moment too late
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return placed
async def main(engine, expects):
    writing.place = freezing
    more = {"expected_head": expects} if expects != "-" else {}
    try:
        say({"id": await engine.snapshot("t", append=["frozen"], **more)})
    except CheckpointError as err:
        say({"error": type(err).__name__})
"""
MANY = """
import time
async def main(engine, name, times):
    worst = 0.0
    for n in range(int(times)):
        begun = time.perf_counter()
        await engine.snapshot(f"thread {name}", append=[{"n": n}], state={"n": n})
        worst = max(worst, time.perf_counter() - begun)
    say({"worst": worst})
"""


class Other:
    """A process with an engine of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def hear(self) -> Any:
        """Return the next thing it says; ``None`` at its end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    async def all(self) -> list[Any]:
        """Return all that it says until its end."""
        said = []
        while (word := await asyncio.to_thread(self.hear)) is not None:
            said.append(word)
        assert self._process.wait() == 0
        return said

    async def frozen(self) -> None:
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            await asyncio.sleep(0.01)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def other(code: str, url: str, *given: str, timeout: float = 5) -> Iterator[Other]:
    """Start a process, and wait until its engine is open."""
    command = [sys.executable, "-c", f"{COMMON}{code}\nasyncio.run(run())", url, str(timeout)]
    with subprocess.Popen(
        [*command, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        made = Other(process)
        try:
            assert made.hear() == "open"
            yield made
        finally:
            if process.poll() is None:
                process.kill()


async def line_of(engine: CheckpointEngine) -> list[str]:
    """Return a thread's checkpoints, having seen that they are one line and all there is."""
    points = await engine.list_time_travel_points("t", limit=10_000)
    ids = [point.id for point in reversed(points)]
    for point, before in zip(points, [*ids[-2::-1], None], strict=True):
        assert point.parents == ((before,) if before else ())
    tree = await engine.get_checkpoint_tree("t")
    assert {node.info.id for node in tree.nodes} == set(ids)
    report = await engine.verify()
    assert report.problems == ()
    return ids


@pytest.mark.parametrize("kind", DATABASES)
async def test_of_two_that_extend_the_same_head_one_wins(kind: str, tmp_path: Path) -> None:
    url = url_of(kind, tmp_path)
    async with await create_checkpoint_engine(url) as engine:
        first = await engine.snapshot("t", append=["first"])
        with other(EXTEND, url, "a", "40") as a, other(EXTEND, url, "b", "40") as b:
            a.go()
            b.go()
            said = [word for words in await asyncio.gather(a.all(), b.all()) for word in words]
        won = [word for word in said if "won" in word]
        assert len(said) == 80
        assert len({word["won"] for word in won}) == len(won), "two extended the same head"
        ids = await line_of(engine)
        assert ids[0] == first
        assert set(ids[1:]) == {word["id"] for word in won}
        assert len((await engine.get_latest("t")).messages) == 1 + len(won)


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("expects", [True, False])
async def test_who_is_frozen_in_a_commit_overwrites_nothing_when_woken(
    kind: str, expects: bool, tmp_path: Path
) -> None:
    url = url_of(kind, tmp_path)
    async with await create_checkpoint_engine(url, SnapshotConfig(busy_timeout=1)) as engine:
        first = str(await engine.snapshot("t", append=["first"]))
        given = first if expects else "-"
        with other(FREEZE, url, given, timeout=1) as frozen:
            frozen.go()
            await frozen.frozen()
            ours = None
            if kind == "sqlite":  # it holds the file's only write lock
                with pytest.raises(StoreBusy):
                    await engine.snapshot("t", append=["ours"], expected_head=first)
                assert (await engine.get_latest("t")).id == first
            else:  # the server takes the lock from who does nothing with it
                ours = await engine.snapshot("t", append=["ours"], expected_head=first)
            frozen.thaw()
            (said,) = await frozen.all()
        if kind == "sqlite":
            with pytest.raises(Conflict):
                await engine.snapshot("t", append=["ours"], expected_head=first)
            ours = await engine.snapshot("t", append=["ours"])
            wanted = [first, said["id"], ours]
        elif expects:
            assert said == {"error": "Conflict"}
            wanted = [first, ours]
        else:
            wanted = [first, ours, said["id"]]
        assert await line_of(engine) == wanted


@pytest.mark.parametrize(("kind", "processes"), [("sqlite", 4), ("postgresql", 8)])
async def test_many_processes_write_without_an_error(
    kind: str, processes: int, tmp_path: Path
) -> None:
    url = url_of(kind, tmp_path)
    async with await create_checkpoint_engine(url) as engine:
        writers = [other(MANY, url, str(n), "60") for n in range(processes)]
        async with contextlib.AsyncExitStack() as stack:
            started = [stack.enter_context(writer) for writer in writers]
            for writer in started:
                writer.go()
            said = await asyncio.gather(*(writer.all() for writer in started))
        assert [len(words) for words in said] == [1] * processes
        for n in range(processes):
            found = await engine.get_latest(f"thread {n}")
            assert [message["n"] for message in found.messages] == list(range(60))
        report = await engine.verify()
        assert (report.problems, report.checkpoints) == ((), 60 * processes)
