"""Results on stdout, for people or as JSON; everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Output"]


class Output:
    """Where a command's results go.

    Args:
        as_json: Print one JSON document on stdout and nothing else there.
    """

    def __init__(self, as_json: bool) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.console: Console = Console(
            stderr=as_json, highlight=False, markup=False, emoji=False, soft_wrap=True
        )

    @property
    def width(self) -> int | None:
        """Most cells of a line; no limit unless it is a terminal."""
        return self.console.width if self.console.is_terminal else None

    def say(self, text: str | Text = "", style: str | None = None) -> None:
        """Print a line for people; with ``--json`` on stderr."""
        self.console.print(text, style=style)

    def lines(self, lines: Iterable[Text]) -> None:
        """Print lines for people."""
        for line in lines:
            self.console.print(line)

    def following(self, *commands: str) -> None:
        """Name the next command."""
        for number, command in enumerate(commands):
            self.say(f"{'next: ' if number == 0 else '      '}{command}", "dim")

    def data(self, value: Any) -> None:
        """Print the JSON document, if that is wanted."""
        if self.as_json:
            json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=_as_text)
            print(flush=True)


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        import base64

        return {"base64": base64.b64encode(value).decode()}
    return str(value)
