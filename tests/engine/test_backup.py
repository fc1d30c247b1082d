"""A backup that was made while agents work is a sound database."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from ckpt_engine import CheckpointEngine, create_checkpoint_engine

from ..postgres import server
from .test_schema import DATABASES, url_of


def copy_of(kind: str, url: str, folder: Path) -> str:
    """Make a backup as the deployment page says, restore it, and return its URL."""
    if kind == "sqlite":
        source, target = sqlite3.connect(folder / "a.db"), sqlite3.connect(folder / "copy.db")
        source.backup(target)
        source.close()
        target.close()
        return str(folder / "copy.db")
    dump, database = str(folder / "dump"), f"restored_{sa.make_url(url).query['schema']}"
    plain = server().url()
    schema = str(sa.make_url(url).query["schema"])
    server().run("pg_dump", "--format=custom", f"--schema={schema}", f"--file={dump}", plain)
    with psycopg.connect(plain, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {database}")
    server().run("pg_restore", f"--dbname={server().url(database=database)}", dump)
    return server().url(schema, database)


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_restored_backup_is_sound_and_goes_on(kind: str, tmp_path: Path) -> None:
    url = url_of(kind, tmp_path)
    async with await create_checkpoint_engine(url) as engine:
        taken: list[str | None] = []
        working = [asyncio.create_task(_work(engine, f"t{n}", taken)) for n in range(4)]
        while len(taken) < 40:
            await asyncio.sleep(0.01)
        copy = await asyncio.to_thread(copy_of, kind, url, tmp_path)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    async with await create_checkpoint_engine(copy) as restored:
        report = await restored.verify()
        assert report.problems == ()
        assert report.checkpoints >= 40
        for n in range(4):
            found = (await restored.get_latest(f"t{n}")).messages
            assert found == list(range(len(found)))
            await restored.snapshot(f"t{n}", append=["on"])
        assert (await restored.verify()).problems == ()


async def _work(engine: CheckpointEngine, thread: str, taken: list[str | None]) -> None:
    for n in range(100_000):
        taken.append(await engine.snapshot(thread, append=[n], state={"n": n}))
        await asyncio.sleep(0.002)  # an agent thinks, too
