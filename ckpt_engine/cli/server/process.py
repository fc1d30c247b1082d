"""Run the development server as a child process that never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import CliError, Exit
from .connection import answers

__all__ = ["RunningServer", "Served", "recorded", "serve"]

_RECORD = "server.json"
_LOG = "server.log"
_STARTUP_SECONDS = 60.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class RunningServer:
    """A development server of ours.

    Attributes:
        address: Such as ``127.0.0.1:7233``.
        ui: The address of its web page.
        pid: Its process.
        executable: What runs.
        database: The file it keeps its workflows in.
    """

    address: str
    ui: str
    pid: int
    executable: str
    database: str


@dataclass(frozen=True)
class Served:
    """A server that we run; ``process.wait()`` ends when it does."""

    server: RunningServer
    process: asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def serve(
    executable: Path, home: Path, *, port: int | None = None, ui_port: int | None = None
) -> AsyncIterator[Served]:
    """Run a server on loopback with its database in ``home`` until the block is left.

    Args:
        executable: The Temporal executable.
        home: Folder of its database, its log and the record by which others find it.
        port: Its port; 7233 or a free one when absent.
        ui_port: The port of its web page; ``port`` + 1000 or a free one when absent.

    Raises:
        CliError: Another one runs on this folder, a port is taken, or it does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "server.lock"):
        port = _free(port, 7233)
        ui_port = _free(ui_port, port + 1000)
        database = home / "temporal.db"
        process = await _start(executable, home, port, ui_port, database)
        server = RunningServer(
            f"127.0.0.1:{port}",
            f"http://127.0.0.1:{ui_port}",
            process.pid,
            str(executable),
            str(database),
        )
        try:
            await _until_healthy(process, server.address, home / _LOG)
            _write_record(home, server)
            yield Served(server, process)
        finally:
            (home / _RECORD).unlink(missing_ok=True)
            await _stop(process)


def recorded(home: Path) -> RunningServer | None:
    """Return the server that was started on ``home``, if one was and has not ended cleanly."""
    try:
        return RunningServer(**json.loads((home / _RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def _start(
    executable: Path, home: Path, port: int, ui_port: int, database: Path
) -> asyncio.subprocess.Process:
    with (home / _LOG).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            executable,
            *("server", "start-dev", "--ip", "127.0.0.1", "--log-level", "warn"),
            *("--port", str(port), "--ui-port", str(ui_port), "--db-filename", str(database)),
            *("--dynamic-config-value", "system.enableActivityEagerExecution=true"),
            env={k: v for k, v in os.environ.items() if not k.startswith("TEMPORAL_")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal reaches us only; we stop it in order
            preexec_fn=_die_with_parent(),
        )


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, have the kernel stop the child when we are killed."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def in_child() -> None:
        prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return in_child


async def _until_healthy(process: asyncio.subprocess.Process, address: str, log: Path) -> None:
    give_up = time.monotonic() + _STARTUP_SECONDS
    ended = asyncio.create_task(process.wait())
    try:
        while not await answers(address, within=2):
            await asyncio.wait({ended}, timeout=0.05)
            if ended.done():
                raise CliError(
                    f"the Temporal server ended at once: {_last_line(log)}",
                    f"its output is in {log}",
                    Exit.NO_SERVER,
                )
            if time.monotonic() > give_up:
                raise CliError(
                    f"the Temporal server did not answer within {_STARTUP_SECONDS:.0f} s",
                    f"its output is in {log}",
                    Exit.NO_SERVER,
                )
    finally:
        ended.cancel()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_STOP_SECONDS)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` against a second server on the same database; gone with the process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CliError(
                f"a Temporal server already runs on {path.parent}",
                "use it, or stop the `ckpt up` or `ckpt server` that runs it, or set CKPT_HOME",
                Exit.NO_SERVER,
            ) from None
        yield


def _free(wanted: int | None, preferred: int) -> int:
    """Return the wanted port if it is free, else the preferred or any free one if none is wanted.

    Raises:
        CliError: The wanted port is taken.
    """
    for port in (wanted,) if wanted else (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise CliError(
        f"port {wanted} on 127.0.0.1 is taken", "give another port, or none", Exit.NO_SERVER
    )


def _write_record(home: Path, server: RunningServer) -> None:
    scratch = home / f".{_RECORD}.{os.getpid()}"
    scratch.write_text(json.dumps(asdict(server)))
    scratch.replace(home / _RECORD)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
