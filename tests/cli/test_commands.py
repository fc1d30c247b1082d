"""The real command on a real server and worker, as people and programs use it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .command import Ckpt, environment

QUESTION = "How many rainy days are there in each year?"


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ckpt]:
    """A server and a worker that run, and the command that knows them."""
    folder = tmp_path_factory.mktemp("cli")
    command = Ckpt(environment(folder / "home", CKPT_MODEL="scripted"), cwd=folder)
    with command.running("up"):
        yield command


@pytest.fixture(scope="module")
def ended(ckpt: Ckpt) -> dict[str, Any]:
    """A session that has ended, for the tests that only look."""
    answer: dict[str, Any] = ckpt.json("run", QUESTION, "--id", "looked-at")
    return answer


def checkpoint_at(ckpt: Ckpt, session: str, step: int) -> str:
    points = ckpt.json("log", session)
    (found,) = (str(point["id"]) for point in points if point["step"] == step)
    return found


def test_run_shows_steps_and_answers(ckpt: Ckpt) -> None:
    said = ckpt("run", QUESTION, "--id", "shown")
    lines = said.splitlines()
    assert lines[0] == "started shown"
    steps = [int(line.split()[1]) for line in lines if line.startswith("main ")]
    assert sorted(steps) == list(range(len(steps))), "calls of one turn end in any order"
    assert len(steps) > 6
    assert "2012" in said
    assert "ckpt tree shown" in said


def test_a_second_run_under_an_id_shows_nothing_of_the_first(ckpt: Ckpt) -> None:
    first = ckpt.json("run", QUESTION, "--id", "twice")
    ckpt("branch", "twice", "--step", "2", "--name", "side", "--follow")
    second = ckpt("run", QUESTION, "--id", "twice", "--again")
    assert first["checkpoints"][0][:7] not in second
    assert "side " not in second
    assert second.count("asked: ") == 1


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_an_id_whose_session_has_ended_is_refused(ckpt: Ckpt, how: tuple[str, ...]) -> None:
    before = ckpt.json("list")
    said = ckpt("run", QUESTION, "--id", "looked-at", *how, code=2)
    assert "the session 'looked-at' was there already, and has ended" in said
    assert "ckpt tree looked-at" in said
    assert "--again" in said
    assert ckpt.json("list") == before


def test_an_id_that_only_the_checkpoints_know_is_refused_as_well(
    ckpt: Ckpt, ended: dict[str, Any], tmp_path: Path
) -> None:
    """A server forgets what has ended; so does a new one."""
    elsewhere = Ckpt({**ckpt.env, "CKPT_HOME": str(tmp_path)}, cwd=tmp_path)
    db = ("--db", str(Path(ckpt.env["CKPT_HOME"]) / "checkpoints.db"))
    with elsewhere.running("server"):
        said = elsewhere("run", QUESTION, "--id", "looked-at", "--detach", *db, code=2)
        assert "has ended" in said
        elsewhere("run", QUESTION, "--id", "looked-at", "--detach", "--again", *db)
        said = elsewhere("run", QUESTION, "--id", "looked-at", "--detach", *db, code=2)
        assert "runs already" in said


def test_of_a_forgotten_session_no_command_is_named_that_would_not_find_it(ckpt: Ckpt) -> None:
    ckpt("run", QUESTION, "--id", "forgotten")
    ckpt("forget", "forgotten", "--yes")
    said = ckpt("run", QUESTION, "--id", "forgotten", code=2)
    assert "begin another one under this id: --again" in said
    assert "ckpt tree" not in said
    ckpt("run", QUESTION, "--id", "forgotten", "--again")


def test_next_commands_name_what_was_asked_for_as_a_shell_takes_it(ckpt: Ckpt) -> None:
    assert "ckpt tree 'two words'" in ckpt("run", QUESTION, "--id", "two words")
    assert "see it: ckpt tree 'two words'" in ckpt("run", QUESTION, "--id", "two words", code=2)
    ckpt("branch", "two words", "--step", "1", "--name", "side", "--follow")
    for thread in ("side", "main"):
        newest = ckpt.json("log", "two words", "--thread", thread)[0]["id"]
        assert f"ckpt show {newest[:7]}" in ckpt("log", "two words", "--thread", thread)


def test_run_as_json_gives_one_document(ckpt: Ckpt, ended: dict[str, Any]) -> None:
    assert ended["workflow_id"] == "looked-at"
    assert ended["ok"] is True
    assert "2012" in ended["answer"]
    assert ended["checkpoint"] == ended["checkpoints"][-1]
    whole = ckpt.json("show", ended["checkpoint"])
    assert whole["tools_result"]["answer"] == ended["answer"]
    assert whole["messages"][0]["parts"][0]["content"] == QUESTION
    assert whole["state"]["model"] == "scripted"


def test_a_file_of_ones_own(ckpt: Ckpt, tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text("shop,amount\nnorth,10\nsouth,30\nnorth,20\n")
    answer = ckpt.json("run", "What is the total amount by shop?", "--data", str(file))["answer"]
    assert "north 30" in answer
    assert "south 30" in answer


def test_an_agent_that_fails_is_a_failure(ckpt: Ckpt) -> None:
    said = ckpt("run", QUESTION, "--max-steps", "3", "--json", code=1)
    assert "no answer after 3 steps" in said


def test_a_failed_agent_says_why_and_the_named_next_command_revives_it(ckpt: Ckpt) -> None:
    said = ckpt(
        "run", QUESTION, "--id", "keyless", "--model", "openai:gpt-5.6-sol", code=1, out=True
    )
    told = "the agent failed: the worker cannot use the model openai:gpt-5.6-sol: Set the"
    assert told in said
    assert "OPENAI_API_KEY" in said
    assert "Agent('test')" not in said, "advice for callers of another library"
    assert "main · workflow keyless · failed" in ckpt("tree", "keyless")
    named = said.rstrip().splitlines()[-1].split()[1:]
    assert named[:2] == ["rewind", "keyless"]
    assert "2012" in ckpt(*named, "--model", "scripted").split("\n\n")[-1]
    assert "rewind-1 · workflow keyless · completed" in ckpt("tree", "keyless")


@pytest.mark.usefixtures("ended")
def test_list_names_sessions_newest_first_with_their_status(ckpt: Ckpt) -> None:
    rows = {row["workflow_id"]: row for row in ckpt.json("list")}
    assert rows["looked-at"]["status"] == "completed"
    assert rows["looked-at"]["active_branch"] == "main"
    (line,) = (line for line in ckpt("list").splitlines() if line.startswith("looked-at "))
    assert f"asked: {QUESTION}" in line
    assert len(ckpt.json("list", "--limit", "1")) == 1


def test_log_newest_first_filtered_and_paged(ckpt: Ckpt, ended: dict[str, Any]) -> None:
    points = ckpt.json("log", "looked-at")
    steps = [point["step"] for point in points]
    assert steps == sorted(steps, reverse=True)
    assert points[0]["id"] == ended["checkpoint"]
    tools = ckpt.json("log", "looked-at", "--trigger", "tool_call")
    assert {point["node"] for point in tools} == {"call_tool"}
    page = ckpt.json("log", "looked-at", "--limit", "2", "--before", "4")
    assert [point["step"] for point in page] == [3, 2]
    text = ckpt("log", "looked-at", "--graph")
    assert text.index(ended["checkpoint"][:7]) < text.index(points[-1]["id"][:7])
    followed = ckpt("log", "looked-at", "--follow")
    assert ended["answer"] in followed


def test_tree_in_every_format(ckpt: Ckpt, ended: dict[str, Any]) -> None:
    text, data = ckpt("tree", "looked-at"), ckpt.json("tree", "looked-at")
    assert text.count("●") == len(data["checkpoints"]) == len(ended["checkpoints"])
    assert data["threads"][0]["workflow"]["workflow_id"] == "looked-at"
    assert json.loads(ckpt("tree", "looked-at", "--format", "json")) == data
    assert ckpt("tree", "looked-at", "--format", "mermaid").startswith("flowchart TB\n")
    assert ckpt("tree", "looked-at", "--format", "dot").startswith("digraph session {\n")


def test_ids_can_be_shortened(ckpt: Ckpt, ended: dict[str, Any]) -> None:
    full = ended["checkpoint"]
    shown = [ckpt.json("show", full[:length])["id"] for length in (4, 7, 12, 32)]
    assert shown == [full] * 4
    assert ckpt.json("show", "looked-a")["id"] == full


def test_rewind_by_id_with_an_instruction(ckpt: Ckpt) -> None:
    before = ckpt.json("run", QUESTION, "--id", "rewound")
    kept = [ckpt.json("show", checkpoint) for checkpoint in before["checkpoints"][:4]]
    target = checkpoint_at(ckpt, "rewound", 3)
    said = ckpt("rewind", target[:8], "--say", "Only in 2014, please.", "--follow")
    assert f"rewound rewound at step 3 ({target[:7]})" in said
    assert "2014" in said
    assert "2012" not in said.split("\n\n")[-1]
    steps = [line for line in said.splitlines() if line.startswith("rewind-1 ")]
    assert len(steps) > 3, "the new thread's steps are shown, and only they"
    assert not [line for line in said.splitlines() if line.startswith("main ")]
    assert [ckpt.json("show", checkpoint["id"]) for checkpoint in kept] == kept
    tree = ckpt.json("tree", "rewound")
    assert [thread["branch"] for thread in tree["threads"]] == ["main", "rewind-1"]
    assert tree["active_thread"] == tree["threads"][1]["id"]
    assert tree["threads"][1]["origin"] == target


def test_branch_with_other_settings_leaves_the_session_as_it_was(ckpt: Ckpt) -> None:
    ckpt("run", QUESTION, "--id", "branched")
    child = ckpt.json(
        *("branch", "branched", "--back", "2", "--name", "coarse"),
        *("--set", 'settings={"decimals": 0}', "--instructions", "Answer in one sentence."),
    )
    assert child["branch"] == "coarse"
    assert ckpt("log", child["workflow_id"], "--follow").count("coarse ") > 1
    tree = ckpt.json("tree", "branched")
    assert tree["active_thread"] == tree["threads"][0]["id"]
    assert tree["threads"][1]["workflow"]["workflow_id"] == child["workflow_id"]
    head = ckpt.json("show", tree["threads"][1]["head"])
    assert head["state"]["settings"] == {"decimals": 0}
    assert head["state"]["instructions"] == "Answer in one sentence."
    taken = ckpt("branch", "branched", "--back", "2", "--name", "coarse", code=2)
    assert "session 'branched' has a branch 'coarse' already" in taken


def test_a_branch_is_named_by_its_workflow_like_a_session(ckpt: Ckpt) -> None:
    ckpt("run", QUESTION, "--id", "trunk")
    child = ckpt.json("branch", "trunk", "--step", "3", "--name", "side", "--say", "only 2013")
    side = child["workflow_id"]
    assert "2013" in ckpt("log", side, "--follow").split("\n\n")[-1]
    assert ckpt("log", side).splitlines()[1].startswith("side ")
    assert ckpt.json("show", side)["thread"] == child["thread"]
    said = ckpt("rewind", side, "--step", "4", "--say", "only 2014", "--follow")
    assert "2014" in said.split("\n\n")[-1]
    tree = {thread["branch"]: thread for thread in ckpt.json("tree", "trunk")["threads"]}
    assert tree["rewind-1"]["workflow"]["workflow_id"] == side
    assert tree["side"]["superseded_by"] == tree["rewind-1"]["id"]
    assert tree["main"]["superseded_by"] is None, "the session itself was left alone"
    assert ckpt.json("show", side)["thread"] == tree["rewind-1"]["id"]


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("show", "ffffffffffff"), 3, "no checkpoint"),
        (("show", "nobody"), 3, "no checkpoint or session 'nobody'"),
        (("show", "abc"), 3, "four digits or more"),
        (("rewind", "looked-at", "--step", "400"), 3, "has steps 0 to"),
        (("rewind", "looked-at", "--tag", "nope"), 3, "nope"),
        (("rewind", "looked-at", "--step", "2", "--back", "1"), 2, "one of --step,"),
        (("rewind",), 2, "no checkpoint is named; give its id"),
        (("rewind", "looked-at", "--step", "2", "--in-flight", "x"), 2, "in_flight"),
        (("branch", "looked-at", "--step", "2", "--name", "a b"), 2, "name"),
        (("branch", "looked-at", "--step", "2", "--set", "x"), 2, "KEY=VALUE"),
        (("branch", "looked-at", "--step", "2", "--message", "[]"), 2, "JSON object"),
        (("rewind", "looked-at", "--step", "2", "--message", '{"x": 1}'), 2, "a role (user"),
        (("rewind", "looked-at", "--step", "2", "--set", "settings=5"), 2, "must be an object"),
        (("rewind", "looked-at", "--step", "2", "--next-node", "moon"), 2, "one of model"),
        (("log", "looked-at", "--thread", "none"), 3, "the session has main"),
        (("log", "looked-at", "--trigger", "none"), 2, "tool_call"),
        (("demo", "--home", "/proc/none"), 1, "No such file or directory"),
        (("tree", "nobody"), 3, "ckpt list"),
        (("run", ""), 2, "the question is empty"),
        (("run", " \n"), 2, "the question is empty"),
        (("run", QUESTION, "--id", ""), 2, "--id is empty"),
        (("run", QUESTION, "--again"), 2, "--again needs --id"),
        (("rewind", "looked-at", "--step", "2", "--say", ""), 2, "--say is empty"),
        (("run", QUESTION, "--settings", "{"), 2, "not JSON"),
        (("run", QUESTION, "--data", "/no/such/file"), 2, "no file"),
        (("list", "--db", "/no/such/place/x.db"), 5, "no checkpoint database"),
        (("run", QUESTION, "--address", "127.0.0.1:9"), 4, "no Temporal server answers"),
        (("worker", "--agent", "nothing:here"), 2, "nothing"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    ckpt: Ckpt, args: tuple[str, ...], code: int, reason: str
) -> None:
    said = ckpt(*args, code=code)
    assert reason in said
    assert said.startswith("ckpt: ")
    assert said.count("\n") == 1
    assert not re.search(r"looked-at\.[0-9a-f]{6}", said), "an id that nobody typed"
    assert "Traceback" not in said


@pytest.mark.usefixtures("ended")
def test_the_next_commands_lead_to_the_same_places(ckpt: Ckpt, tmp_path: Path) -> None:
    home = ckpt.env["CKPT_HOME"]
    elsewhere = Ckpt({**ckpt.env, "CKPT_HOME": str(tmp_path)})
    said = elsewhere("list", "--limit", "1", "--home", home)
    (first, _) = (line.split("ckpt ")[1] for line in said.splitlines()[-2:])
    assert first.endswith(f" --home {home}")
    assert "●" in elsewhere(*first.split())


def test_errors_as_json_too(ckpt: Ckpt) -> None:
    import subprocess

    from .command import CKPT

    done = subprocess.run(
        [CKPT, "show", "nobody", "--json"],
        env=ckpt.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["message"] == "no checkpoint or session 'nobody'"


def test_looking_needs_no_server_and_acting_says_that_it_does(
    ckpt: Ckpt, ended: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "copied"
    home.mkdir()
    with sqlite3.connect(Path(ckpt.env["CKPT_HOME"]) / "checkpoints.db") as source:
        with sqlite3.connect(home / "checkpoints.db") as copy:
            source.backup(copy)
        copy.close()
    source.close()
    alone = Ckpt(environment(home, TEMPORAL_ADDRESS="127.0.0.1:9"))
    assert alone.json("show", "looked-at")["id"] == ended["checkpoint"]
    assert alone.json("list")[-1]["status"] is None
    assert "no Temporal server answers" in alone("rewind", "looked-at", "--step", "1", code=4)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints.db").write_text("this is a letter, not a database\n" * 100)
    said = Ckpt(environment(tmp_path))("list", code=5)
    assert "checkpoints.db" in said


def test_ones_own_agent_in_a_folder_with_a_workflows_package(ckpt: Ckpt, tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "__init__.py").write_text("MINE = True\n")
    (tmp_path / "mine.py").write_text(
        "from pydantic_ai.messages import ModelResponse, TextPart\n"
        "from pydantic_ai.models.function import FunctionModel\n"
        "from ckpt_engine.contrib.agent import AgentSpec\n"
        "from workflows import MINE\n"
        "def answer(messages, info):\n"
        "    return ModelResponse(parts=[TextPart(f'mine: {MINE}')])\n"
        "agent = AgentSpec(model=FunctionModel(answer, model_name='own'))\n"
    )
    own = Ckpt({**ckpt.env, "CKPT_TASK_QUEUE": "own"}, cwd=tmp_path)
    with own.running("worker", "--agent", "mine:agent") as (_, ready):
        assert ready["task_queue"] == "own"
        assert own.json("run", "Hello?")["answer"] == "mine: True"


def test_version_and_help_are_quick_and_load_no_temporal(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, ckpt_engine.cli.main; print([m for m in sys.modules if m in %r])"
    heavy = ["temporalio", "sqlalchemy", "pydantic", "pydantic_ai"]
    done = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert "Travel in time" in Ckpt(environment(tmp_path))("--help")
    assert set(Ckpt(environment(tmp_path)).json("version")) == {"ckpt-engine", "temporalio"}
