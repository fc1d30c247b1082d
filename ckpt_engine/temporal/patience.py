"""Keeping at the store: tried again until it answers, heartbeating, and to the end of a commit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.worker import ActivityOutboundInterceptor
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from ..errors import Retryable

__all__ = ["Heartbeats", "Patience", "to_the_end"]

_T = TypeVar("_T")
_NO_LIMIT = timedelta(minutes=10)
_PAUSE = 0.05  # seconds before the first further try
_AT_ONCE = 0.1  # seconds after which the store counts as slow


class Heartbeats(ActivityOutboundInterceptor):
    """Remembers the user's last heartbeat details, so that ours can send them again."""

    def __init__(self, next: ActivityOutboundInterceptor) -> None:
        super().__init__(next)
        self.details: tuple[Any, ...] = tuple(next.info().heartbeat_details)

    def heartbeat(self, *details: Any) -> None:
        """Send and remember."""
        self.details = details
        self.next.heartbeat(*details)

    def repeat(self) -> None:
        """Send the last details again, those of an earlier attempt if this one had none."""
        self.next.heartbeat(*self.details)


class Patience:
    """How long an attempt at a step may keep at the store."""

    def __init__(self, info: activity.Info, heartbeats: Heartbeats | None) -> None:
        self._info = info
        self._beat = None if info.is_local else info.heartbeat_timeout
        self._heartbeats = heartbeats

    @property
    def _left(self) -> float:
        """Seconds until the attempt's time is up."""
        info = self._info
        ends = [info.started_time + (info.start_to_close_timeout or _NO_LIMIT)]
        if info.schedule_to_close_timeout is not None:
            ends.append(info.scheduled_time + info.schedule_to_close_timeout)
        return (min(ends) - datetime.now(UTC)).total_seconds()

    async def insist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Try a store operation until it works or the attempt's time is nearly up.

        A worker that shuts down does not go on trying: another one will.

        Raises:
            Retryable: It has not worked.
        """
        if self._beat is None or self._heartbeats is None:
            return await self._insist(call)
        # Heartbeat with the user's last details while the store keeps the step waiting.
        beating = asyncio.create_task(_beat(self._heartbeats, self._beat.total_seconds() / 3))
        try:
            return await self._insist(call)
        finally:
            beating.cancel()

    async def _insist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await call()  # nearly always: what follows costs more than the call
        except Retryable:
            left = self._left
            if left <= _PAUSE or _shutting_down():
                raise
        await asyncio.sleep(_PAUSE)
        return await self._again(call, left)

    async def _again(self, call: Callable[[], Awaitable[_T]], left: float) -> _T:
        out_of_time = stop_after_delay(max(0.0, left * 0.9))
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_exponential(multiplier=_PAUSE, max=2),
            stop=lambda state: out_of_time(state) or _shutting_down(),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call()
        raise AssertionError("tenacity raises the last error")


async def _beat(heartbeats: Heartbeats, pause: float) -> None:
    # The body may not have sent any for nearly the whole timeout, so the first is not put off.
    await asyncio.sleep(min(_AT_ONCE, pause))
    while True:
        heartbeats.repeat()
        await asyncio.sleep(pause)


def _shutting_down() -> bool:
    details = activity.cancellation_details()
    return details is not None and details.worker_shutdown


async def to_the_end(work: Awaitable[_T]) -> _T:
    """Wait for ``work`` to its end, whatever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
