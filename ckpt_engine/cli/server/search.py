"""Where a Temporal server executable comes from, in order; each attempt is one reported line."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import CliError, Exit
from ..reporter import Reporter
from .obtain import ObtainError, build, download

__all__ = ["GO_VERSION", "find_executable", "version_of"]

GO_VERSION = "1.5.1"
"""The newest release that ``go install`` accepts; later ones carry a replace directive."""


async def find_executable(
    report: Reporter,
    *,
    cache: Path,
    named: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """Return a working ``temporal`` executable, obtaining one if there is none.

    Order: the named one; one on PATH; one in ``cache``; the SDK's download; ``go install``.
    The last two leave it in ``cache``.

    Args:
        report: Gets one line for each attempt, and progress while something is obtained.
        cache: Folder of cached executables (made when needed).
        named: Path or command that must be used, if given.
        environ: The environment, for PATH and Go.

    Raises:
        CliError: Nothing worked, or the named one does not; says what to do.
    """
    path = environ.get("PATH", "")
    if named:
        return await _named(report, named, path)
    if found := await _first_working(report, "on PATH", _on_path(path)):
        return found
    if found := await _first_working(report, f"in the cache {cache}", _cached(cache)):
        return found
    cache.mkdir(parents=True, exist_ok=True)
    tries = [("download by the Temporal SDK", download), ("build with Go", build)]
    failures = []
    for what, obtain in tries:
        try:
            got = await obtain(report, cache, GO_VERSION, environ)
        except ObtainError as err:
            report.line(f"temporal server: {what}: {err}")
            failures.append(f"{what}: {err}")
        else:
            report.line(f"temporal server: {what}: done, kept as {got}")
            return got
    raise CliError(
        "no Temporal server executable was found or could be obtained",
        "install the Temporal CLI (https://docs.temporal.io/cli) or Go, then try again; or set "
        "TEMPORAL_ADDRESS to a running server, or CKPT_TEMPORAL_CLI to an executable",
        Exit.NO_SERVER,
    )


async def version_of(executable: Path) -> str | None:
    """Return what ``temporal --version`` says, or ``None`` where it does not run."""
    try:
        process = await asyncio.create_subprocess_exec(
            executable,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    text = out.decode(errors="replace").strip()
    return text if process.returncode == 0 and text.startswith("temporal version") else None


async def _named(report: Reporter, named: str, path: str) -> Path:
    found = shutil.which(named, path=path)
    if found and (version := await version_of(Path(found))):
        report.line(f"temporal server: named {found}: {version}")
        return Path(found)
    raise CliError(
        f"the named Temporal executable {named!r} does not work"
        if found
        else f"the named Temporal executable {named!r} does not exist",
        "correct CKPT_TEMPORAL_CLI or the option --temporal-cli, or leave it out",
        Exit.NO_SERVER,
    )


async def _first_working(report: Reporter, where: str, candidates: list[Path]) -> Path | None:
    for candidate in candidates:
        if version := await version_of(candidate):
            report.line(f"temporal server: {where}: {candidate} ({version})")
            return candidate
        report.line(f"temporal server: {where}: {candidate} does not run, passed over")
    if not candidates:
        report.line(f"temporal server: {where}: none")
    return None


def _on_path(path: str) -> list[Path]:
    found = shutil.which("temporal", path=path)
    return [Path(found)] if found else []


def _cached(cache: Path) -> list[Path]:
    def newest_first(path: Path) -> tuple[list[int], str]:
        numbers = path.name.removeprefix("temporal-").split(".")
        return [int(n) for n in numbers if n.isdigit()], path.name

    found = [p for p in cache.glob("temporal-*") if p.is_file() and os.access(p, os.X_OK)]
    return sorted(found, key=newest_first, reverse=True)
