"""What ``verify`` finds: any column of any kind of row that is not what it was, any row missing."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from ckpt_engine import (
    CheckpointEngine,
    CheckpointError,
    Corrupted,
    Keyring,
    Retryable,
    SnapshotConfig,
    StepCommit,
    WorkflowRun,
    create_checkpoint_engine,
    new_checkpoint_id,
)
from ckpt_engine.codec import versioned
from ckpt_engine.model import id_from_bytes, id_to_bytes
from ckpt_engine.ops.prepare import PART
from ckpt_engine.store import TABLES
from ckpt_engine.stores.transaction import kinds_of

CONFIG = SnapshotConfig(logs=("log",), idle_seal_seconds=0)
NAMES = [table.name for table in TABLES.values()]
KEYS = {t.name: ", ".join(f'"{column}"' for column in t.key) for t in TABLES.values()}


async def _say(engine: CheckpointEngine, thread: str, n: int) -> str:
    taken = await engine.snapshot(
        thread,
        append=[{"n": n, "text": f"message {n}"}],
        state={"n": n, "same": "x" * 80, "log": list(range(n))},
        tools_result={"found": f"{n} things", "more": [n] * 20},
        metadata={"m": n},
        node="node",
        next_node="next",
    )
    return str(taken)


async def _fill(engine: CheckpointEngine) -> None:
    """Write rows of every kind, with a value in every column."""
    ids = [await _say(engine, "t", n) for n in range(6)]
    await engine.snapshot("t", append=[{"large": "0123456789" * 1000}])
    await engine.optimize()
    await _say(engine, "t", 7)
    await engine.rewind(ids[2])
    await engine.undo("t")
    await engine.rewind(ids[3])
    await engine.snapshot("t", messages=["edited"], tags=["edit"])
    side = (await engine.branch(ids[1], "side")).id
    await _say(engine, side, 9)
    await engine.merge_branch(side, "t", strategy="ours")
    await engine.supersede("t", by=side)
    await engine.tag(ids[1], "best")
    await engine.pin([ids[1]], "owner", ttl_seconds=600)
    names = {"namespace": "n", "workflow_id": "w", "run_id": "r", "workflow_type": "T"}
    await engine.register_run("t", WorkflowRun(**names, task_queue="q", supervisor="s"))
    await engine.create_thread("wf")
    root, a, b, c = (new_checkpoint_id() for _ in range(4))
    for step, (i, parents) in enumerate([(root, ()), (a, (root,)), (b, (root,)), (c, (a, b))]):
        await engine.commit_step(
            StepCommit(
                checkpoint_id=i,
                thread_id="wf",
                step=step,
                parents=parents,
                first=i != b,
                append=[step],
            )
        )
    await engine.snapshot("gone", append=["forgotten"])
    await engine.forget(session_id="gone")


async def _make(path: Path) -> None:
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        await _fill(engine)
        assert (await engine.verify()).problems == ()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which nothing is wrong."""
    path = tmp_path_factory.mktemp("sound") / "a.db"
    asyncio.run(_make(path))
    return path


@contextmanager
def _changed(sound: Path, path: Path) -> Iterator[sqlite3.Connection]:
    path.unlink(missing_ok=True)
    shutil.copy(sound, path)
    db = sqlite3.connect(path)
    try:
        yield db
        db.commit()
    finally:
        db.close()


async def _is_found(path: Path) -> bool:
    """Tell whether ``verify`` finds something, or the database is not even opened."""
    try:
        async with await create_checkpoint_engine(str(path), CONFIG) as engine:
            return not (await engine.verify()).ok
    except CheckpointError:
        return True


def _by_key(table: str) -> str:
    """Return the condition that names a row."""
    return " AND ".join(f"{column} = ?" for column in KEYS[table].split(", "))


def _flipped(value: Any) -> Any:
    if isinstance(value, bytes):
        middle = len(value) // 2
        return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
    return value ^ 1 if isinstance(value, int) else f"{value[:-1]}{chr(ord(value[-1]) ^ 1)}"


def _flip(db: sqlite3.Connection, table: str, column: str) -> None:
    """Flip a bit of a column of some row that has a value there."""
    where = f"\"{column}\" NOT IN ('', x'')"
    if (table, column) == ("batch", "pk"):  # nothing else names it: a batch is found by its place
        where = "pk IN (SELECT owner FROM blob_ref WHERE owner_kind = 0)"
    found = db.execute(f'SELECT "{column}", {KEYS[table]} FROM "{table}" WHERE {where}').fetchall()
    assert found, f"no {table} has a {column}"
    value, *key = found[len(found) // 2]
    text = f'UPDATE "{table}" SET "{column}" = ? WHERE {_by_key(table)}'
    try:
        db.execute(text, (_flipped(value), *key))
    except sqlite3.IntegrityError:  # there is such a row already
        db.execute(text, (value + 2**20, *key))


@pytest.mark.parametrize("table", NAMES)
async def test_a_flipped_bit_is_found_in_every_column(
    sound: Path, tmp_path: Path, table: str
) -> None:
    (kind,) = (kind for kind, t in TABLES.items() if t.name == table)
    missed = []
    for column in kind._fields:
        with _changed(sound, tmp_path / "b.db") as db:
            _flip(db, table, column)
        if not await _is_found(tmp_path / "b.db"):
            missed.append(column)
    assert missed == []


@pytest.mark.parametrize("table", NAMES)
async def test_every_missing_row_is_found(sound: Path, tmp_path: Path, table: str) -> None:
    with _changed(sound, tmp_path / "b.db") as db:
        keys = db.execute(f'SELECT {KEYS[table]} FROM "{table}"').fetchall()
    assert keys
    missed = []
    for key in keys:
        with _changed(sound, tmp_path / "b.db") as db:
            gone = db.execute(f'SELECT * FROM "{table}" WHERE {_by_key(table)}', key).fetchone()
            db.execute(f'DELETE FROM "{table}" WHERE {_by_key(table)}', key)
        if not await _is_found(tmp_path / "b.db"):
            missed.append(gone)
    assert missed == []


@pytest.mark.parametrize(("table", "rows"), [
    ("batch", "SELECT b.pk, b.body, t.name FROM batch b JOIN lineage l ON b.lineage = l.pk"),
    ("state", "SELECT s.pk, s.body, t.name FROM state s JOIN checkpoint c ON c.state = s.pk "
     "JOIN lineage l ON c.lineage = l.pk"),
    ("blob", "SELECT b.pk, b.body, t.name FROM blob b JOIN blob_ref r ON r.blob = b.pk "
     "AND r.owner_kind = 0 JOIN batch m ON r.owner = m.pk JOIN lineage l ON m.lineage = l.pk"),
])  # fmt: skip
async def test_damage_leads_to_the_threads_that_have_it(
    sound: Path, tmp_path: Path, table: str, rows: str
) -> None:
    with _changed(sound, tmp_path / "b.db") as db:
        found = db.execute(f"{rows} JOIN thread t ON l.thread = t.pk").fetchall()
        pk, body, thread = found[-1]
        db.execute(f"UPDATE {table} SET body = ? WHERE pk = ?", (_flipped(body), pk))
    async with await create_checkpoint_engine(str(tmp_path / "b.db"), CONFIG) as engine:
        problems = (await engine.verify()).problems
    assert any(p.kind == table and thread in p.threads for p in problems)
    assert all(p.threads for p in problems), "each of them leads somewhere"


_OTHER = {int: ("'abc'",), str: ("x'00ff'",), bytes: ("'abc'", "7", "x''")}
_NO_TEXT = "CAST(x'ff00ff' AS TEXT)"


def _odd_values(table: str) -> list[tuple[str, str]]:
    """Return what a column of a table never holds, by column, in SQL."""
    (kind,) = (kind for kind, t in TABLES.items() if t.name == table)
    return [
        (column, value)
        for column, own in kinds_of(cast("Any", kind)).items()
        for value in (*_OTHER[own], _NO_TEXT, "NULL")
    ]


async def _read_all(engine: CheckpointEngine, ids: list[str]) -> list[CheckpointError]:
    """Read everything; what is raised is ours, or the test fails."""
    raised = []
    reads: list[Callable[[], Awaitable[Any]]] = [partial(engine.get, i) for i in ids]
    for thread in ("t", "t/side", "wf"):
        reads += [partial(f, thread) for f in (engine.list_time_travel_points, engine.get_latest)]
    reads += [partial(engine.get_checkpoint_tree, "t"), engine.list_sessions]
    reads += [partial(engine.list_threads, "t"), partial(engine.path, ids[-1])]
    for read in reads:
        try:
            await read()
        except CheckpointError as err:
            raised.append(err)
    return raised


def _ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [id_from_bytes(i) for (i,) in db.execute("SELECT id FROM checkpoint ORDER BY cid")]


@pytest.mark.parametrize("table", NAMES)
async def test_a_value_of_another_type_is_found_and_breaks_no_read(
    sound: Path, tmp_path: Path, table: str
) -> None:
    ids, missed, path = _ids(sound), [], tmp_path / "b.db"
    for column, value in _odd_values(table):
        try:
            with _changed(sound, path) as db:
                held = f'"{column}" IS NOT NULL ORDER BY {KEYS[table]} DESC LIMIT 1'
                row = f'SELECT {KEYS[table]} FROM "{table}" WHERE {held}'
                text = f'UPDATE "{table}" SET "{column}" = {value}'
                db.execute(f"{text} WHERE ({KEYS[table]}) = ({row})")
        except sqlite3.IntegrityError:  # this much SQLite sees to
            continue
        try:
            engine = await create_checkpoint_engine(str(path), CONFIG)
        except CheckpointError:
            continue
        async with engine:
            if (await engine.verify()).ok:
                missed.append((column, value))
            for err in await _read_all(engine, ids):
                assert not isinstance(err, Retryable), (column, value)
    assert missed == []


@pytest.mark.parametrize("change", [
    "SET codec = 'abc'", "SET body = 'abc'", f"SET body = {_NO_TEXT}", "SET body = x'ff'",
])  # fmt: skip
@pytest.mark.parametrize("table", ["batch", "state", "blob"])
async def test_a_damaged_row_hides_no_other(
    sound: Path, tmp_path: Path, table: str, change: str
) -> None:
    path = tmp_path / "b.db"
    with _changed(sound, path) as db:
        db.execute(f"UPDATE {table} {change}")
        # in its report, rows of several logs are at one place
        places = "DISTINCT lineage || '/' || pos" if table == "batch" else "*"
        (rows,) = db.execute(f"SELECT count({places}) FROM {table}").fetchone()
        db.execute("UPDATE pin SET crc = crc + 1")
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        found = Counter(problem.kind for problem in (await engine.verify()).problems)
    assert found[table] == rows
    assert found["pin"] == 1


def _damage_an_index(path: Path, stored: bytes) -> None:
    """Change a checkpoint's id where the index has it."""
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    places = [found.start() for found in re.finditer(re.escape(stored), data)]
    (place,) = (at for at in places if data[at // page * page] == 10)  # a leaf of an index
    data[place + 15] ^= 1
    path.write_bytes(data)


async def test_a_damaged_index_is_found(sound: Path, tmp_path: Path) -> None:
    taken = _ids(sound)[3]
    with _changed(sound, tmp_path / "b.db"):
        pass
    _damage_an_index(tmp_path / "b.db", id_to_bytes(taken))
    async with await create_checkpoint_engine(str(tmp_path / "b.db"), CONFIG) as engine:
        with pytest.raises(CheckpointError):
            await engine.get(taken)
        problems = (await engine.verify()).problems
    assert {problem.kind for problem in problems} == {"file"}
    assert any("checkpoint_by_id" in problem.what for problem in problems)


async def test_a_damaged_page_is_reported_with_all_else(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with _changed(sound, path) as db:
        db.execute("UPDATE pin SET crc = crc + 1")
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'batch'").fetchone()
        (page,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\xee" * page)
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        found = {problem.kind for problem in (await engine.verify()).problems}
        assert {type(err) for err in await _read_all(engine, _ids(sound))} == {Corrupted}
    assert {"file", "pin"} <= found


@pytest.mark.parametrize(("change", "lists"), [
    ("trigger = 99", True),
    ("trigger = -1", True),
    ("at = 9223372036854775807", True),
    ("meta = x'01'", True),
    ("meta = x'93010203'", True),
    ("logs = substr(logs, 1, length(logs) - 3)", False),
    ("logs = x'81a36c6f6701'", False),
    ("logs = x'80'", False),
    ("result = x''", False),
    (f"result = x'01', fmt = {versioned(PART)}", False),
])  # fmt: skip
async def test_a_value_that_is_none_is_said_to_be_damaged(
    sound: Path, tmp_path: Path, change: str, lists: bool
) -> None:
    path, taken = tmp_path / "b.db", _ids(sound)[5]
    with _changed(sound, path) as db:
        db.execute(f"UPDATE checkpoint SET {change} WHERE id = ?", (id_to_bytes(taken),))
    async with await create_checkpoint_engine(str(path), CONFIG) as engine:
        assert not (await engine.verify()).ok
        with pytest.raises(Corrupted):
            await engine.get(taken)
        if lists:
            with pytest.raises(Corrupted, match=taken):
                await engine.path(_ids(sound)[6])


async def test_damage_is_found_beneath_encryption(tmp_path: Path) -> None:
    path, keys = tmp_path / "a.db", Keyring({"k": bytes(32)})
    async with await create_checkpoint_engine(str(path), CONFIG, keys=keys) as engine:
        taken = await _say(engine, "t", 3)
    changes = [f"{table} SET body = 7" for table in ("batch", "state")]
    changes += [f"checkpoint SET {column} = 7" for column in ("meta", "logs", "digest")]
    for change in (*changes, f"checkpoint SET meta = {_NO_TEXT}", "checkpoint SET result = 'abc'"):
        with _changed(path, tmp_path / "b.db") as db:
            db.execute(f"UPDATE {change}")
        copy = str(tmp_path / "b.db")
        async with await create_checkpoint_engine(copy, CONFIG, keys=keys) as engine:
            assert not (await engine.verify()).ok, change
            with pytest.raises(Corrupted):
                await engine.get(taken)


async def test_a_mistake_is_not_called_damage(tmp_path: Path) -> None:
    def mistaken(_: Any) -> None:
        raise TypeError("mistaken")

    async with await create_checkpoint_engine(str(tmp_path / "a.db"), CONFIG) as engine:
        await _say(engine, "t", 3)
        with pytest.raises(TypeError, match="mistaken"):
            await engine._read(mistaken)
