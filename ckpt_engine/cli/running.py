"""Run a command's coroutine: signals stop it cleanly, errors become one line and an exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from ..errors import (
    CheckpointError,
    CheckpointNotFound,
    Damaged,
    Erased,
    InvalidRequest,
    NotInSession,
    StoreUnavailable,
    ThreadNotFound,
)
from .errors import CliError, Exit, from_outside
from .logs import set_up_logs

__all__ = ["run"]

_NOT_FOUND = (CheckpointNotFound, ThreadNotFound, NotInSession, Erased)
_DATABASE = (StoreUnavailable, Damaged)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    work: Coroutine[Any, Any, int | None], *, as_json: bool = False, stopped: int | None = None
) -> None:
    """Run ``work`` to its end and exit the process with its code.

    Args:
        work: The command; returns an exit code, or ``None`` for success.
        as_json: An error is printed as JSON on stdout, too.
        stopped: Exit code after Ctrl-C or SIGTERM; 128 + the signal's number when absent.
    """
    set_up_logs()
    try:
        code, by = asyncio.run(_until_stopped(work))
    except CliError as err:
        _fail(err, err.hint, err.code, as_json)
    except CheckpointError as err:
        _fail(err, "", _code_of(err), as_json)
    except BrokenPipeError:  # `ckpt log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(Exit.OK) from None
    except Exception as err:
        expected = from_outside(err)
        if expected is None:
            raise
        _fail(expected, expected.hint, expected.code, as_json)
    if by is not None:
        code = 128 + by if stopped is None else stopped
    raise SystemExit(code)


async def _until_stopped(work: Coroutine[Any, Any, int | None]) -> tuple[int, int | None]:
    loop, task, stopped_by = asyncio.get_running_loop(), asyncio.ensure_future(work), None

    def stop(number: int) -> None:
        nonlocal stopped_by
        stopped_by = number
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, int(number))
    try:
        return await task or 0, None
    except asyncio.CancelledError:
        return 0, stopped_by


def _code_of(err: CheckpointError) -> Exit:
    if isinstance(err, _NOT_FOUND):
        return Exit.NOT_FOUND
    if isinstance(err, InvalidRequest):
        return Exit.USAGE
    return Exit.NO_DATABASE if isinstance(err, _DATABASE) else Exit.FAILED


def _fail(err: CheckpointError, hint: str, code: Exit, as_json: bool) -> None:
    message = " ".join(str(err).split())
    print(f"ckpt: {message}" + (f"; {hint}" if hint else ""), file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"kind": err.kind, "message": message, "hint": hint}}))
    raise SystemExit(code)
