"""The demo, as a newcomer runs it, and what it prints to try next."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

from ckpt_engine.cli.agents import Outcome
from ckpt_engine.cli.demo import Story
from ckpt_engine.cli.demo_checks import _outcomes, _threads
from ckpt_engine.temporal.contract import ChildStatus

from .command import CKPT, Ckpt, environment
from .trees import Session


def test_the_demo_shows_everything_and_its_next_commands_work(tmp_path: Path) -> None:
    ckpt = Ckpt(environment(tmp_path))
    began = time.monotonic()
    said = ckpt("demo", timeout=120)
    assert time.monotonic() - began < 120
    for part in (
        "temporal server: started at 127.0.0.1:",
        "worker started",
        "→ signal: branch one-sentence from step",
        "→ signal: branch three-decimals from step",
        "→ signal: rewind to step 3",
        "★ rewind-1",
        "◆ one-sentence",
        "◆ three-decimals",
        "superseded by rewind-1",
        "Average wind by weather in 2014",
        str(tmp_path / "checkpoints.db"),
        "web page     http://127.0.0.1:",
    ):
        assert part in said
    up, rewind, tree = (shlex.split(line, comments=True)[1:] for line in said.splitlines()[-3:])
    assert (up[0], rewind[0], tree[0]) == ("up", "rewind", "tree")
    assert "rewind-1" in ckpt(*tree)
    with ckpt.running(*up):
        again = ckpt(*rewind)
        assert "in 2013" in again.split("\n\n")[-1]
        assert "★ rewind-2" in ckpt(*tree)


def test_the_demo_without_its_server_fails_with_one_line(tmp_path: Path) -> None:
    ckpt = Ckpt(environment(tmp_path, TEMPORAL_ADDRESS="127.0.0.1:9"))
    assert "no Temporal server answers at 127.0.0.1:9" in ckpt("demo", code=4)


def test_a_demo_whose_server_dies_says_so_and_is_no_success(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [CKPT, "demo"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "→ signal" not in process.stdout.readline():
        assert process.poll() is None
    os.kill(json.loads((tmp_path / "server.json").read_text())["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert err.splitlines()[-1] == (
        f"ckpt: the Temporal server ended; see {tmp_path / 'server.log'}"
    )
    assert "Traceback" not in err


def made_story() -> tuple[Story, Session]:
    session = Session()
    first = session.step("main")
    for name in ("rewind-1", "calm"):
        session.step(session.thread(name, first), first)
    session.change("main", superseded_by="rewind-1")
    session.active = "rewind-1"
    story = Story(handle=None)  # type: ignore[arg-type]
    story.asked = {"rewind": first, "calm": first}
    story.children = {
        name: ChildStatus(
            kind="branch" if name == "calm" else "rewind",
            workflow_id=f"wf-{name}",
            run_id="r",
            thread=name,
            branch=name,
            seed=[first],
        )
        for name in ("rewind-1", "calm")
    }
    story.outcomes = {"main": Outcome(answer="a"), "calm": Outcome(answer="b")}
    return story, session


def test_the_demo_does_not_take_its_word_for_it() -> None:
    story, session = made_story()
    assert [*_threads(story, session.tree()), *_outcomes(story)] == []

    session.active = "main"
    assert any("not with the rewind" in line for line in _threads(story, session.tree()))
    session.active = "rewind-1"
    story.asked["calm"] = "f" * 32
    assert any("thread calm leaves at" in line for line in _threads(story, session.tree()))
    del session.threads["calm"], session.infos[-1]
    assert any("no thread calm" in line for line in _threads(story, session.tree()))

    story.outcomes["calm"] = Outcome(answer="a")
    assert any("same answer" in line for line in _outcomes(story))
    story.outcomes["calm"] = Outcome(error="boom")
    assert "calm failed: boom" in list(_outcomes(story))
