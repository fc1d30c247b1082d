"""Results on stdout, for people or as JSON; everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from .settings import Settings

__all__ = ["Output", "callable_as"]

_WIDTH = 110  # of tables that go to a file


class Output:
    """Where a command's results go.

    Args:
        as_json: Print one JSON document on stdout and nothing else there.
        settings: What the next commands that are named have to be given as well.
    """

    def __init__(self, as_json: bool, settings: Settings | None = None) -> None:
        from rich.console import Console

        self.as_json = as_json
        self._options = settings.as_options() if settings is not None else ""
        self.console: Console = Console(
            stderr=as_json, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = _WIDTH

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
            start = "next: " if number == 0 else "      "
            self.say(f"{start}{callable_as(command)}{self._options}", "dim")

    def data(self, value: Any) -> None:
        """Print the JSON document, if that is wanted."""
        if self.as_json:
            json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=_as_text)
            print(flush=True)


def callable_as(command: str) -> str:
    """Return a ``ckpt …`` command as it can be typed here: with a path where PATH has no ckpt."""
    name, _, rest = command.partition(" ")
    if name != "ckpt" or shutil.which("ckpt"):
        return command
    own = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        own = own.absolute().relative_to(Path.cwd())
    return f"{own} {rest}"


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        import base64

        return {"base64": base64.b64encode(value).decode()}
    return str(value)
