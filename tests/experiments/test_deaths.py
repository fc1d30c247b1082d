"""Terminal, worker and server are killed in the middle of an experiment; it ends all the same.

It is killed while trials wait for a person, when no step is in flight: a step that dies with its
worker is begun again once its heartbeat is missed, a minute later, and has tests of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cli.command import CKPT, Ckpt, environment
from .test_workflow import TABLES, questions


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.1)


def trials(ckpt: Ckpt) -> list[dict[str, Any]]:
    done = subprocess.run(
        [CKPT, "experiment", "status", "mortal", "--json"],
        env=ckpt.env,
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout).get("trials", [])
    return found


def all_wait(ckpt: Ckpt) -> bool:
    found = trials(ckpt)
    return bool(found) and all(t["state"] == "scoring" for t in found)


def test_it_survives_the_death_of_terminal_worker_and_server(tmp_path: Path) -> None:
    ckpt = Ckpt(environment(tmp_path / "home", CKPT_MODEL="scripted"), cwd=tmp_path)
    spec = {
        "name": "mortal",
        "from": {"session": "tables", "back": 0},
        "questions": questions(2),
        "variants": [{"name": "plain"}, {"name": "exact", "settings": {"decimals": 2}}],
        "scorer": {"kind": "person"},
    }
    (tmp_path / "mortal.json").write_text(json.dumps(spec))
    command = [CKPT, "experiment", "run", "mortal.json"]
    quiet = subprocess.DEVNULL
    with ckpt.running("server") as (server, served):
        with ckpt.running("worker") as (worker, _):
            ckpt("run", TABLES, "--id", "tables")
            terminal = subprocess.Popen(
                command, env=ckpt.env, cwd=tmp_path, stdout=quiet, stderr=quiet
            )
            until(lambda: all_wait(ckpt))
            for process in (terminal, worker):
                process.kill()
                process.wait()
        server.kill()
        server.wait()
        os.kill(served["pid"], signal.SIGKILL)
    with ckpt.running("server"), ckpt.running("worker"):
        for trial in trials(ckpt):
            value = "1" if trial["variant"] == "exact" else "0"
            name = f"{trial['variant']}/{trial['question']}/{trial['repeat']}"
            ckpt("experiment", "score", "mortal", name, value)
        said = subprocess.run(
            [*command, "--json"], env=ckpt.env, cwd=tmp_path, capture_output=True, check=False
        )
        (session,) = ckpt.json("list")
    report = json.loads(said.stdout)
    assert said.returncode == 6  # two pairs are too few for a winner
    assert {row["name"]: row["mean"] for row in report["variants"]} == {"plain": 0, "exact": 1}
    assert {t["state"] for t in report["trials"]} == {"scored"}
    assert session["threads"] == 1 + 4  # each trial was begun once
