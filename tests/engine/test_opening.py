"""Several at once open a database that none of them has made yet."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from ckpt_engine import InvalidRequest, check_url, create_checkpoint_engine

OPENERS, ROUNDS = 8, 30


def test_a_new_database_is_made_once_and_nobody_is_turned_away(tmp_path: Path) -> None:
    barrier = Barrier(OPENERS)

    def open_and_write(number: int, path: Path) -> str | None:
        async def work() -> str | None:
            async with await create_checkpoint_engine(f"sqlite:///{path}") as engine:
                return await engine.snapshot(f"thread {number}", append=[{"n": number}])

        barrier.wait()
        return asyncio.run(work())

    async def threads(path: Path) -> int:
        async with await create_checkpoint_engine(f"sqlite:///{path}") as engine:
            assert (await engine.verify()).ok
            return len(await engine.list_sessions(limit=100))

    with ThreadPoolExecutor(OPENERS) as pool:
        for turn in range(ROUNDS):
            path = tmp_path / f"{turn}.db"
            ids = list(pool.map(open_and_write, range(OPENERS), [path] * OPENERS))
            assert len(set(ids)) == OPENERS
            assert asyncio.run(threads(path)) == OPENERS


async def test_several_new_databases_are_made_at_once(tmp_path: Path) -> None:
    async def open_one(number: int) -> None:
        async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/{number}.db") as engine:
            await engine.snapshot("thread")

    await asyncio.gather(*map(open_one, range(OPENERS)))


async def test_a_database_is_opened_and_read_while_another_process_is_frozen_writing(
    tmp_path: Path,
) -> None:
    url, path = f"sqlite:///{tmp_path}/a.db", str(tmp_path / "a.db")
    async with await create_checkpoint_engine(url) as engine:
        await engine.snapshot("thread", append=[{"n": 1}])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        async with await create_checkpoint_engine(url) as engine:
            assert (await engine.get_latest("thread")).messages == [{"n": 1}]


@pytest.mark.parametrize(
    "url",
    [
        *("", "sqlite:", "sqlite://a.db", "sqlite:///:memory:", "mysql://host/db", "mysql:host"),
        *("postgres:host/db", "postgresql+asyncpg://host/db", "postgresql://host:port/db"),
        *("postgresql://host/db?schema=A", "sqlite:///a.db?timeout=5"),
    ],
)
async def test_what_names_no_database_is_refused_beforehand_and_when_opened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest):
        check_url(url)
    with pytest.raises(InvalidRequest):
        await create_checkpoint_engine(url)
    assert list(tmp_path.iterdir()) == [], "no file of that name was made"


@pytest.mark.parametrize(
    "url", ["memory:", "a.db", "sqlite:///a.db", "sqlite:///is?.db", "C:a.db", "b/a:b.db"]
)
def test_what_names_one_passes_and_makes_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_url(url)
    assert list(tmp_path.iterdir()) == []
