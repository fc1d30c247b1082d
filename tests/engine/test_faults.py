"""What goes wrong around the database: a typed error, retried where that makes sense."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from ckpt_engine import CheckpointEngine, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.errors import InvalidRequest, StoreBusy, StoreUnavailable, Unstorable
from ckpt_engine.stores.postgres import PostgresTx
from ckpt_engine.testing.postgres import PostgresServer

from ..postgres import server, url_in

QUICK = SnapshotConfig(busy_timeout=0.5)


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server of the test's own, to be killed."""
    server()  # skips where there can be none
    made = PostgresServer()
    yield made
    made.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def ask(sql: str, **given: Any) -> list[Any]:
    """Ask the server past the engine."""
    with psycopg.connect(server().url(), autocommit=True) as db:
        done = db.execute(sql, given)
        return done.fetchall() if done.description else []


async def said(engine: CheckpointEngine, thread: str) -> list[Any]:
    """Return a thread's messages, having seen that every checkpoint added one."""
    points = await engine.list_time_travel_points(thread, limit=10_000)
    messages = (await engine.get_latest(thread)).messages
    assert len(points) == len(messages)
    return messages


async def test_writers_outlive_a_killed_server_and_store_nothing_twice(
    mortal: PostgresServer,
) -> None:
    stop = asyncio.Event()
    async with await create_checkpoint_engine(mortal.url()) as engine:

        async def write(thread: str) -> list[int]:
            n = 0
            while not stop.is_set():
                await engine.snapshot(thread, append=[n])
                n += 1
            return list(range(n))

        writers = [asyncio.create_task(write(f"t{k}")) for k in range(8)]
        for _ in range(5):
            await asyncio.sleep(0.1)  # let some commits happen, at whatever moment
            mortal.kill()
            await asyncio.to_thread(mortal.start)
        stop.set()
        for k, wrote in enumerate(await asyncio.gather(*writers)):
            assert await said(engine, f"t{k}") == wrote
        assert (await engine.verify()).problems == ()


async def test_a_closed_connection_is_replaced_unnoticed(tmp_path: Path) -> None:
    async with await create_checkpoint_engine(url_in(tmp_path)) as engine:
        for n in range(20):
            await engine.snapshot("t", append=[n])
            await engine.get_latest("t")
            if n % 4 == 0:
                ask(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'ckpt-engine'"
                )
        assert await said(engine, "t") == list(range(20))


async def test_a_server_that_stays_away_is_unavailable_and_comes_back(
    mortal: PostgresServer,
) -> None:
    async with await create_checkpoint_engine(mortal.url(), QUICK) as engine:
        await engine.snapshot("t", append=[0])
        mortal.kill()
        for work in (engine.snapshot("t", append=[1]), engine.get_thread("t")):
            with pytest.raises(StoreUnavailable) as lost:
                await work
            assert mortal.password not in str(lost.value)
        with pytest.raises(StoreUnavailable) as lost:
            await create_checkpoint_engine(mortal.url(), QUICK)
        assert mortal.password not in str(lost.value)
        await asyncio.to_thread(mortal.start)
        await engine.snapshot("t", append=[2])
        assert await said(engine, "t") in ([0, 2], [0, 1, 2])


async def test_too_few_connections_are_a_typed_error(tmp_path: Path) -> None:
    url = sa.make_url(url_in(tmp_path))
    await (await create_checkpoint_engine(url.render_as_string(hide_password=False))).close()
    role = f"few_{url.query['schema']}"
    ask(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'few'")
    ask(f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 1")
    ask(f"GRANT ALL ON SCHEMA {url.query['schema']} TO {role}")
    ask(f"GRANT ALL ON ALL TABLES IN SCHEMA {url.query['schema']} TO {role}")
    ask(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {url.query['schema']} TO {role}")
    few = url.set(username=role, password="few").render_as_string(hide_password=False)
    with pytest.raises(StoreUnavailable, match="too many connections"):
        await create_checkpoint_engine(few, QUICK)


async def test_more_reads_than_connections_wait_their_turn(tmp_path: Path) -> None:
    config = SnapshotConfig(connections=2)
    async with await create_checkpoint_engine(url_in(tmp_path), config) as engine:
        await engine.snapshot("t", append=[0])
        found = await asyncio.gather(*(engine.get_latest("t") for _ in range(50)))
        assert all(one == found[0] for one in found)


async def test_what_postgresql_locks_is_busy(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    schema = sa.make_url(url).query["schema"]
    async with await create_checkpoint_engine(url, QUICK) as engine:
        await engine.snapshot("t", append=[0])
        with psycopg.connect(server().url()) as db:
            db.execute(f'LOCK TABLE "{schema}".checkpoint')
            with pytest.raises(StoreBusy):
                await engine.snapshot("t", append=[1])
            with pytest.raises(StoreBusy):
                await engine.verify()
            db.rollback()
        await engine.snapshot("t", append=[2])
        assert await said(engine, "t") == [0, 2]


async def test_a_locked_file_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), QUICK) as engine:
        await engine.snapshot("t", append=[0])
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await engine.snapshot("t", append=[1])
        assert await said(engine, "t") == [0]
        db.close()
        await engine.snapshot("t", append=[2])
        assert await said(engine, "t") == [0, 2]


async def fill_up(engine: CheckpointEngine) -> int:
    """Write until the disk is full; return how many checkpoints were stored."""
    for n in range(10_000):
        try:
            await engine.snapshot("t", append=[{"n": n, "load": os.urandom(20_000)}])
        except StoreUnavailable as err:
            assert "full" in str(err) or "space" in str(err)  # noqa: PT017
            return n
    raise AssertionError("the disk never became full")


async def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    async with await create_checkpoint_engine(str(small_disk / "a.db"), QUICK) as engine:
        count = await fill_up(engine)
        assert [m["n"] for m in await said(engine, "t")] == list(range(count))
        ballast.unlink()
        await engine.snapshot("t", append=[{"n": count}])
        assert [m["n"] for m in await said(engine, "t")] == list(range(count + 1))
        assert (await engine.verify()).problems == ()


async def test_a_full_disk_of_the_server_leaves_nothing_half_written(
    small_disk: Path, tmp_path: Path
) -> None:
    url = url_in(tmp_path)
    for folder in (small_disk, *tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)
    space = sa.make_url(url).query["schema"]
    (small_disk / "space").mkdir()
    subprocess.run(["chown", "nobody", str(small_disk / "space")], check=True)
    ask(f"CREATE TABLESPACE {space} LOCATION '{small_disk / 'space'}'")
    given = f"{url}&options=-c%20default_tablespace%3D{space}"
    async with await create_checkpoint_engine(given, QUICK) as engine:
        count = await fill_up(engine)
        assert [m["n"] for m in await said(engine, "t")] == list(range(count))
        assert (await engine.verify()).problems == ()
    ask(f"DROP SCHEMA {space} CASCADE")
    ask(f"DROP TABLESPACE {space}")


async def test_a_read_only_file_is_unavailable_for_writing(small_disk: Path) -> None:
    path = small_disk / "a.db"
    async with await create_checkpoint_engine(str(path), QUICK) as engine:
        await engine.snapshot("t", append=[0])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailable, match="read-only"):
        async with await create_checkpoint_engine(str(path), QUICK) as engine:
            await engine.snapshot("t", append=[1])


async def test_text_that_postgresql_cannot_hold_is_refused(tmp_path: Path) -> None:
    async with await create_checkpoint_engine(url_in(tmp_path)) as engine:
        await engine.snapshot("t", append=["a\0b"], state={"k\0": "\0"})  # content may be anything
        with pytest.raises((Unstorable, InvalidRequest)):
            await engine.snapshot("thread \0", append=["x"])
        with pytest.raises((Unstorable, InvalidRequest)):
            await engine.snapshot("t", append=["x"], node="node \0")
        assert (await engine.get_latest("t")).state == {"k\0": "\0"}
        assert (await engine.verify()).problems == ()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("mysql://me:secret@host/db", "postgresql://"),
        ("postgresql+asyncpg://me:secret@host/db", "postgresql://"),
        ("postgresql://me:secret@host:port/db", "postgresql://"),
        ("postgresql://me:secret@127.0.0.1:1/db", "cannot be used"),
        ("postgresql://me:secret@127.0.0.1:1/db?schema=Bad-Name", "small letters"),
        ("postgresql://me@127.0.0.1:1/db?password=secret", "cannot be used"),
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_without_the_password(
    url: str, advice: str
) -> None:
    with pytest.raises((InvalidRequest, StoreUnavailable), match=advice) as refused:
        await create_checkpoint_engine(url, QUICK)
    assert "secret" not in str(refused.value)


async def test_the_password_is_nowhere_shown(tmp_path: Path) -> None:
    async with await create_checkpoint_engine(url_in(tmp_path)) as engine:
        assert server().password not in engine.url
        assert server().password not in repr(vars(engine))


async def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    monkeypatch.delitem(
        __import__("sys").modules, "ckpt_engine.stores.postgres_store", raising=False
    )
    with pytest.raises(InvalidRequest, match=r"ckpt-engine\[postgres\]"):
        await create_checkpoint_engine("postgresql://host/db")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_lost_in_the_commit_leaves_no_doubt(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = PostgresTx.commit
    lost: list[str] = []

    def losing(tx: PostgresTx) -> None:
        if not lost:
            lost.append(tx.number)
            if when == "after":
                commit(tx)
            tx._db.close()
            raise psycopg.OperationalError("the server is gone")
        commit(tx)

    async with await create_checkpoint_engine(url_in(tmp_path)) as engine:
        await engine.snapshot("t", append=[0])
        monkeypatch.setattr(PostgresTx, "commit", losing)
        taken = await engine.snapshot("t", append=[1])
        assert lost
        assert (await engine.get_latest("t")).id == taken
        await engine.snapshot("t", append=[2])
        assert await said(engine, "t") == [0, 1, 2]
        assert (await engine.verify()).problems == ()
