"""Where the server's executable comes from, with stand-ins for other people's programs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ckpt_engine.cli.errors import CliError, Exit
from ckpt_engine.cli.server import obtain
from ckpt_engine.cli.server.obtain import ObtainError, build, download
from ckpt_engine.cli.server.search import find_executable

from .command import wait_until_gone

UNREACHABLE = "http://127.0.0.1:9"
PACKAGE = "github.com/temporalio/cli/cmd/temporal@v1.5.1"


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, text: str) -> None:
        self.seen.append(text)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def temporal(path: Path, version: str) -> Path:
    return program(path, f"echo 'temporal version {version}'")


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, UNREACHABLE)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_order_named_then_path_then_the_newest_in_the_cache(tmp_path: Path) -> None:
    cache, report = tmp_path / "cache", Lines()
    named = temporal(tmp_path / "named" / "t", "1")
    on_path = temporal(tmp_path / "path" / "temporal", "2")
    temporal(cache / "temporal-1.5.1", "3")
    newest = temporal(cache / "temporal-1.10.0", "4")
    program(cache / "temporal-9.9.9", "exit 1")  # such as one for another machine
    path = {"PATH": str(on_path.parent)}
    nothing = {"PATH": str(tmp_path / "empty")}

    assert await find_executable(report, cache=cache, named=str(named), environ=path) == named
    assert await find_executable(report, cache=cache, environ=path) == on_path
    assert await find_executable(report, cache=cache, environ=nothing) == newest
    assert [line.removeprefix("temporal server: ") for line in report.lines] == [
        f"named {named}: temporal version 1",
        f"on PATH: {on_path} (temporal version 2)",
        "on PATH: none",
        f"in the cache {cache}: {cache / 'temporal-9.9.9'} does not run, passed over",
        f"in the cache {cache}: {newest} (temporal version 4)",
    ]


@pytest.mark.parametrize(("content", "reason"), [("exit 1", "work"), (None, "exist")])
async def test_a_named_executable_that_fails_is_not_replaced_by_another(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    temporal(tmp_path / "cache" / "temporal-1", "1")
    named = tmp_path / "mine"
    if content is not None:
        program(named, content)
    with pytest.raises(CliError, match=f"does not {reason}") as caught:
        await find_executable(Lines(), cache=tmp_path / "cache", named=str(named))
    assert caught.value.code is Exit.NO_SERVER


@pytest.mark.usefixtures("no_internet")
async def test_without_internet_it_is_built_with_go_and_found_the_next_time(
    tmp_path: Path,
) -> None:
    cache, report = tmp_path / "cache", Lines()
    go = program(
        tmp_path / "bin" / "go",
        f'[ "$*" = "install -v {PACKAGE}" ] || exit 7\n'
        "echo 'go: downloading example.com/a v1' >&2\necho example.com/a/b >&2\n"
        'printf "#!/bin/sh\\necho temporal version built\\n" > "$GOBIN/temporal"\n'
        'chmod +x "$GOBIN/temporal"',
    )
    environ = {"PATH": f"{go.parent}:/usr/bin:/bin"}
    found = await find_executable(report, cache=cache, environ=environ)
    assert found == cache / "temporal-1.5.1"
    assert list(cache.iterdir()) == [found], "nothing else is left there"
    assert any("download by the Temporal SDK: " in line for line in report.lines)
    assert any("building: 0:00, 1 packages, example.com/a/b" in text for text in report.seen)
    again = Lines()
    assert await find_executable(again, cache=cache, environ=environ) == found
    assert again.seen == []


@pytest.mark.usefixtures("no_internet")
async def test_when_nothing_works_it_says_what_to_do(tmp_path: Path) -> None:
    cache, report = tmp_path / "cache", Lines()
    with pytest.raises(CliError, match="no Temporal server executable") as caught:
        await find_executable(report, cache=cache, environ={"PATH": str(tmp_path)})
    assert "TEMPORAL_ADDRESS" in caught.value.hint
    assert caught.value.code is Exit.NO_SERVER
    assert "build with Go: no `go` on PATH" in report.lines[-1]
    assert list(cache.iterdir()) == []


async def test_a_build_that_fails_or_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    program(tmp_path / "go", "echo 'cannot find module' >&2; exit 1")
    with pytest.raises(ObtainError, match="cannot find module"):
        await build(Lines(), cache, "1.5.1", environ)
    program(tmp_path / "go", f"sleep 60 & echo $! > {tmp_path}/child; echo started >&2; wait")
    report = Lines()
    task = asyncio.create_task(build(report, cache, "1.5.1", environ))
    while not any("started" in text for text in report.seen):
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(cache.iterdir()) == []
    child = int((tmp_path / "child").read_text())
    wait_until_gone(child)  # killed with its whole group


async def test_a_download_that_stalls_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(obtain, "STALL_SECONDS", 1.0)
    try:
        with pytest.raises(ObtainError, match="nothing arrived for 1 s"):
            await download(Lines(), tmp_path / "cache", "default", os.environ)
    finally:
        server.close()
        for writer in held:
            writer.close()
    assert list((tmp_path / "cache").iterdir()) == []
