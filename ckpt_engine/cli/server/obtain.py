"""Get a Temporal server executable into the cache: the SDK's download, or a build with Go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..reporter import Reporter

__all__ = ["STALL_SECONDS", "ObtainError", "build", "download"]

STALL_SECONDS = 20.0
"""A download that brings no byte for so long is given up."""

_PACKAGE = "github.com/temporalio/cli/cmd/temporal"


class ObtainError(Exception):
    """This way of obtaining the server did not work; the message says why, in one line."""


async def download(report: Reporter, cache: Path, version: str, environ: Mapping[str, str]) -> Path:
    """Let the SDK download its development server into ``cache``; return the executable.

    Raises:
        ObtainError: There is no internet, or nothing arrives for ``STALL_SECONDS``.
    """
    from temporalio.testing import WorkflowEnvironment

    async def fetch(folder: Path) -> None:
        # The SDK has no way to download without starting.
        env = await WorkflowEnvironment.start_local(download_dest_dir=str(folder))
        await env.shutdown()

    with _scratch(cache) as folder:
        task = asyncio.create_task(fetch(folder))
        try:
            await _watch_download(report, task, folder)
        except RuntimeError as err:
            raise ObtainError(_first_line(err)) from err
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        files = [p for p in folder.iterdir() if p.is_file() and os.access(p, os.X_OK)]
        if not files:
            raise ObtainError("the SDK left no executable behind")
        newest = max(files, key=lambda p: p.stat().st_size)
        return newest.replace(cache / "temporal-sdk")


async def _watch_download(report: Reporter, task: asyncio.Task[None], folder: Path) -> None:
    began = changed = time.monotonic()
    size = 0
    while not task.done():
        await asyncio.wait({task}, timeout=0.5)
        now = time.monotonic()
        arrived = sum(p.stat().st_size for p in folder.iterdir())
        if arrived != size:
            size, changed = arrived, now
        elif now - changed > STALL_SECONDS:
            raise ObtainError(f"nothing arrived for {STALL_SECONDS:.0f} s")
        report.progress(f"  downloading: {size / 1e6:.1f} MB, {now - began:.0f} s")
    await task


async def build(report: Reporter, cache: Path, version: str, environ: Mapping[str, str]) -> Path:
    """Build the server with ``go install`` into ``cache``; return the executable.

    Takes about four minutes on two cores; the progress shows the package at hand.

    Raises:
        ObtainError: There is no Go, or the build fails.
    """
    go = shutil.which("go", path=environ.get("PATH", ""))
    if go is None:
        raise ObtainError("no `go` on PATH")
    report.line(
        f"temporal server: building {_PACKAGE}@v{version} with Go, about four minutes, once"
    )
    with _scratch(cache) as folder:
        process = await asyncio.create_subprocess_exec(
            go,
            "install",
            "-v",
            f"{_PACKAGE}@v{version}",
            env={**environ, "GOBIN": str(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said = await _watch_build(report, process)
        finally:
            _kill_group(process)
            await process.wait()
        built = folder / "temporal"
        if process.returncode != 0 or not built.exists():
            raise ObtainError(f"go install failed: {' | '.join(said[-3:]) or 'it said nothing'}")
        return built.replace(cache / f"temporal-{version}")


async def _watch_build(report: Reporter, process: asyncio.subprocess.Process) -> list[str]:
    assert process.stderr is not None
    began, count, now_at = time.monotonic(), 0, "starting"
    said: list[str] = []
    while True:
        try:
            async with asyncio.timeout(1):
                raw = await process.stderr.readline()
        except TimeoutError:
            raw = b"\n"
        if not raw:
            return said
        if text := raw.decode(errors="replace").strip():
            said.append(text)
            count += not text.startswith("go: ")
            now_at = text.removeprefix("go: ")
        elapsed = int(time.monotonic() - began)
        report.progress(
            f"  building: {elapsed // 60}:{elapsed % 60:02d}, {count} packages, {now_at}"
        )


def _kill_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder beside the final place, so that the last move is atomic."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".obtaining-") as folder:
        yield Path(folder)


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or ["failed"])[0]
