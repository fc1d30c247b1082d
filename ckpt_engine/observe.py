"""What an engine tells whoever watches it; the numbers themselves are kept elsewhere."""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["Guarded", "Observer"]

_log = logging.getLogger("ckpt_engine")


class Observer(Protocol):
    """Is told of what happens inside an engine, on its event loop; must not wait.

    What it raises is logged, and goes no further.
    """

    def committed(self, writes: int) -> None:
        """One transaction was committed; it had so many writes of different tasks."""

    def looked_up(self, *, hit: bool) -> None:
        """A parent was needed, and was (or was not) still in memory."""


class Guarded:
    """Passes on what it is told, and keeps what an observer raises from the agents."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def committed(self, writes: int) -> None:
        """One transaction was committed."""
        try:
            self._observer.committed(writes)
        except Exception:  # noqa: BLE001  (what it raises is its own affair)
            _log.exception("an observer failed")

    def looked_up(self, *, hit: bool) -> None:
        """A parent was needed."""
        try:
            self._observer.looked_up(hit=hit)
        except Exception:  # noqa: BLE001  (what it raises is its own affair)
            _log.exception("an observer failed")
