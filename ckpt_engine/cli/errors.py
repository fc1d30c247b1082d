"""What goes wrong on the command line: one line, what to do about it, an exit code."""

from __future__ import annotations

from enum import IntEnum

from ..errors import CheckpointError

__all__ = ["CliError", "Exit", "from_outside"]

_EXTRAS = {"pydantic_ai": "agent", "vega_datasets": "examples"}


class Exit(IntEnum):
    """Exit codes of ``ckpt``; stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NO_SERVER = 4
    NO_DATABASE = 5
    NO_WINNER = 6
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


def from_outside(err: Exception) -> CliError | None:
    """Return what to say of an error of the server, the disk or the installation; else ``None``."""
    if isinstance(err, ModuleNotFoundError) and err.name:
        extra = _EXTRAS.get(err.name.partition(".")[0])
        if extra is None:
            return None
        return CliError(
            f"this needs {err.name}, which is not installed",
            f"pip install 'ckpt-engine[{extra}]'",
            Exit.USAGE,
        )
    if isinstance(err, OSError):
        place = f" {err.filename}" if err.filename else ""
        return CliError(f"{err.strerror or err}:{place}" if place else str(err))
    return _from_temporal(err)


def _from_temporal(err: Exception) -> CliError | None:
    from temporalio.service import RPCError, RPCStatusCode

    if not isinstance(err, RPCError):
        return None
    lost = {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}
    if err.status in lost:
        return CliError(
            f"the Temporal server answers no more: {err.message}",
            "start it again with `ckpt up`; what was done is kept",
            Exit.NO_SERVER,
        )
    return CliError(f"the Temporal server refuses: {err.message}")
