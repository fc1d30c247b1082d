"""``ckpt experiment`` and ``ckpt diff`` as people and CI use them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..cli.command import CKPT, Ckpt, environment
from .test_workflow import TABLES, questions

NO_WINNER = 6


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ckpt]:
    folder = tmp_path_factory.mktemp("experiments")
    command = Ckpt(environment(folder / "home", CKPT_MODEL="scripted"), cwd=folder)
    with command.running("up"):
        command("run", TABLES, "--id", "tables", "--settings", '{"decimals": 0}')
        yield command


def written(ckpt: Ckpt, name: str, **changed: Any) -> str:
    spec = {
        "name": name,
        "from": {"session": "tables", "thread": "main", "back": 0},
        "questions": questions(7),
        "variants": [{"name": "plain"}, {"name": "exact", "settings": {"decimals": 2}}],
        "scorer": {"kind": "contains"},
        **changed,
    }
    assert ckpt.cwd is not None
    path = ckpt.cwd / f"{name}.yaml"
    path.write_text(json.dumps(spec, indent=1))
    return path.name


@pytest.fixture(scope="module")
def won(ckpt: Ckpt) -> dict[str, Any]:
    report: dict[str, Any] = ckpt.json("experiment", "run", written(ckpt, "won"))
    return report


def test_a_winner_is_exit_code_0_and_running_it_again_attaches(
    ckpt: Ckpt, won: dict[str, Any]
) -> None:
    assert won["verdict"]["winner"] == "exact"
    assert [t["score"] for t in won["trials"] if t["variant"] == "exact"] == [1.0] * 7
    said = ckpt("experiment", "run", "won.yaml")
    assert "attached to experiment-won" in said
    assert "★ exact" in said
    assert "exact is better than plain by +1" in said
    assert ckpt.json("experiment", "run", "won.yaml") == won
    assert ckpt.json("experiment", "status", "won") == won


def test_no_winner_is_exit_code_6(ckpt: Ckpt) -> None:
    same = [{"name": "plain"}, {"name": "same", "state": {"other": 1}}]
    path = written(ckpt, "none", variants=same, questions=questions(2))
    assert ckpt("experiment", "run", path, "--json", code=NO_WINNER)
    code, report = standing(ckpt, "none")
    assert code == NO_WINNER
    assert report["verdict"]["why"].startswith("no winner: with 95% confidence")
    said = ckpt("experiment", "run", path, code=NO_WINNER, out=True)
    assert "promote none --variant NAME" in said, "without a variant it would be refused"


def test_why_trials_have_failed_is_said_once(ckpt: Ckpt) -> None:
    path = written(ckpt, "poor", questions=questions(2), budget={"per_trial": {"steps": 1}})
    ckpt("experiment", "run", path, code=NO_WINNER)
    said = ckpt("experiment", "status", "poor", code=NO_WINNER, out=True)
    reason = "budget: the budget is used up: 1 steps"
    assert f"plain/wind-0/1 and 3 more {reason}" in said
    assert said.count(reason) == 1


@pytest.mark.usefixtures("won")
def test_the_report_in_the_terminal_and_as_a_page(ckpt: Ckpt, won: dict[str, Any]) -> None:
    said = ckpt("experiment", "report", "won", "--html", "won.html")
    digest = won["seeds"][0]["digest"]
    assert f"digest {digest}" in said
    assert "14 of 14 trials began as exactly that checkpoint plus their override" in said
    assert "exact: settings = {'decimals': 2}" in said
    compare = re.search(r"next: \S*ckpt (diff \w+ \w+)", said)
    assert compare is not None
    assert questions(1)[0]["expected"] in ckpt(*compare[1].split())
    assert ckpt.cwd is not None
    page = (ckpt.cwd / "won.html").read_text()
    assert page.count("<svg") == 2
    assert digest in page
    assert "exact against plain" in page
    links = re.findall(
        r"(?:src|href)=|url\(|@import|<script|https?://(?!www\.w3\.org/2000/svg)", page
    )
    assert links == []  # self-contained


def test_diff_shows_messages_state_and_cost(ckpt: Ckpt, won: dict[str, Any]) -> None:
    plain, exact = (next(t for t in won["trials"] if t["variant"] == v) for v in ("plain", "exact"))
    found = ckpt.json("diff", plain["head"][:12], exact["branch"])
    assert found["a"]["id"] == plain["head"]
    assert found["b"]["id"] == exact["head"]
    assert found["merge_base"]["id"] == won["seeds"][0]["checkpoint"]
    first = found["messages"][0]
    assert first["a"] == first["b"]
    assert first["a"]["content"] == questions(1)[0]["say"]
    last = found["messages"][-1]
    assert last["a"] != last["b"]
    settings = next(change for change in found["state"] if change["key"] == "settings")
    assert (settings["before"], settings["after"]) == ({"decimals": 0}, {"decimals": 2})
    took = found["took"]["b"]
    assert took["steps"] == exact["spent"]["steps"] + 1  # the branch's first checkpoint as well
    assert took["output_tokens"] == exact["spent"]["output_tokens"]
    said = ckpt("diff", plain["workflow_id"], exact["workflow_id"])
    assert "they part after step" in said
    assert questions(1)[0]["expected"] in said
    assert "tokens written" in said


def test_what_is_wrong_is_said_with_its_place(ckpt: Ckpt) -> None:
    path = written(ckpt, "wrong", repeats=0)
    said = ckpt("experiment", "run", path, code=2)
    assert re.search(r"wrong\.yaml:\d+:\d+: repeats: Input should be greater", said)
    assert "no experiment 'nothing'" in ckpt("experiment", "status", "nothing", code=3)
    assert "cannot read gone.yaml" in ckpt("experiment", "run", "gone.yaml", code=2)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"checkpoint": "0" * 32}, "there is no checkpoint 0000"),
        ({"session": "nobody", "back": 0}, "there is no session 'nobody'"),
        ({"session": "tables", "thread": "main", "step": 400}, "thread 'main' has steps 0 to"),
        ({"session": "tables", "tag": "none"}, "session 'tables' has the tag 'none'"),
    ],
)
def test_an_experiment_from_what_is_not_there_is_not_started(
    ckpt: Ckpt, tmp_path: Path, start: dict[str, Any], reason: str
) -> None:
    name = f"unknown-{list(start)[-1]}"
    unknown = written(ckpt, name, **{"from": start})
    assert reason in ckpt("experiment", "run", unknown, code=3)
    assert f"no experiment '{name}'" in ckpt("experiment", "status", name, code=3)
    # Where the database is elsewhere, the worker looks.
    server = json.loads((Path(ckpt.env["CKPT_HOME"]) / "server.json").read_text())
    away = Ckpt({**ckpt.env, "CKPT_HOME": str(tmp_path)}, cwd=ckpt.cwd)
    said = away("experiment", "run", unknown, "--address", server["address"], code=3)
    assert reason in said


@pytest.mark.usefixtures("won")
def test_another_specification_of_the_same_name_is_refused_unless_run_again(ckpt: Ckpt) -> None:
    same = [{"name": "plain"}, {"name": "exact", "settings": {"decimals": 1}}]
    path = written(ckpt, "twice", questions=questions(1))
    ckpt("experiment", "run", path, code=NO_WINNER)
    written(ckpt, "twice", variants=same, questions=questions(1))
    assert "another specification" in ckpt("experiment", "run", path, code=2)
    ckpt("experiment", "run", path, "--again", code=NO_WINNER)


def test_a_person_scores_and_the_experiment_can_be_cancelled(ckpt: Ckpt) -> None:
    path = written(
        ckpt, "judged", scorer={"kind": "person", "ask": "Is it so?"}, questions=questions(1)
    )
    ckpt("experiment", "run", path, "--detach")
    while [t["state"] for t in standing(ckpt, "judged")[1]["trials"]] != ["scoring"] * 2:
        pass
    shown = ckpt("experiment", "status", "judged", code=1, out=True)
    assert "Is it so?" in shown
    assert "ckpt experiment score judged plain/wind-0/1 0.8" in shown
    given = ckpt.json("experiment", "score", "judged", "exact/wind-0/1", "0.9", "--by", "ann")
    assert (given["score"], given["by"], given["state"]) == (0.9, "ann", "scored")
    said = ckpt("experiment", "score", "judged", "exact/wind-0/1", "0.9", code=2)
    assert "does not wait for a score; these do: plain/wind-0/1" in said
    assert "it was cancelled" in ckpt("experiment", "cancel", "judged")
    code, report = standing(ckpt, "judged")
    assert (code, report["state"]) == (1, "canceled")
    assert [t["state"] for t in report["trials"]] == ["canceled", "scored"]


def standing(ckpt: Ckpt, name: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and report of ``ckpt experiment status``."""
    done = subprocess.run(
        [CKPT, "experiment", "status", name, "--json"],
        env=ckpt.env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_winner_is_promoted_with_a_record(ckpt: Ckpt, won: dict[str, Any]) -> None:
    best = next(t for t in won["trials"] if t["variant"] == "exact")
    done = ckpt.json("experiment", "promote", "won", "--why", "it is exact", "--by", "ann")
    assert (done["trial"], done["how"], done["by"]) == ("exact/wind-0/1", "rewind", "ann")
    head = ckpt.json("show", "tables")
    assert head["id"] == done["checkpoint"]
    assert head["parents"] == [best["head"]]
    assert head["metadata"]["reason"].startswith("promoted by ann: it is exact (experiment")
    again = ckpt.json("experiment", "promote", "won", "--why", "once more", "--by", "bob")
    assert again == done  # it was decided; the record stands
    assert "by ann" in ckpt("experiment", "report", "won")
    answer = ckpt("log", "tables", "--follow")
    assert questions(1)[0]["expected"] in answer  # its result is the session's


def test_run_again_it_does_not_report_what_was_promoted_before(ckpt: Ckpt) -> None:
    path = written(ckpt, "redone", questions=questions(1))

    def promoted() -> list[str]:
        report = ckpt.json("experiment", "report", "redone", code=NO_WINNER)
        return [one["trial"] for one in report["promotions"]]

    ckpt("experiment", "run", path, code=NO_WINNER)
    ckpt("experiment", "promote", "redone", "--variant", "exact", "--why", "it is exact")
    assert promoted() == ["exact/wind-0/1"]
    ckpt("experiment", "run", path, "--again", code=NO_WINNER)
    assert promoted() == []


def test_a_check_starts_nothing(ckpt: Ckpt) -> None:
    said = ckpt("experiment", "run", written(ckpt, "checked"), "--check")
    assert "checked, 2 variants, 14 trials" in said
    ckpt("experiment", "status", "checked", code=3)
