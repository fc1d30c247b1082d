"""Large values are read many at a time, and no more of them is held than that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import Keyring, SnapshotConfig, create_checkpoint_engine
from ckpt_engine.store import Blob
from ckpt_engine.stores.transaction import SqlTx

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
