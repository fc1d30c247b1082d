"""Straight-line code hears again what it had heard before the seed, whoever had heard it."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import WorkflowHandle

from ckpt_engine.temporal import BranchRequest, RewindRequest, Target

from .conftest import App, app_with
from .family import Talk, think

app = app_with(workflows=[Talk], activities=[think])


async def talking(app: App) -> WorkflowHandle[Any, list[str]]:
    """Say "a" by signal and "b" by update: steps 1 and 2."""
    handle = await app.client.start_workflow(
        Talk.run, id=f"talk-{app.task_queue}", task_queue=app.task_queue
    )
    await handle.signal(Talk.say, "a")
    async with asyncio.timeout(20):
        while (await app.sessions.status(handle.id)).step < 1:
            await asyncio.sleep(0.02)
    assert await handle.execute_update(Talk.ask, "b") == 2
    return handle


async def done(app: App, thread: str, step: int) -> None:
    async with asyncio.timeout(20):
        while (await app.engine.get_latest(thread)).step < step:
            await asyncio.sleep(0.02)


async def test_signals_and_updates_come_again_and_new_ones_wait_for_them(app: App) -> None:
    handle = await talking(app)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=2)))
    await handle.signal(Talk.say, "c")
    await handle.signal(Talk.say, "bye")
    assert await handle.result() == ["a", "b", "c"]


async def test_only_what_was_said_before_the_seed_comes_again(app: App) -> None:
    handle = await talking(app)
    await handle.execute_update(Talk.ask, "c")
    request = BranchRequest(at=Target(step=1), name="one")
    child = await app.sessions.branch(handle.id, request)
    other = app.client.get_workflow_handle(child.workflow_id)
    await other.signal(Talk.say, "bye")
    assert await other.result() == ["a"]
    await handle.signal(Talk.say, "bye")
    assert await handle.result() == ["a", "b", "c"]


async def test_what_a_stand_in_heard_comes_again_to_the_next_one(app: App) -> None:
    """Also what the first one had been sent again itself, and after the session has ended."""
    handle = await talking(app)
    first = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await handle.signal(Talk.say, "c")
    await done(app, first.thread, 3)  # 2 is where the rewound thread begins
    second = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=3)))
    await handle.signal(Talk.say, "d")
    await done(app, second.thread, 5)
    await handle.signal(Talk.say, "bye")
    assert await handle.result() == ["a", "c", "d"]
    third = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=5)))
    assert third.workflow_id == handle.id
    again = app.client.get_workflow_handle(handle.id)
    await again.signal(Talk.say, "bye")
    assert await again.result() == ["a", "c", "d"]
