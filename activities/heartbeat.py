"""Heartbeats while something long is awaited, so that a cancellation is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

__all__ = ["heartbeating"]

_MOST_SECONDS = 2.0  # a cancellation comes as the answer to a heartbeat


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background, at least three times as often as the activity's timeout asks."""
    timeout = activity.info().heartbeat_timeout
    interval = min(_MOST_SECONDS, timeout.total_seconds() / 3) if timeout else _MOST_SECONDS
    task = asyncio.create_task(_beat(interval))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _beat(interval: float) -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(interval)
