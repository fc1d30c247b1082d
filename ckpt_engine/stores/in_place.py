"""When a commit is made on the caller's own thread, since the way to another takes too long.

A commit belongs on a thread of its own: the event loop does not wait for the disk meanwhile. But
the way there and back takes half as long as the commit, and where one agent alone writes, step
after step, to a disk that is quick, it has nobody to make way for. So there, and only there, a
small write is committed in place; the first that takes long sends the next ones to the thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from ..store import Expect

__all__ = ["InPlace"]

_QUICK = 0.002  # seconds; a worker's event loop is often held up for longer by other things
_ENOUGH = 4  # quick commits in a row, of one thread, before the next is made in place
_HELD = 0.001  # seconds for which other tasks may be held up by commits in a row
_PAUSE = 1.0  # seconds after which nobody knows how quick the disk is now
_SMALL = 64_000  # bytes of content
_PAGE = 4_096
_TOUCHED = 8  # pages that a commit writes besides its content
_LOG_PAGES = 900  # SQLite writes the log back at 1,000, within the commit that it happens to be


class InPlace:
    """Says which commits are made in place, from how those before went."""

    def __init__(self) -> None:
        self._thread: tuple[str, ...] = ()
        self._row = 0  # of commits of that thread, each alone and quick
        self._last = 0.0
        self._pages = 0  # of the log, about
        self._turn = 0.0  # when other tasks last had theirs

    def fits(self, expect: Expect | None, now: float) -> bool:
        """Return whether a write that comes now (in seconds) is to be committed in place."""
        return (
            self._row >= _ENOUGH
            and _is_small(expect)
            and expect.threads == self._thread
            and now - self._last < _PAUSE
        )

    def note(self, expects: Sequence[Expect | None], took: float, now: float) -> None:
        """Take note of writes that shared a transaction.

        Args:
            expects: What was said of each; how long a large one takes says nothing.
            took: Seconds from its begin to its end.
            now: The time, in seconds.
        """
        small = list(filter(_is_small, expects))
        thread = small[0].threads if small else self._thread
        alone = len(small) < 2 and all(e is not None and e.threads == thread for e in expects)
        if small:
            self._last = now
        if not alone or thread != self._thread or (small and took > _QUICK):
            self._thread, self._row = thread, 0
        elif small:  # else its rows were packed
            self._row += 1

    def made(self, expect: Expect | None, took: float, now: float) -> bool:
        """Take note of a commit in place; return whether the log is to be written back."""
        self._last = now
        if took > _QUICK:
            self._row = 0
        size = expect.size if _is_small(expect) else None
        self._pages += _TOUCHED + (size or 0) // _PAGE
        if self._pages < _LOG_PAGES:
            return False
        self._pages = 0
        return True

    def turn_is_due(self, now: float) -> bool:
        """Return whether other tasks are to have their turn after a commit.

        If so, they are taken to have it now. One turn of the event loop takes a twentieth of a
        commit, so not every commit is followed by one.
        """
        if now - self._turn < _HELD:
            return False
        self._turn = now
        return True

    def failed(self) -> None:
        """Take note of a write that could not be committed in place."""
        self._row = 0


def _is_small(expect: Expect | None) -> TypeGuard[Expect]:
    return expect is not None and expect.size is not None and expect.size <= _SMALL
