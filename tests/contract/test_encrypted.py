"""The engine keeps its promises when its content is encrypted, and keeps its content to itself."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from ckpt_engine import (
    CheckpointEngine,
    Corrupted,
    InvalidRequest,
    Keyring,
    SnapshotConfig,
    WrongKey,
    create_checkpoint_engine,
)
from ckpt_engine.keys import new_key
from ckpt_engine.store import (
    TABLES,
    Batch,
    Blob,
    BlobRef,
    CheckpointRow,
    Edge,
    HeadMoveRow,
    Lineage,
    Meta,
    Pin,
    RunRow,
    StateRow,
    Store,
    TagRow,
    ThreadRow,
    Tombstone,
)
from ckpt_engine.stores.encrypted import _BODIES, _DIGESTS, EncryptedStore
from ckpt_engine.stores.sql import SqlStore
from ckpt_engine.testing import EngineContract, StoreContract

OLD, NEW = Keyring({"old": b"o" * 32}), Keyring({"new": b"n" * 32})
BOTH = Keyring({"new": b"n" * 32, "old": b"o" * 32})
SECRET = "the launch code is 8-5-2-0-mango"


class TestEncryptedStore(StoreContract):
    async def open_store(self, folder: Path) -> Store:
        return await EncryptedStore.over(await SqlStore.open(str(folder / "store.db")), OLD)


class TestEncryptedEngine(EngineContract):
    async def open_engine(
        self, folder: Path, config: SnapshotConfig | None = None
    ) -> CheckpointEngine:
        return await create_checkpoint_engine(f"sqlite:///{folder / 'e.db'}", config, keys=OLD)


async def fill(engine: CheckpointEngine) -> str:
    """Put the secret into every kind of content; return the checkpoint."""
    found = await engine.snapshot(
        "vault",
        append=[{"role": "user", "content": SECRET}, {"large": SECRET * 1000}],
        state={"plan": SECRET, "document": SECRET * 500},
        tools_result={"said": SECRET, "other": 1},
        next_node=SECRET,
        summary=SECRET,
        metadata={"note": SECRET},
    )
    assert found is not None
    await engine.snapshot("vault", append=[{"role": "user", "content": SECRET[::-1]}])
    await engine.rewind(found)
    return found


def file_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("e.db*")))


async def test_no_content_stands_in_the_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        found = await fill(engine)
        whole = await engine.get(found)
        await engine.optimize()
        assert (await engine.verify()).ok
        assert whole.messages[0]["content"] == whole.metadata["note"] == SECRET
        raw = file_bytes(tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    async with await create_checkpoint_engine(f"sqlite:///{plain}/e.db") as engine:
        await fill(engine)
        assert SECRET.encode() in file_bytes(plain)  # so the search below is not blind
    assert SECRET.encode() not in raw
    assert whole.digest.encode() not in raw
    assert bytes.fromhex(whole.digest) not in raw  # nor what would confirm a guess


async def test_a_new_key_is_taken_up_and_the_old_one_no_longer_opens(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        found = await fill(engine)
        before = await engine.get(found)
    async with await create_checkpoint_engine(url, keys=BOTH) as engine:
        assert await engine.get(found) == before
    async with await create_checkpoint_engine(url, keys=NEW) as engine:
        assert await engine.get(found) == before
        await engine.snapshot("vault", append=[{"n": 1}])
        assert (await engine.verify()).ok
    with pytest.raises(WrongKey, match=r"encrypted with the key 'new'.*only old"):
        await create_checkpoint_engine(url, keys=OLD)


async def test_a_wrong_or_missing_key_is_said_clearly_and_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        found = await fill(engine)
    with pytest.raises(WrongKey, match="'old' does not open"):
        await create_checkpoint_engine(url, keys=Keyring({"old": os.urandom(32)}))
    with pytest.raises(WrongKey, match=r"is encrypted with the key 'old'.*CKPT_KEYS"):
        await create_checkpoint_engine(url)
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        assert (await engine.get(found)).messages[0]["content"] == SECRET


async def test_a_database_in_the_clear_is_not_half_encrypted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with await create_checkpoint_engine(url) as engine:
        found = await fill(engine)
    with pytest.raises(InvalidRequest, match="begun without keys"):
        await create_checkpoint_engine(url, keys=OLD)
    async with await create_checkpoint_engine(url) as engine:
        assert (await engine.get(found)).state["plan"] == SECRET


async def test_a_changed_byte_and_a_moved_row_are_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        for n in range(3):
            await engine.snapshot("vault", state={"n": n, "text": SECRET + str(n)})
    with contextlib.closing(sqlite3.connect(tmp_path / "e.db", isolation_level=None)) as db:
        bodies = [row[0] for row in db.execute("SELECT body FROM state ORDER BY pk")]
        db.execute("UPDATE state SET body = ? WHERE pk = 1", (bodies[1],))
    async with await create_checkpoint_engine(url, keys=OLD) as engine:
        assert {problem.kind for problem in (await engine.verify()).problems} == {
            "checkpoint",
            "state",
        }
        first = (await engine.list_time_travel_points("vault"))[-1]
        with pytest.raises(Corrupted, match=r"cannot be decompressed|does not match"):
            await engine.get(first.id)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "needs a key"),
        ("nonsense", "name:base64"),
        ("k:%%%", "name:base64"),
        ("k:c2hvcnQ=", "5 bytes; 32"),
        ("bad name:" + "A" * 43 + "=", "no name of a key"),
    ],
)
def test_keys_that_cannot_be_are_refused_without_being_shown(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        Keyring.parse(text)
    assert "A" * 43 not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([1], "keys must be a dict"),
        ({1: b"k" * 32}, "1 is no name of a key"),
        ({"a": "k" * 32}, "key 'a' is a str, not bytes"),
    ],
)
def test_keys_of_another_type_are_refused(keys: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Keyring(keys)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a"])
def test_a_new_key_of_an_odd_name_is_not_made(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no name of a key: letters, digits"):
        new_key(name)


def test_a_new_key_can_be_parsed_with_an_older_one_behind_it() -> None:
    ring = Keyring.parse(f"{new_key('k2')}, {new_key('k1')}")
    assert ring.current == "k2"
    assert ring.names == ("k2", "k1")
    assert ring.open("k2", ring.seal(b"x", b"here"), b"here") == b"x"
    with pytest.raises(WrongKey, match="the bytes were changed"):
        ring.open("k2", ring.seal(b"x", b"here"), b"there")


PLAIN = {
    ThreadRow: {"name", "branch"},
    HeadMoveRow: set(),
    Lineage: {"pieces"},  # positions
    CheckpointRow: {"id", "node"},
    Edge: set(),
    Batch: {"log"},  # the names of logs
    StateRow: set(),
    Blob: set(),
    BlobRef: set(),
    TagRow: {"name"},
    Pin: {"owner"},
    RunRow: {"namespace", "workflow_id", "run_id", "workflow_type", "task_queue", "supervisor"},
    Tombstone: {"key"},  # an id, or the digest of a name
    Meta: {"key", "value"},
}
"""Every column of text or bytes that is stored in the clear, on purpose."""


def test_of_every_column_it_is_decided_whether_it_is_in_the_clear() -> None:
    for table in TABLES:
        words = {
            name
            for name, kind in get_type_hints(table).items()
            if {str, bytes} & {kind, *get_args(kind)}
        }
        hidden = {*_BODIES.get(table, ()), *_DIGESTS.get(table, ())}
        assert words == PLAIN[table] | hidden, table.__name__
        assert not PLAIN[table] & hidden
