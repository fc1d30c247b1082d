"""Where progress goes: lines that stay, and a display of what is going on right now."""

from __future__ import annotations

import sys
import time
from typing import IO, Protocol

__all__ = ["Reporter", "Silent", "TextReporter"]


class Reporter(Protocol):
    """Receives progress."""

    def line(self, text: str) -> None:
        """Show ``text`` on a line that stays."""

    def progress(self, text: str) -> None:
        """Show ``text`` as what is happening now; the next call replaces it."""


class Silent:
    """Shows nothing."""

    def line(self, text: str) -> None:
        """Drop ``text``."""

    def progress(self, text: str) -> None:
        """Drop ``text``."""


class TextReporter:
    """Writes plain lines; on a terminal, progress overwrites itself.

    Args:
        stream: Where to; standard error when absent, so that stdout stays for results.
        every: Without a terminal, seconds between two progress lines.
    """

    def __init__(self, stream: IO[str] | None = None, *, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._width = 0
        self._last = 0.0

    def line(self, text: str) -> None:
        """Write a line."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def progress(self, text: str) -> None:
        """Overwrite the progress line, or now and then write one where that is impossible."""
        if self._stream.isatty():
            self._clear()
            shown = text[:100]
            print(shown, end="\r", file=self._stream, flush=True)
            self._width = len(shown)
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._width:
            print(" " * self._width, end="\r", file=self._stream, flush=True)
            self._width = 0
