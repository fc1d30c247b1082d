"""How long a group of writes waits for more of them, so that a crowd shares few transactions.

Many agents that each write now and then seldom meet in the moment in which the connection is free,
and a transaction of its own costs each of them more than everything else of a write. So where a
crowd writes, and keeps the processor busy, a group waits for a part of the time that an agent takes
between two writes: the others have their turn meanwhile. Where agents wait for something else than
each other, the processor has time for many transactions. One agent, or a few, never wait.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Crowd"]

_SHARE = 0.15  # of the time between two writes of one thread, where one core or more is busy
_LEAST, _MOST = 0.004, 0.03  # seconds; for less than that it is not worth it
_COMING = 3  # others that are to come meanwhile; likewise
_WINDOW = 0.25  # seconds over which writers are counted


class Crowd:
    """Counts who writes, and says how long it is worth to wait for others.

    Args:
        now: The time, in seconds.
        busy: How much of a processor's time this process has had, in seconds.
    """

    def __init__(self, now: float, busy: float) -> None:
        self._since = now
        self._busy = busy
        self._threads: set[str] = set()
        self._writes = 0
        self._pause = 0.0
        self._size = 0

    def note(self, threads: Iterable[str], writes: int, now: float, busy: float) -> None:
        """Take note of a group: the threads that it wrote to, and of how many writes it was."""
        self._threads.update(threads)
        self._writes += writes
        took = now - self._since
        if took < _WINDOW:
            return
        self._size = len(self._threads)
        share = _SHARE * min(1.0, (busy - self._busy) / took)
        pause = min(share * took * self._size / self._writes, _MOST)
        worth_it = pause >= _LEAST and pause * self._writes / took >= _COMING
        self._pause = pause if worth_it else 0.0
        self._since, self._busy, self._threads, self._writes = now, busy, set(), 0

    def pause(self, waiting: int, now: float) -> float:
        """Return for how many seconds a group is to wait.

        Args:
            waiting: How many writes it would be now.
            now: The time, in seconds.
        """
        if waiting * 2 >= self._size or now - self._since > 2 * _WINDOW:
            return 0.0  # most of them are here, or have gone
        return self._pause
