"""``ckpt db``, as people run it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ..engine.test_copy import fill
from ..engine.test_schema import DATABASES, as_first_written
from ..postgres import server, url_in
from .command import Ckpt, environment


@pytest.fixture
def ckpt(tmp_path: Path) -> Ckpt:
    return Ckpt(environment(tmp_path))


@pytest.mark.parametrize("kind", DATABASES)
def test_an_old_database_is_recognised_and_upgraded(kind: str, tmp_path: Path, ckpt: Ckpt) -> None:
    db = ("--db", as_first_written(kind, tmp_path))
    assert "ckpt db upgrade" in ckpt("list", *db, code=5)
    old = ckpt.json("db", "status", *db)
    assert old["version"] != old["newest"]
    done = ckpt.json("db", "upgrade", *db)
    assert (done["before"], done["after"]) == (old["version"], old["newest"])
    now = ckpt.json("db", "status", *db)
    assert (now["version"], now["threads"], now["checkpoints"]) == (old["newest"], 3, 12)
    assert "already" in ckpt("db", "upgrade", *db)
    assert server().password not in str((old, done, now))


def test_a_database_with_nothing_in_it_yet_is_not_taken_for_an_old_one(
    tmp_path: Path, ckpt: Ckpt
) -> None:
    db = ("--db", url_in(tmp_path))
    said = ckpt("db", "status", *db)
    assert "nothing there yet" in said
    assert "upgrade" not in said
    assert "made the tables" in ckpt("db", "upgrade", *db)
    assert "checkpoints 0" in ckpt("db", "status", *db)


async def test_copy_and_status_say_what_they_did(tmp_path: Path, ckpt: Ckpt) -> None:
    source, target = f"sqlite:///{tmp_path}/a.db", url_in(tmp_path)
    await fill(source)
    said = ckpt("db", "copy", source, target)
    assert "copied 41 checkpoints" in said
    assert server().password not in said
    assert ckpt.json("verify", "--db", target)["problems"] == []
    assert ckpt.json("db", "status", "--db", target)["checkpoints"] == 41
    assert "checkpoints already" in ckpt("db", "copy", source, target, code=2)


def test_what_is_no_checkpoint_database_is_left_alone(tmp_path: Path, ckpt: Ckpt) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()
    before = path.read_bytes()
    assert "not a checkpoint database" in ckpt("db", "upgrade", "--db", str(path), code=5)
    assert "no checkpoint database" in ckpt("db", "status", "--db", str(path) + "x", code=5)
    assert path.read_bytes() == before


def test_a_copy_of_nothing_makes_nothing(tmp_path: Path, ckpt: Ckpt) -> None:
    source, target = tmp_path / "mistyped.db", tmp_path / "new.db"
    said = ckpt("db", "copy", str(source), str(target), code=5)
    assert said.startswith(f"ckpt: there is no checkpoint database {source}")
    assert said.count("\n") == 1
    assert not source.exists()
    assert not target.exists()
