"""Scopes that end when nothing can wait for them, and those that their event loop closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ckpt_engine import (
    CheckpointEngine,
    create_checkpoint_engine,
    current_scope,
)


async def stream(engine: CheckpointEngine) -> AsyncGenerator[int, None]:
    async with engine.snapshot_scope("t", name="stream") as scope:
        for number in range(5):
            scope.append(number)
            yield number


async def waiting(engine: CheckpointEngine, inside: asyncio.Event) -> None:
    async with engine.snapshot_scope("t", name="work"):
        inside.set()
        await asyncio.Event().wait()


async def phases(engine: CheckpointEngine) -> list[str]:
    points = await engine.list_time_travel_points("t")
    return [point.metadata["phase"] for point in points][::-1]


def test_a_generator_that_is_left_to_the_end_of_its_loop_is_committed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = []

    async def main() -> CheckpointEngine:
        engine = await create_checkpoint_engine("memory:")
        kept.append(stream(engine))
        async for _ in kept[0]:
            break
        return engine

    async def look(engine: CheckpointEngine) -> None:
        async with engine:
            assert await phases(engine) == ["enter", "exit"]
            assert (await engine.get_latest("t")).messages == [0]

    asyncio.run(look(asyncio.run(main())))
    assert caplog.text == ""


def test_a_generator_that_its_loop_closes_after_the_engine_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with await create_checkpoint_engine("memory:") as engine:
            async for _ in stream(engine):
                break

    asyncio.run(main())
    assert [record.name for record in caplog.records] == ["ckpt_engine.scopes"]
    assert "the engine was closed" in caplog.text


async def test_a_coroutine_that_is_closed_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with await create_checkpoint_engine("memory:") as engine:
        inside = asyncio.Event()
        work = waiting(engine, inside)
        task = asyncio.create_task(work)
        await inside.wait()
        work.close()  # "ignored GeneratorExit", had it waited
        assert "work was left early, without a checkpoint: nothing waits" in caplog.text
        assert await phases(engine) == ["enter"]
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):
            await task


def test_a_generator_that_is_closed_while_its_loop_stands_still_ends_its_scope(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(create_checkpoint_engine("memory:"))
    numbers = stream(engine)
    assert loop.run_until_complete(anext(numbers)) == 0
    closing = numbers.aclose()
    with pytest.raises(StopIteration):
        closing.send(None)  # by hand, as no loop runs
    assert "nothing waits" in caplog.text
    assert current_scope() is None
    loop.run_until_complete(engine.close())
    loop.close()
