"""The thread that owns a connection ends when it should, and leaves nothing half done."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.stores.worker import Worker

NEVER_CLOSED = """
import asyncio, sys
from ckpt_engine import create_checkpoint_engine
async def main():
    engine = await create_checkpoint_engine(sys.argv[1])
    tasks = [asyncio.create_task(engine.snapshot(f"t{n}", append=["x"])) for n in range(50)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    sys.exit(3)
asyncio.run(main())
"""


async def test_functions_run_in_turn_and_their_errors_reach_who_waits() -> None:
    worker, done = Worker("test"), list[int]()
    first, second = (worker.run(lambda n=n: done.append(n)) for n in range(2))  # type: ignore[misc]
    await asyncio.gather(first, second)
    assert done == [0, 1]
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(threading.current_thread) is not threading.current_thread()
    worker.stop()
    worker.stop()


async def test_the_thread_ends_when_nobody_holds_the_worker() -> None:
    worker = Worker("test")
    thread = await worker.run(threading.current_thread)
    held = weakref.ref(worker)
    del worker
    gc.collect()
    assert held() is None
    assert not thread.is_alive()


async def test_whose_loop_has_ended_hears_nothing_and_the_thread_goes_on() -> None:
    worker, may = Worker("test"), threading.Event()
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        task = asyncio.create_task(worker.run(may.wait))
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(loop.run_until_complete, ask())
    loop.close()
    may.set()
    assert await worker.run(lambda: "goes on") == "goes on"
    worker.stop()


async def test_a_process_that_ends_without_closing_ends_at_once_and_keeps_what_it_wrote(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", NEVER_CLOSED, url], timeout=60, check=False
    )
    assert ended.returncode == 3
    async with await create_checkpoint_engine(url) as engine:
        report = await engine.verify()
        assert report.problems == ()
        assert report.checkpoints > 0
