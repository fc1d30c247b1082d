"""The development server: started, found by others, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from temporalio.client import Client

from ckpt_engine.cli.errors import CliError, Exit
from ckpt_engine.cli.reporter import Silent
from ckpt_engine.cli.server.connection import answers, choose, given
from ckpt_engine.cli.server.process import recorded, serve
from ckpt_engine.cli.server.search import find_executable
from ckpt_engine.cli.settings import Settings

from .command import Ckpt, environment, is_alive, wait_until_gone


@pytest.fixture
async def executable() -> Path:
    settings = Settings()
    return await find_executable(Silent(), cache=settings.cache, named=settings.temporal_cli)


async def test_it_answers_while_it_runs_and_keeps_its_workflows(
    executable: Path, tmp_path: Path
) -> None:
    home = tmp_path / "new" / "home"
    async with serve(executable, home) as first:
        client = await Client.connect(first.server.address)
        await client.start_workflow("Nothing", id="kept", task_queue="none")
        assert recorded(home) == first.server
        assert (await choose(home, None, None)).ui == first.server.ui
    assert not is_alive(first.server.pid)
    assert recorded(home) is None
    async with serve(executable, home) as second:
        again = await Client.connect(second.server.address)
        assert (await again.get_workflow_handle("kept").describe()).id == "kept"


async def test_a_second_one_on_the_same_folder_is_refused_and_the_first_goes_on(
    executable: Path, tmp_path: Path
) -> None:
    async with serve(executable, tmp_path) as first:
        with pytest.raises(CliError, match="already runs on"):
            async with serve(executable, tmp_path):
                pass
        assert await answers(first.server.address)
        assert recorded(tmp_path) == first.server


async def test_a_taken_port_is_refused_and_without_a_wish_a_free_one_is_found(
    executable: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CliError, match=f"port {port} on 127.0.0.1 is taken") as caught:
            async with serve(executable, tmp_path, port=port):
                pass
    assert caught.value.code is Exit.NO_SERVER
    async with serve(executable, tmp_path / "a") as a, serve(executable, tmp_path / "b") as b:
        assert len({a.server.address, a.server.ui[7:], b.server.address, b.server.ui[7:]}) == 4


async def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "temporal"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire'\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(CliError, match="ended at once: the disk is on fire"):
        async with serve(broken, tmp_path / "home"):
            pass


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_command_and_its_server_cleanly(tmp_path: Path, how: int) -> None:
    with Ckpt(environment(tmp_path)).running("server") as (process, ready):
        assert ready["started"]
        assert Path(ready["database"]).parent == tmp_path
        process.send_signal(how)
        assert process.wait(20) == 0
        assert not is_alive(ready["pid"])
    assert not (tmp_path / "server.json").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="the kernel's help is Linux's")
def test_killing_the_command_leaves_no_server_behind(tmp_path: Path) -> None:
    ckpt = Ckpt(environment(tmp_path))
    with ckpt.running("server") as (process, ready):
        process.kill()
        wait_until_gone(ready["pid"])
    with ckpt.running("server") as (_, again):  # the record that was left does not mislead
        assert again["started"]
        assert again["pid"] != ready["pid"]


def test_a_server_that_ends_takes_the_command_along(tmp_path: Path) -> None:
    with Ckpt(environment(tmp_path)).running("server") as (process, ready):
        os.kill(ready["pid"], signal.SIGKILL)
        _, said = process.communicate(timeout=20)
        assert process.returncode == Exit.NO_SERVER
        assert "the Temporal server ended" in said


def test_a_second_command_finds_the_running_server(tmp_path: Path) -> None:
    ckpt = Ckpt(environment(tmp_path))
    with ckpt.running("server") as (_, first):
        again = ckpt.json("server")
        assert again == {"address": first["address"], "started": False}


@pytest.mark.parametrize("command", ["up", "demo"])
def test_what_is_not_installed_is_told_before_a_server_starts(command: str, tmp_path: Path) -> None:
    (tmp_path / "pydantic_ai.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pydantic_ai'\", name='pydantic_ai')\n"
    )
    ckpt = Ckpt(environment(tmp_path, PYTHONPATH=str(tmp_path)))
    said = ckpt(command, code=2)
    assert "pip install 'ckpt-engine[agent]'" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "temporal.db").exists()


def test_profiles_of_temporal_are_honoured(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text(
        '[profile.default]\naddress = "one:7233"\n'
        '[profile.cloud]\naddress = "two:7233"\nnamespace = "mine"\napi_key = "secret"\n'
        '[profile.cloud.grpc_meta]\nwho = "me"\n'
    )
    config = {"TEMPORAL_CONFIG_FILE": str(file)}
    usual = given(environ=config)
    cloud = given(environ={**config, "TEMPORAL_PROFILE": "cloud"})
    over = given("three:7233", "other", environ={**config, "TEMPORAL_ADDRESS": "four:7233"})
    assert usual is not None
    assert cloud is not None
    assert over is not None
    assert usual.config == {"target_host": "one:7233"}
    assert (cloud.address, cloud.namespace) == ("two:7233", "mine")
    assert cloud.config["api_key"] == "secret"
    assert cloud.config["tls"] is True
    assert (over.address, over.namespace) == ("three:7233", "other")
    assert given(environ={"TEMPORAL_CONFIG_FILE": str(tmp_path / "none")}) is None
    with pytest.raises(CliError, match="cannot be read") as caught:
        given(environ={**config, "TEMPORAL_PROFILE": "nobody"})
    assert caught.value.code is Exit.NO_SERVER
