"""What an engine tells whoever watches it; the numbers themselves are kept elsewhere."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer"]


class Observer(Protocol):
    """Is told of what happens inside an engine, on its event loop; must not raise or wait."""

    def committed(self, writes: int) -> None:
        """One transaction was committed; it had so many writes of different tasks."""

    def looked_up(self, *, hit: bool) -> None:
        """A parent was needed, and was (or was not) still in memory."""
