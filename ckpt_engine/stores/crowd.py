"""How long a group of writes waits for more of them, so that a crowd shares few transactions.

Many agents that each write now and then seldom meet in the moment in which the connection is free,
and a transaction of its own costs each of them more than everything else of a write. So where a
crowd writes, a group waits for a small part of the time that an agent takes between two writes. One
agent, or a few, never wait.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Crowd"]

_SHARE = 0.05  # of the time between two writes of one thread
_LEAST, _MOST = 0.001, 0.01  # seconds; for less than that it is not worth it
_WINDOW = 0.25  # seconds over which writers are counted


class Crowd:
    """Counts who writes, and says how long it is worth to wait for others."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._threads: set[str] = set()
        self._writes = 0
        self._pause = 0.0
        self._size = 0

    def note(self, threads: Iterable[str], writes: int, now: float) -> None:
        """Take note of a group: the threads that it wrote to, and of how many writes it was."""
        self._threads.update(threads)
        self._writes += writes
        took = now - self._since
        if took < _WINDOW:
            return
        self._size = len(self._threads)
        pause = _SHARE * took * self._size / self._writes
        somebody_comes = pause * self._writes / took >= 1
        self._pause = min(pause, _MOST) if somebody_comes and pause >= _LEAST else 0.0
        self._since, self._threads, self._writes = now, set(), 0

    def pause(self, waiting: int, now: float) -> float:
        """Return for how many seconds a group is to wait.

        Args:
            waiting: How many writes it would be now.
            now: The time, in seconds.
        """
        if waiting * 2 >= self._size or now - self._since > 2 * _WINDOW:
            return 0.0  # most of them are here, or have gone
        return self._pause
