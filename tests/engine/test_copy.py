"""Copying a database, from one kind to the other and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ckpt_engine import CheckpointEngine, Keyring, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.errors import InvalidRequest, SchemaMismatch, StoreBusy, WrongKey
from ckpt_engine.quickstart import copy_database, open_store
from ckpt_engine.store import TABLES, Meta, ThreadRow

from ..postgres import url_in


async def fill(url: str, many: int = 40) -> None:
    async with await create_checkpoint_engine(url) as engine:
        await engine.create_thread("empty")
        for n in range(many):
            await engine.snapshot(f"t{n % 3}", append=[{"n": n}], state={"n": n, "s": "x" * n})
        await engine.snapshot("t0", append=[{"large": "0123456789" * 700}], tags=["big"])
        ids = [point.id for point in await engine.list_time_travel_points("t0", limit=100)]
        for n in range(12):  # more moves of one thread than a page would split
            await engine.rewind(ids[n % 4])
        await engine.branch(ids[3], "side")
        await engine.pin(ids[:2], "owner", ttl_seconds=600)
        await engine.snapshot("secret", append=["secret"])
        await engine.forget(session_id="secret")


async def rows_of(url: str) -> dict[str, list[object]]:
    store = await open_store(url, SnapshotConfig())
    try:
        found = {}
        for table, kept in TABLES.items():
            rows = await store.read(lambda tx, t=table: tx.find(t))  # type: ignore[misc]
            found[kept.name] = [r for r in rows if not str(r[0]).startswith("floor:")]
        return found
    finally:
        await store.close()


def nothing(*_: object) -> None:
    """Take no note of progress."""


async def test_there_and_back_everything_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckpt_engine.stores.copying._PAGE", 5)
    monkeypatch.setattr("ckpt_engine.stores.copying._LARGE", {})
    first, second, third = str(tmp_path / "a.db"), url_in(tmp_path), str(tmp_path / "b.db")
    await fill(first)
    told: list[tuple[str, int, int]] = []
    counts = await copy_database(first, second, lambda *now: told.append(now))
    await copy_database(second, third, nothing)
    assert counts["checkpoint"] == 41
    assert counts["head_move"] == 11
    assert ("checkpoint", 41, 41) in told
    original = await rows_of(first)
    assert await rows_of(second) == original
    assert await rows_of(third) == original
    for url in (second, third):
        async with await create_checkpoint_engine(url) as engine:
            assert (await engine.verify()).problems == ()
            await goes_on(engine)


async def test_an_encrypted_copy_is_made_of_what_was_begun_in_the_clear(tmp_path: Path) -> None:
    plain, sealed, copied = str(tmp_path / "a.db"), str(tmp_path / "b.db"), url_in(tmp_path)
    keys = Keyring({"mine": b"k" * 32})
    await fill(plain)
    with pytest.raises(InvalidRequest, match="ckpt db copy"):
        await create_checkpoint_engine(plain, keys=keys)
    counts = await copy_database(plain, sealed, nothing, keys=keys)
    assert counts["checkpoint"] == 41
    with pytest.raises(WrongKey, match="'mine'"):
        await create_checkpoint_engine(sealed)
    await copy_database(sealed, copied, nothing)  # needs no key
    for url in (sealed, copied):
        async with (
            await create_checkpoint_engine(plain) as old,
            await create_checkpoint_engine(url, keys=keys) as new,
        ):
            for thread in ("t0", "t1", "t2"):
                for point in await old.list_time_travel_points(thread, limit=100):
                    assert await new.get(point.id) == await old.get(point.id)
            await goes_on(new)
    assert b"0123456789" in Path(plain).read_bytes()
    assert b"0123456789" not in Path(sealed).read_bytes()


async def test_an_encrypted_copy_that_was_interrupted_needs_its_key_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckpt_engine.stores.copying._PAGE", 5)
    plain, sealed = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    keys = Keyring({"mine": b"k" * 32})
    await fill(plain)

    def stop(name: str, done: int, of: int) -> None:
        if name == "checkpoint" and done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy_database(plain, sealed, stop, keys=keys)
    with pytest.raises(WrongKey):
        await copy_database(plain, sealed, nothing)
    await copy_database(plain, sealed, nothing, keys=keys)
    async with await create_checkpoint_engine(sealed, keys=keys) as engine:
        assert (await engine.verify()).problems == ()


async def goes_on(engine: CheckpointEngine) -> None:
    """Work on in a copy: no key is given twice."""
    await engine.snapshot("t1", append=["on"])
    await engine.snapshot("new", append=["on"])
    await engine.undo("t0")
    await engine.snapshot("t0", append=["on"], state={"on": True})
    assert (await engine.verify()).problems == ()


async def test_an_interrupted_copy_goes_on_and_cannot_be_used_before(tmp_path: Path) -> None:
    source, target = str(tmp_path / "a.db"), url_in(tmp_path)
    await fill(source)

    def stop(table: str, copied: int, total: int) -> None:
        if table == "checkpoint" and copied == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy_database(source, target, stop)
    with pytest.raises(SchemaMismatch, match="not finished"):
        await create_checkpoint_engine(target)
    other = str(tmp_path / "other.db")
    await fill(other, 15)
    with pytest.raises(InvalidRequest, match="unfinished copy"):
        await copy_database(other, target, nothing)
    async with await create_checkpoint_engine(source) as engine:  # and the source went on
        await engine.snapshot("t0", append=["later"])
        await engine.tag((await engine.get_latest("t1")).id, "later")
    begun: dict[str, int] = {}

    def note(table: str, copied: int, _: int) -> None:
        begun.setdefault(table, copied)

    await copy_database(source, target, note)
    assert begun["checkpoint"] == 41, "it began again from the start"
    assert await rows_of(target) == await rows_of(source)
    async with await create_checkpoint_engine(target) as engine:
        assert (await engine.verify()).problems == ()


async def test_a_database_with_checkpoints_is_no_target(tmp_path: Path) -> None:
    source, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    await fill(source, 15)
    await fill(target, 16)
    before = await rows_of(target)
    with pytest.raises(InvalidRequest, match="checkpoints already"):
        await copy_database(source, target, nothing)
    assert await rows_of(target) == before


async def test_a_source_that_is_being_written_is_no_source(tmp_path: Path) -> None:
    source, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    await fill(source, 15)
    async with await create_checkpoint_engine(source) as engine:

        async def busy() -> None:
            while True:
                await engine.snapshot("busy", append=["x"])

        writing = asyncio.create_task(busy())
        with pytest.raises(StoreBusy, match="stop its workers"):
            await copy_database(source, target, nothing)
        writing.cancel()
    await copy_database(source, target, nothing)
    assert await rows_of(target) == await rows_of(source)


async def test_the_comparison_finds_a_row_that_differs(tmp_path: Path) -> None:
    source, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    await fill(source, 15)

    def stop(table: str, copied: int, total: int) -> None:
        if table == "meta":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy_database(source, target, stop)
    store = await open_store(target, SnapshotConfig())
    thread = await store.read(lambda tx: tx.find(ThreadRow)[0])
    await store.write(lambda tx: tx.update(thread._replace(step=77)))
    await store.write(lambda tx: tx.insert(Meta("stray", "1")))
    await store.close()
    await copy_database(source, target, nothing)  # so it is copied again
    assert await rows_of(target) == await rows_of(source)
