"""A group waits for others only where a crowd writes, and only a little."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ckpt_engine.store import Meta, Tx
from ckpt_engine.stores import grouped
from ckpt_engine.stores.crowd import Crowd
from ckpt_engine.stores.sql import SqlStore


def crowd_of(
    agents: int, between: float, *, busy: float = 1.0, seconds: float = 2.0
) -> tuple[Crowd, float]:
    """Return what is known of agents that write one by one, each once in ``between`` seconds.

    Args:
        agents: How many.
        between: Seconds.
        busy: How many processors their process keeps busy.
        seconds: For how long.
    """
    crowd, now = Crowd(0.0, 0.0), 0.0
    for number in range(int(seconds * agents / between)):
        now = (number + 1) * between / agents
        crowd.note([f"agent-{number % agents}"], 1, now, now * busy)
    return crowd, now


def test_one_agent_never_waits_however_fast_it_is() -> None:
    for between in (0.001, 0.005, 0.1, 1.0):
        crowd, now = crowd_of(1, between)
        assert crowd.pause(1, now) == 0.0


def test_a_few_agents_never_wait() -> None:
    for between in (0.01, 0.1, 1.0):
        crowd, now = crowd_of(16, between)
        assert crowd.pause(1, now) == 0.0


def test_a_crowd_waits_for_a_small_part_of_what_an_agent_takes() -> None:
    crowd, now = crowd_of(50, 0.18)
    assert 0.02 < crowd.pause(1, now) <= 0.15 * 0.18 * 1.01  # the window ends between two writes


def test_a_crowd_waits_the_less_the_less_it_keeps_the_processor_busy() -> None:
    whole, half = (crowd_of(50, 0.18, busy=busy) for busy in (2.0, 0.5))
    assert half[0].pause(1, half[1]) == pytest.approx(whole[0].pause(1, whole[1]) / 2)
    idle, now = crowd_of(50, 0.18, busy=0.1)
    assert idle.pause(1, now) == 0.0


def test_a_crowd_of_slow_agents_waits_for_thirty_milliseconds_at_most() -> None:
    crowd, now = crowd_of(2000, 10.0)
    assert crowd.pause(1, now) == 0.03


def test_agents_so_fast_that_waiting_gains_nothing_do_not_wait() -> None:
    crowd, now = crowd_of(64, 0.004)
    assert crowd.pause(1, now) == 0.0


def test_nobody_waits_when_most_of_the_crowd_is_there() -> None:
    crowd, now = crowd_of(50, 0.2)
    assert crowd.pause(25, now) == 0.0


def test_nobody_waits_for_a_crowd_that_has_gone() -> None:
    crowd, now = crowd_of(50, 0.2)
    assert crowd.pause(1, now + 1.0) == 0.0
    for number in range(300):
        crowd.note(["the last"], 1, now + number * 0.005, now + number * 0.005)
    assert crowd.pause(1, now + 1.5) == 0.0


def test_writes_that_say_no_thread_make_no_crowd() -> None:
    crowd = Crowd(0.0, 0.0)
    for number in range(1000):
        crowd.note([], 1, number * 0.001, number * 0.001)
    assert crowd.pause(1, 1.0) == 0.0


async def test_a_write_that_comes_while_a_group_waits_shares_its_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    crowd, now = crowd_of(50, 0.2)
    waiting, go_on = threading.Event(), threading.Event()

    def wait(seconds: float) -> None:
        assert seconds == crowd.pause(1, now) > 0
        waiting.set()
        go_on.wait(30)

    def committed(tx: Tx) -> list[tuple[str]]:
        """Return what others than the writer see of the first write."""
        with closing(sqlite3.connect(path)) as other:
            return other.execute("SELECT key FROM meta WHERE key = 'first'").fetchall()

    async with AsyncExitStack() as stack:
        store = await SqlStore.open(path)
        stack.push_async_callback(store.close)
        stack.callback(go_on.set)
        store._crowd = crowd
        clock = SimpleNamespace(monotonic=lambda: now, process_time=lambda: now, sleep=wait)
        monkeypatch.setattr(grouped, "time", clock)
        first = asyncio.create_task(store.write(lambda tx: tx.insert(Meta("first", ""))))
        waited = asyncio.create_task(asyncio.to_thread(waiting.wait, 30))
        await asyncio.wait([first, waited], return_when=asyncio.FIRST_COMPLETED)
        waiting.set()
        assert not first.done(), "its group did not wait"
        second = asyncio.create_task(store.write(committed))
        await asyncio.sleep(0)  # it is in the queue
        go_on.set()
        assert await second == []
        await first
