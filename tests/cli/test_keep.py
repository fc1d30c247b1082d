"""What is kept, whether it is sound, and what is forgotten, by command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ckpt_engine import KEEP_LAST_N, create_checkpoint_engine

from .command import Ckpt, environment


@pytest.fixture
async def ckpt(tmp_path: Path) -> Ckpt:
    """The command, with a database of two sessions, one of them with a branch."""
    async with await create_checkpoint_engine(str(tmp_path / "checkpoints.db")) as engine:
        ids = [await engine.snapshot("trip", append=[f"say {n}"], state={"n": n}) for n in range(9)]
        branch = await engine.branch(str(ids[4]), "cheap")
        for n in range(3):
            await engine.snapshot(branch.id, append=[f"other {n}"])
        for n in range(5):
            await engine.snapshot("other", append=[n])
    return Ckpt(environment(tmp_path))


def test_gc_says_what_it_would_remove_and_removes_that_with_yes(ckpt: Ckpt) -> None:
    planned = ckpt("gc", "--keep", "last:1")
    assert "would remove 13 checkpoints" in planned
    assert "kept 1: branch point" in planned
    assert "messages of checkpoints that are gone stay" in planned
    assert "next: " in planned
    assert "ckpt gc --keep last:1 --yes" in planned
    assert len(ckpt.json("log", "trip")) == 9
    plan = ckpt.json("gc", "--session", "trip", "--keep", "last:2 | milestones:3")
    assert plan["dry_run"] is True
    done = ckpt.json("gc", "--session", "trip", "--keep", "last:2 | milestones:3", "--yes")
    assert (done["dropped"], done["kept"]) == (plan["dropped"], plan["kept"])
    assert done["dropped"]
    assert len(ckpt.json("log", "trip")) == 9 - len(done["dropped"])
    assert len(ckpt.json("log", "other")) == 5
    assert ckpt(
        "gc", "--session", "trip", "--thread", "cheap", "--keep", "last:1", "--yes"
    ).startswith("removed 2 checkpoints")


def test_verify_is_silent_about_nothing(ckpt: Ckpt, tmp_path: Path) -> None:
    assert ckpt("verify") == "17 checkpoints of 3 threads: sound\n"
    assert ckpt.json("verify")["ok"] is True
    db = sqlite3.connect(tmp_path / "checkpoints.db")
    db.execute("DELETE FROM batch WHERE pk = (SELECT max(pk) FROM batch)")
    db.commit()
    db.close()
    found = ckpt.json("verify", code=1)
    assert found["ok"] is False
    assert all(problem["where"] and problem["what"] for problem in found["problems"])


async def test_a_session_whose_first_steps_were_collected_is_listed(
    ckpt: Ckpt, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/checkpoints.db"
    async with await create_checkpoint_engine(url) as engine:
        for n in range(10):
            await engine.snapshot("my own", append=[f"message {n}"])
        await engine.collect(KEEP_LAST_N(3), session_id="my own")
    rows = {row["session"]: row["about"] for row in ckpt.json("list")}
    assert rows["my own"] == "message 9"
    assert "ckpt tree 'my own'" in ckpt("list")


async def test_what_is_left_of_a_forgotten_session_is_removed_when_it_is_said_again(
    ckpt: Ckpt, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints.db"
    async with await create_checkpoint_engine(str(path)) as engine:
        await engine.snapshot("jane", append=["a secret"])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM thread").fetchall()
        assert ckpt.json("forget", "jane", "--yes", code=1)["pending"]
        assert b"a secret" in path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()
        reader.execute("ROLLBACK")
    assert "erased what was left of jane" in ckpt("forget", "jane", "--yes")
    assert b"a secret" not in path.read_bytes()


def test_forget_asks_first_and_leaves_the_others_whole(ckpt: Ckpt) -> None:
    refused = ckpt("forget", "trip", code=2)
    assert "--yes" in refused
    assert len(ckpt.json("log", "trip")) == 9
    origin = ckpt.json("log", "trip")[4]["id"]
    secret = ckpt.json("log", "trip", "--thread", "cheap")[0]["id"]
    said = ckpt("forget", "trip/cheap", "--yes")  # a thread that is named is not its session
    assert "erased thread cheap of trip: 3 checkpoints" in said
    assert f"kept {origin[:7]}" in said
    assert "was erased on" in ckpt("show", secret, code=3)
    assert "ckpt rewind" not in ckpt("show", "trip")  # no workflow can go on from it
    assert len(ckpt.json("log", "trip")) == 9
    assert f"a checkpoint of session trip: ckpt show {origin}" in ckpt("tree", origin, code=3)
    assert ckpt.json("forget", "trip", "--yes")["kept"] == {}
    assert [row["session"] for row in ckpt.json("list")] == ["other"]
    assert "was erased on" in ckpt("tree", "trip", code=3)


def test_a_new_key_is_all_that_is_on_stdout_and_can_be_used_as_it_is(tmp_path: Path) -> None:
    made = Ckpt(environment(tmp_path))("key", "first").rstrip("\n")
    assert "\n" not in made
    with_key = Ckpt(environment(tmp_path, CKPT_KEYS=made))
    assert "no checkpoint database" in with_key("list", code=5)


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("gc",), 2, "nothing says what to keep; such as --keep"),
        (("gc", "--keep", "some"), 2, "last:N"),
        (("gc", "--session", "nobody", "--keep", "last:1"), 3, "no session 'nobody'"),
        (("gc", "--session", "trip", "--thread", "none", "--keep", "last:1"), 3, "has main, cheap"),
        (("forget", "nobody", "--yes"), 3, "no session 'nobody'"),
        (("forget", "trip", "--thread", "none", "--yes"), 3, "has main, cheap"),
    ],
)
def test_what_is_wrong_is_one_line(
    ckpt: Ckpt, args: tuple[str, ...], code: int, reason: str
) -> None:
    said = ckpt(*args, code=code)
    assert reason in said
    assert said.count("\n") == 1
