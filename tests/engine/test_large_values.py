"""Large values are read many at a time, and no more of them is held than that takes."""

from __future__ import annotations

import gc
import json
import random
import sqlite3
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import Keyring, SnapshotConfig, codec, create_checkpoint_engine
from ckpt_engine.store import Blob
from ckpt_engine.stores.transaction import SqlTx
from ckpt_engine.summaries import short

LARGE = [{"role": "user", "content": f"{n} " * 2500} for n in range(500)]
CONFIG = SnapshotConfig(idle_seal_seconds=0, logs=("notes",))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what gets the tables that are read, a name for each statement."""
    asked: list[Any] = []
    select = SqlTx._select

    def counting(self: SqlTx, table: Any, *args: Any) -> list[Any]:
        asked.append(table)
        return select(self, table, *args)

    monkeypatch.setattr(SqlTx, "_select", counting)
    return asked


@pytest.mark.parametrize("keys", [None, Keyring({"k": b"k" * 32})], ids=["plain", "encrypted"])
@pytest.mark.parametrize("step", [1, 500])
async def test_large_messages_are_read_many_at_a_time(
    tmp_path: Path, counted: list[Any], keys: Keyring | None, step: int
) -> None:
    url = str(tmp_path / "a.db")
    async with await create_checkpoint_engine(url, CONFIG, keys=keys) as engine:
        for at in range(0, len(LARGE), step):
            await engine.snapshot("chat", append=LARGE[at : at + step])
    async with await create_checkpoint_engine(url, CONFIG, keys=keys) as engine:
        counted.clear()
        found = await engine.get_latest("chat")
        assert found is not None
        assert found.messages == LARGE
        assert counted.count(Blob) < 10


@pytest.mark.parametrize("name", ["values", "notes"])
async def test_so_are_those_of_a_state(tmp_path: Path, counted: list[Any], name: str) -> None:
    url = str(tmp_path / "a.db")
    texts = [f"{n} " * 2500 for n in range(200)]
    state: dict[str, Any] = {f"k{n}": text for n, text in enumerate(texts)}
    if name == "notes":
        state = {"notes": texts}
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        await engine.snapshot("chat", state=state)
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        counted.clear()
        found = await engine.get_latest("chat")
        assert found is not None
        assert found.state == state
        assert counted.count(Blob) < 8


async def test_small_messages_ask_for_none(tmp_path: Path, counted: list[Any]) -> None:
    url = str(tmp_path / "a.db")
    small = [{"content": "الخط العربي ", "n": n * 2**40, "b": b"\xd8\x03"} for n in range(300)]
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        await engine.snapshot("chat", append=small, state={"n": 1})
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        counted.clear()
        found = await engine.get_latest("chat")
        assert found is not None
        assert found.messages == small
        assert Blob not in counted


async def test_what_looks_like_a_reference_does_no_harm() -> None:
    like = b"\xd8\x03" + bytes(10) + b"\xd8\x04"
    engine = await create_checkpoint_engine("memory://", CONFIG)
    content = [item for n in range(50) for item in (like, f"{n} " * 2500, b"\xd8\x06" * 40)]
    await engine.snapshot("chat", append=[content], state={"all": content})
    found = await engine.get_latest("chat")
    assert found is not None
    assert found.messages == [content]
    assert found.state == {"all": content}
    await engine.close()


async def test_the_same_value_in_every_message_is_read_once(
    tmp_path: Path, counted: list[Any]
) -> None:
    url = str(tmp_path / "a.db")
    messages = [{"n": n, "prompt": "word " * 1000} for n in range(300)]
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        await engine.snapshot("chat", append=messages)
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        counted.clear()
        found = await engine.get_latest("chat")
        assert found is not None
        assert found.messages == messages
        assert counted.count(Blob) == 1


async def _peak(work: Callable[[], Awaitable[Any]]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        await work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


_TEXT = random.Random(1).randbytes(4_500_000).hex()
_LINES = [random.Random(n).randbytes(1500).hex() for n in range(3000)]


_SHAPES: dict[str, dict[str, Any]] = {
    "text": {"append": [{"t": _TEXT}]},
    "state": {"state": {"t": _TEXT}},
    "result": {"tools_result": {"t": _TEXT}},
    "list as result": {"tools_result": _LINES},
    "metadata": {"metadata": {"t": _TEXT}},
    "log": {"state": {"notes": _LINES}},
    "small messages": {"append": _LINES},
    "large messages": {
        "append": [{"role": "tool", "content": _TEXT[n:][:90_000]} for n in range(100)]
    },
}


@pytest.mark.parametrize("given", _SHAPES.values(), ids=_SHAPES)
async def test_no_verb_holds_more_than_about_twice_the_content(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    url = str(tmp_path / "a.db")
    size = len(json.dumps(given))
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        await engine.snapshot("chat", append=["first"])
        assert await _peak(lambda: engine.snapshot("chat", **given)) < 2.4 * size
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        assert await _peak(lambda: engine.get_latest("chat")) < 2.2 * size


async def test_verify_holds_few_large_values_at_a_time(tmp_path: Path) -> None:
    size, grows = 1_000_000, random.Random(3)
    async with await create_checkpoint_engine(str(tmp_path / "a.db"), CONFIG) as engine:
        for _ in range(40):
            await engine.snapshot("chat", append=[{"image": grows.randbytes(size)}])
        assert await _peak(engine.verify) < 15 * size


async def test_rows_of_many_bytes_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    grows = random.Random(2)
    bodies = [grows.randbytes(3000) for _ in range(800)]  # no smaller when compressed
    states: list[dict[str, Any]] = [{"t": _TEXT, "n": 1}, {"lines": _LINES}, {"lines": _LINES[:-1]}]
    taken: dict[str, Any] = {}
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        for state in states:
            taken[str(await engine.snapshot("chat", append=bodies, state=state))] = state
        await engine.snapshot("chat", append=_LINES)
    with closing(sqlite3.connect(path)) as db:
        for table in ("batch", "state", "blob"):
            longest = f"SELECT max(length(body)) FROM {table}"
            assert db.execute(longest).fetchone()[0] > 1_000_000
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        for n, (key, state) in enumerate(taken.items(), 1):
            found = await engine.get(key)
            assert (found.messages, found.state) == (bodies * n, state)
        latest = await engine.get_latest("chat")
        assert latest is not None
        assert latest.messages == bodies * 3 + _LINES
        assert (await engine.verify()).ok


@pytest.mark.parametrize(("many", "elsewhere"), [(10, False), (5000, True)])
async def test_many_messages_are_packed_while_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, *, elsewhere: bool
) -> None:
    on: set[int] = set()
    pack = codec.pack_item

    def noted(*args: Any) -> bytes:
        on.add(threading.get_ident())
        return pack(*args)

    async with await create_checkpoint_engine(str(tmp_path / "a.db"), CONFIG) as engine:
        await engine.snapshot("chat", append=["first"])
        monkeypatch.setattr(codec, "pack_item", noted)
        messages = [{"n": n} for n in range(many)]
        await engine.snapshot("chat", append=messages)
        await engine.snapshot("chat", messages=messages)
        assert (threading.get_ident() not in on) == elsewhere
        latest = await engine.get_latest("chat")
        assert latest is not None
        assert latest.messages == messages


async def test_a_large_result_is_stored_apart_and_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        result = _LINES[:100]
        for thread in ("a", "b"):
            await engine.snapshot(thread, append=["next"], tools_result=result)
        for thread in ("a", "b"):
            latest = await engine.get_latest(thread)
            assert latest is not None
            assert latest.tools_result == result
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT max(length(result)) FROM checkpoint").fetchone()[0] < 64
            assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 1
        assert (await engine.verify()).ok


async def test_a_list_that_is_message_and_result_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        for n, lines in enumerate((_LINES, [_TEXT[:5000], *_LINES])):
            message = {"role": "tool", "content": lines}
            taken = str(await engine.snapshot(f"t{n}", append=[message], tools_result=lines))
            found = await engine.get(taken)
            assert found.messages == [message]
            assert found.tools_result == lines
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT max(length(result)) FROM checkpoint").fetchone()[0] < 64
            assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 2
        assert (await engine.verify()).ok
        await engine.forget(session_id="t0")
        assert (await engine.get(taken)).tools_result == lines
        await engine.forget(session_id="t1")
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 0


async def test_texts_in_a_large_result_are_shared_as_everywhere(tmp_path: Path) -> None:
    path, text = tmp_path / "a.db", _TEXT[:5000]
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        taken = str(await engine.snapshot("said", append=[{"role": "tool", "content": text}]))
        for n, result in enumerate(([text, *range(30_000)], {"text": text, "rows": _LINES[:100]})):
            await engine.snapshot(f"t{n}", append=["next"], tools_result=result)
            found = await engine.get_latest(f"t{n}")
            assert found is not None
            assert found.tools_result == result
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 2, "the text, the rows"
        assert (await engine.verify()).ok
        for n in range(2):
            assert taken in (await engine.forget(session_id=f"t{n}")).kept
        assert (await engine.verify()).ok


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x" * 5000, "b": 1},
        {"rows": list(range(1000)), "b": {"c": ["y" * 390, "z" * 20, b"bytes"]}},
        [["w" * 500] * 50, 1],
        {"k" * 500: {"in": 'quo"te\n' * 300}},
    ],
)
def test_a_summary_of_a_large_value_is_that_of_its_beginning(value: Any) -> None:
    whole = json.dumps(value, ensure_ascii=False, default=lambda b: f"{len(b)} bytes")
    assert short(value, 1000) == " ".join(whole[:400].split())
