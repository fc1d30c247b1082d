"""What is forgotten is gone from the file, byte by byte."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ckpt_engine import (
    KEEP_LAST_N,
    Checkpoint,
    CheckpointEngine,
    Erased,
    SnapshotConfig,
    WorkflowRun,
    create_checkpoint_engine,
)

SECRET = "Jane Q. Public, 4 Elm Street"
MAGIC = b"\x28\xb5\x2f\xfd"
BODIES = ("batch", "body"), ("state", "body"), ("blob", "body"), ("checkpoint", "result")


async def _say(engine: CheckpointEngine, thread: str, word: str, n: int) -> str:
    """Take a checkpoint that has the word in everything that has content."""
    noise = "".join(random.Random(n).choices("abcdefghij ", k=n * 37 % 900))
    taken = await engine.snapshot(
        thread,
        append=[{"role": "user", "content": f"{noise} {word} {n}"}],
        state={"n": n, "who": f"{word} {n}", "long": f"{word} {n // 5} " * 300, "log": [word] * n},
        tools_result={"found": f"{n} {word}", "rows": [noise] * 3},
        metadata={"note": f"{word} {n}"},
        node=f"node {word}",
        next_node=f"next {word}",
        summary=f"about {word}",
        tags=[f"tag {word} {n}"],
    )
    return str(taken)


def _bytes_of(path: Path) -> bytes:
    """Return every byte of the database and its log, freed pages included."""
    wal = path.with_name(path.name + "-wal")
    return path.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


def _occurrences(data: bytes, word: str) -> list[str]:
    """Return where a word stands in the bytes, as they are or within anything compressed."""
    found = [f"raw at {data.index(word.encode())}"] if word.encode() in data else []
    at = data.find(MAGIC)
    while at >= 0:
        try:
            content = zstandard.ZstdDecompressor().decompressobj().decompress(data[at:])
        except zstandard.ZstdError:
            content = b""
        if word.encode() in content:
            found.append(f"compressed at {at}")
        at = data.find(MAGIC, at + 1)
    return found


def _bodies(path: Path) -> list[bytes]:
    db = sqlite3.connect(path)
    bodies = [
        row[0]
        for table, column in BODIES
        for row in db.execute(f'SELECT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL')
    ]
    db.close()
    return bodies


def _probes(path: Path) -> list[bytes]:
    """Return pieces of every stored row, as they stand in the file."""
    bodies = _bodies(path)
    return [body[at : at + 16] for body in bodies for at in range(24, len(body) - 40, 100)]


async def _whole(engine: CheckpointEngine, *threads: str) -> dict[str, Checkpoint]:
    return {
        info.id: await engine.get(info.id)
        for thread in threads
        for info in await engine.list_time_travel_points(thread, limit=None)
    }


async def _live(engine: CheckpointEngine, name: str) -> list[str]:
    """Let a thread with the secret live beside one without; return the ids of the first."""
    rng, ids = random.Random(27), []
    for n in range(100):
        await _say(engine, "t", "harmless", 40 + n)
        numbers = [rng.randrange(3000) for _ in range(rng.randrange(3))]
        ids += [await _say(engine, name, SECRET, number) for number in numbers]
        chance = rng.random()
        if chance < 0.05:
            await engine.optimize()  # leaves copies of what it packs
        elif chance < 0.1:
            await engine.collect(KEEP_LAST_N(rng.randrange(1, 30)))
        elif chance < 0.2:
            ids.append(str(await engine.snapshot(name, messages=[f"edited {SECRET}"] * 3)))
    run = {k: f"{k} {SECRET}" for k in ("namespace", "workflow_id", "run_id")}
    await engine.register_run(name, WorkflowRun(**run, workflow_type="T", task_queue="q"))
    await engine.pin(ids[-1:], f"owner {SECRET}", ttl_seconds=60)
    return ids


@pytest.mark.parametrize("how", ["plain", "packed", "shortened", "shortened and dropped"])
async def test_who_has_a_large_value_of_the_forgotten_is_told_wherever_it_stands(how: str) -> None:
    """A summary among old messages is stored apart from the checkpoints that read it."""
    document = {"role": "system", "content": "a long document " * 2000}
    said = [{"n": n} for n in range(100)]
    async with await create_checkpoint_engine("memory:") as engine:
        secret = await engine.snapshot("jane", append=[document])
        reader = await engine.snapshot("other", append=said)
        if how in ("plain", "packed"):
            reader = await engine.snapshot("other", append=[document])
            await engine.snapshot("other", append=["on"])
        else:
            short = [*said[:5], document, *said[60:]]
            reader = await engine.snapshot("other", messages=short)
        if how == "shortened and dropped":
            reader = await engine.snapshot("other", append=["on"])
            await engine.collect(KEEP_LAST_N(1), thread_id="other")
        if how == "packed":
            await engine.optimize()
        report = await engine.forget(thread_id="jane")
        assert report.erased == (secret,)
        assert report.kept == {reader: "it has a large value of the same content"}
        assert (await engine.get_latest("other")).messages.count(document) == 1
        assert (await engine.verify()).ok


@pytest.mark.parametrize("packed", [False, True])
async def test_who_has_it_is_told_also_where_a_survivor_reads_the_very_row(packed: bool) -> None:
    """The main thread goes on from within the branch: of one row a part stays, a part goes."""
    shared, own = ({"role": "user", "content": f"{what} document " * 2000} for what in "ab")
    async with await create_checkpoint_engine("memory:") as engine:
        others = [await engine.snapshot("elsewhere", append=[d]) for d in (shared, own)]
        other = await engine.snapshot("another", append=[{"content": "c document " * 2000}])
        await engine.snapshot("t", append=["one"])
        branch = (await engine.branch((await engine.get_latest("t")).id, "side")).id
        first = await engine.snapshot(branch, append=[shared, "two"])
        await engine.snapshot("t", parent_checkpoint_id=first, append=["three"])
        await engine.snapshot(branch, append=[own])
        if packed:
            await engine.optimize()
        report = await engine.forget(thread_id=branch)
        assert "went on from it" in report.kept[(await engine.get_latest("t")).id]
        same = {i for i, why in report.kept.items() if "same content" in why}
        assert set(others) <= same
        assert other not in report.kept
        assert (await engine.get_latest("t")).messages == ["one", shared, "two", "three"]
        assert (await engine.verify()).ok


async def _added(engine: CheckpointEngine, thread: str, message: str) -> str:
    return str(await engine.snapshot(thread, append=[message]))


async def test_who_has_a_message_that_only_the_forgotten_still_read_is_told() -> None:
    """Of the thread that said it nothing is left but what a branch of it inherited."""
    document = "a document " * 2000
    async with await create_checkpoint_engine("memory:") as engine:
        first = await _added(engine, "t", "one")
        said = await _added(engine, (await engine.branch(first, "side")).id, document)
        deep = (await engine.branch(said, "deep")).id
        last = await _added(engine, deep, "two")
        await engine.rewind(last, thread_id="t")
        assert (await engine.forget(thread_id="t/side")).erased == (said,)
        await engine.rewind(first, thread_id="t")
        other = await _added(engine, "other", document)
        report = await engine.forget(thread_id=deep)
        assert report.erased == (last,)
        assert dict(report.kept) == {
            first: "the branch began here; it belongs to thread 't'",
            other: "it has a large value of the same content",
        }
        assert (await engine.verify()).ok


async def test_of_a_message_that_what_is_named_has_nobody_else_is_told() -> None:
    document = "a document " * 2000
    async with await create_checkpoint_engine("memory:") as engine:
        first = await _added(engine, "t", "one")
        side = (await engine.branch(first, "side")).id
        large = await _added(engine, "t", document)
        await engine.snapshot("t", append=["two"])
        await engine.snapshot("other", append=[document])
        await engine.rewind(large, thread_id=side)
        await engine.snapshot(side, append=["three"])
        report = await engine.forget(thread_id=side)
        assert dict(report.kept) == {
            first: "the branch began here; it belongs to thread 't'",
            large: "the branch went on from it; it belongs to thread 't'",
        }
        assert (await engine.verify()).ok


PAD = {f"key {n}": "padding " * 3 for n in range(30)}
BIG = {"document": f"{SECRET} " * 2000}
LEFT: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "a state that others stand on": ([{"state": {**PAD, **BIG}}, {"state": PAD}], False),
    "such a state, and they have it": (
        [{"state": {**PAD, **BIG}}, {"state": {**PAD, **BIG, "n": 1}}],
        True,
    ),
    "a row of messages": (
        [{"messages": ["1", "2", "3", BIG]}, {"messages": ["1", "2", "3", "4"]}],
        False,
    ),
}


@pytest.mark.parametrize("backend", ["sqlite", "memory"])
@pytest.mark.parametrize("what", LEFT)
async def test_what_a_collection_left_in_another_session_holds_nothing_back(
    tmp_path: Path, what: str, backend: str
) -> None:
    path = tmp_path / "a.db"
    snapshots, has_it = LEFT[what]
    async with await create_checkpoint_engine(str(path) if backend == "sqlite" else "memory:") as e:
        await e.snapshot("mine", append=[BIG])
        for given in snapshots:
            await e.snapshot("other", **given)
        await e.collect(KEEP_LAST_N(1), session_id="other")
        before = await e.get_latest("other")
        report = await e.forget(session_id="mine")
        assert list(report.kept) == ([before.id] if has_it else [])
        after = await e.get_latest("other")
        assert (after.messages, after.state) == (before.messages, before.state)
        assert (await e.verify()).ok
        await e.snapshot("other", append=["goes on"], state={**before.state, "more": 1})
        assert (await e.get_latest("other")).state == {**before.state, "more": 1}
        assert (await e.verify()).ok
        if backend == "sqlite":
            assert bool(_occurrences(_bytes_of(path), SECRET)) == has_it


@pytest.mark.parametrize("what", ["branch", "session"])
async def test_no_byte_of_a_secret_is_left(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(logs=("log",), idle_seal_seconds=0)
    async with await create_checkpoint_engine(str(path), config) as engine:
        ids = [await _say(engine, "t", "harmless", n) for n in range(40)]
        await _say(engine, "other", "unrelated", 1)
        name = f"user {SECRET}"
        if what == "branch":
            name = (await engine.branch(ids[20], f"with {SECRET}")).id
        secret = (await _live(engine, name))[-1]
        nested = (await engine.branch(secret, "nested")).id
        await _say(engine, nested, SECRET, 7)
        others = await _whole(engine, "t", "other")
        assert _occurrences(_bytes_of(path), SECRET)
        probes = set(_probes(path))

        given = {"thread_id": name} if what == "branch" else {"session_id": name}
        report = await engine.forget(**given)
        assert secret in report.erased
        assert not report.pending
        assert list(report.kept) == ([ids[20]] if what == "branch" else [])
        data, left = _bytes_of(path), _bodies(path)
        assert _occurrences(data, SECRET) == []
        assert [p for p in probes if p in data and not any(p in body for body in left)] == []
        assert any(p not in data for p in probes)
        assert await _whole(engine, "t", "other") == others
        for thread in (name, nested):
            with pytest.raises(Erased, match="erased on"):
                await engine.get_thread(thread)
        assert (await engine.verify()).ok
    assert _occurrences(_bytes_of(path), SECRET) == []


async def _until_gone(path: Path) -> None:
    while _occurrences(_bytes_of(path), SECRET):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["again", "upkeep"])
async def test_a_reader_makes_it_wait_and_it_is_finished_later(tmp_path: Path, by: str) -> None:
    path = tmp_path / "a.db"
    config = SnapshotConfig(busy_timeout=0.2, idle_seal_seconds=0.01)
    async with await create_checkpoint_engine(str(path), config) as engine:
        secret = await _say(engine, "t", SECRET, 1)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM checkpoint").fetchone() == (1,)
        report = await engine.forget(session_id="t")
        assert (report.erased, report.pending) == ((secret,), True)
        with pytest.raises(Erased):
            await engine.get(secret)
        reader.close()
        if by == "again":
            report = await engine.forget(session_id="t")
            assert (report.erased, report.pending) == ((), False)
            assert _occurrences(_bytes_of(path), SECRET) == []
        else:
            await asyncio.wait_for(_until_gone(path), 30)
        assert (await engine.verify()).ok


async def test_another_process_that_remembers_it_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with (
        await create_checkpoint_engine(path) as one,
        await create_checkpoint_engine(path) as two,
    ):
        plan = {"plan": [f"step {n}" for n in range(50)]}
        first = str(await two.snapshot("t", append=["first"], state=plan))
        side = (await two.branch(first, "side")).id
        secrets = [
            str(await two.snapshot(side, append=[SECRET], state={**plan, "who": [SECRET, n]}))
            for n in range(4)
        ]
        # the main thread goes on from the branch with a state that is a difference from its
        await two.snapshot("t", state={**plan, "n": 5}, parent_checkpoint_id=secrets[-1])
        own = await two.get_latest("t")
        report = await one.forget(thread_id=side)
        assert set(report.erased) == set(secrets)
        assert report.kept == {
            first: "the branch began here; it belongs to thread 't'",
            own.id: "thread 't' went on from it",
        }
        for call in (two.get(secrets[0]), two.snapshot(side, append=["more"])):
            with pytest.raises(Erased):
                await call
        last = str(await two.snapshot("t", append=["on"], state={**plan, "n": 6}))
        for engine in (one, two):
            found = await engine.get(last)
            assert found.messages == [*own.messages, "on"]
            assert (found.state, found.parents) == ({**plan, "n": 6}, (own.id,))
            assert (await engine.get(own.id)).parents == (first,)
        assert (await one.verify()).ok
