"""What the deployment page and its files name is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ckpt_engine import SnapshotConfig
from ckpt_engine.cli.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()


def test_the_workers_of_the_compose_file_find_database_and_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    services = compose["services"]
    assert {"postgres", "temporal", "worker"} == set(services)
    given = services["worker"]["environment"]
    for name in [name for name in os.environ if name.startswith("CKPT_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings().engine_url == "postgresql://ckpt@postgres:5432/ckpt"
    assert given["TEMPORAL_ADDRESS"].partition(":")[0] in services
    build = services["worker"]["build"]
    assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()
    assert services["postgres"]["environment"]["POSTGRES_USER"] == "ckpt"


def test_the_figures_of_the_page_are_those_of_the_configuration() -> None:
    config = SnapshotConfig()
    for name, value in re.findall(r"`?(?:SnapshotConfig\()?(\w+)=([\d.]+)\)?`", PAGE):
        if hasattr(config, name):
            assert getattr(config, name) == float(value), name
    assert "`group_size=256`" in PAGE
    assert "connections=4" in PAGE


def test_a_worker_without_a_server_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "worker.py"],
        cwd=tmp_path,
        env={**os.environ, "TEMPORAL_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("no Temporal server answers")
    assert "ckpt server" in line
