"""A batch: list the items, work on them side by side, add up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable

TIMEOUT = timedelta(seconds=30)


@activity.defn
async def list_items(count: int) -> list[int]:
    """Return the numbers to work on."""
    return list(range(1, count + 1))


@activity.defn
async def square(item: int) -> int:
    """Work on one item."""
    return item * item


@activity.defn
async def publish(total: int) -> str:
    """Tell the world."""
    return f"total {total}"


@workflow.defn
class BatchWorkflow(Rewindable):
    """Fan out, fan in."""

    @workflow.run
    async def run(self, count: int) -> str:
        """Return what was published."""
        items = await workflow.execute_activity(list_items, count, start_to_close_timeout=TIMEOUT)
        squares = await asyncio.gather(
            *(
                workflow.execute_activity(square, item, start_to_close_timeout=TIMEOUT)
                for item in items
            )
        )
        return await workflow.execute_activity(
            publish, sum(squares), start_to_close_timeout=TIMEOUT
        )


ACTIVITIES: list[Callable[..., Any]] = [list_items, square, publish]
