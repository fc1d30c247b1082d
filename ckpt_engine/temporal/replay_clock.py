"""Timers on the way to a seed: they have elapsed once, so they do not wait again.

While a workflow replays the steps before its seed, its timers are held back and go off one by
one, in the order of their deadlines, whenever no step is in flight. Those that are left when the
seed is reached run in full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["ReplayClock"]

_TICK = 0.001  # seconds; a timer of the server, so that answers under way arrive first


class _Held(asyncio.TimerHandle):
    """A timer that the server does not know of."""

    def cancel(self) -> None:
        asyncio.Handle.cancel(self)

    def go_off(self) -> None:
        if not self.cancelled():
            self._run()


class ReplayClock:
    """Stands between a workflow's event loop and its timers.

    Args:
        loop: The workflow's event loop.
        replaying: Whether the workflow is on its way to the seed.
        idle: Whether no step is in flight.
    """

    def __init__(self, loop: Any, replaying: Callable[[], bool], idle: Callable[[], bool]) -> None:
        self._loop = loop
        self._replaying = replaying
        self._idle = idle
        self._now = 0.0
        self._held: list[tuple[float, int, _Held, Any, float]] = []
        self._count = 0
        self._ticking = False
        self._passing = False
        # Every timer of a workflow goes through this one function of the SDK's loop.
        self._real = loop._timer_impl
        loop._timer_impl = self._timer

    @property
    def holds(self) -> bool:
        """Whether there are timers that have to go off."""
        return any(not entry[2].cancelled() for entry in self._held)

    async def really(self, seconds: float) -> None:
        """Wait for a time that the server measures."""
        over = self._loop.create_future()
        self._passing = True
        try:
            self._loop.call_later(seconds, lambda: over.done() or over.set_result(None))
        finally:
            self._passing = False
        await over

    def _timer(
        self,
        delay: float,
        options: Any,
        callback: Callable[..., Any],
        *args: Any,
        context: Any = None,
    ) -> asyncio.TimerHandle:
        if self._passing or not self._replaying():
            handle: asyncio.TimerHandle = self._real(
                delay, options, callback, *args, context=context
            )
            return handle
        held = _Held(self._loop.time() + delay, callback, args, self._loop, context)
        self._count += 1
        self._held.append((self._now + delay, self._count, held, options, delay))
        self._tick()
        return held

    def _tick(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._real(_TICK, self._held[0][3], self._ticked)

    def _ticked(self) -> None:
        self._ticking = False
        self._held = sorted(entry for entry in self._held if not entry[2].cancelled())
        if not self._replaying():
            for _, _, held, options, delay in self._held:
                self._real(delay, options, held.go_off)
            self._held = []
        elif self._held and self._idle():
            self._now, _, held, _, _ = self._held.pop(0)
            held.go_off()
        if self._held:
            self._tick()
