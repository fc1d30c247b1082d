"""What goes wrong on the command line: one line, what to do about it, an exit code."""

from __future__ import annotations

from enum import IntEnum

from ..errors import CheckpointError

__all__ = ["CliError", "Exit"]


class Exit(IntEnum):
    """Exit codes of ``ckpt``; stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NO_SERVER = 4
    NO_DATABASE = 5
    INTERRUPTED = 130


class CliError(CheckpointError):
    """Ends the command with one line on stderr.

    Args:
        message: What is wrong, in one line.
        hint: What to do about it.
        code: The exit code.
    """

    kind = "cli-error"

    def __init__(self, message: str, hint: str = "", code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
