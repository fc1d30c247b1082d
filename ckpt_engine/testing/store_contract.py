"""What every store must do; subclass :class:`StoreContract` and say how yours is opened."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from ..errors import Conflict
from ..store import (
    TABLES,
    Above,
    Batch,
    Blob,
    BlobRef,
    CheckpointRow,
    Edge,
    HeadMoveRow,
    In,
    Lineage,
    Meta,
    Pin,
    Row,
    RunRow,
    Span,
    StateRow,
    Store,
    TagRow,
    ThreadRow,
    Tombstone,
    Tx,
    Upto,
    crc_of,
)

__all__ = ["StoreContract", "rows_of_every_kind"]

T = TypeVar("T")


def _thread(pk: int, **given: Any) -> ThreadRow:
    plain: dict[str, Any] = dict.fromkeys(ThreadRow._fields[:-1], 0)
    nothing = dict.fromkeys(("origin", "head", "open_tip", "superseded", "active", "turned"))
    names = {"pk": pk, "name": f"thread {pk}", "session": pk, "branch": "main"}
    return ThreadRow(**{**plain, **nothing, **names, **given})


def _checkpoint(cid: int, **given: Any) -> CheckpointRow:
    plain = {"lineage": 1, "nparents": 1, "own": 1, "trigger": 0, "fmt": 1, "at": cid}
    nothing = dict.fromkeys(("state", "logs", "node"))
    bodies = {"meta": b"m", "result": b"r", "chain": b"c" * 16, "digest": b"d" * 16}
    own = {"cid": cid, "id": _id(cid), "step": cid, "parent": cid - 1 or None, "length": cid}
    return CheckpointRow(**{**plain, **nothing, **bodies, **own, **given})


def _id(n: int) -> bytes:
    """Return stored bytes whose text form begins with ``n`` in ten hex digits."""
    return bytes(6) + n.to_bytes(5, "big") + bytes(5)


def _batch(pk: int, **given: Any) -> Batch:
    values = {"pk": pk, "lineage": 1, "log": "", "pos": pk, "n": 1, "codec": 0, "body": b"b"}
    return Batch(**{**values, **given})


def rows_of_every_kind() -> list[Row]:
    """Return one row of each kind, in an order that satisfies every reference."""
    return [
        _thread(1),
        Lineage(1, 1, None, None, 0, b"pieces"),
        StateRow(1, None, 0, 0, b"state"),
        _checkpoint(1, state=1, node="été", logs=b""),
        _checkpoint(2),
        _checkpoint(3, nparents=2),
        Edge(3, 1, 1),
        HeadMoveRow(1, 1, 3, 1, "rewind", None, 7),
        _batch(1, body=bytes(range(256))),
        Blob(1, b"h" * 16, 0, b"large"),
        BlobRef(1, 0, 1),
        TagRow(1, "best", 1, 5),
        Pin(2, "a seed", 2**41),
        RunRow(1, 1, "default", "wf", "run", "Agent", "queue", None, 5),
        Tombstone(b"t" * 16, 0, 5),
        Meta("key", "value"),
    ]


class StoreContract(ABC):
    """The promises of :class:`~ckpt_engine.store.Store`, as tests.

    Attributes:
        durable: Whether what was written is there after the store is opened again.
    """

    durable: ClassVar[bool] = True

    @abstractmethod
    async def open_store(self, folder: Path) -> Store:
        """Open the store that lives in ``folder``; a second call opens the same one again."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """An open store without rows."""
        store = await self.open_store(tmp_path)
        yield store
        await store.close()

    async def test_every_kind_of_row_comes_back_as_it_was(self, store: Store) -> None:
        rows = rows_of_every_kind()
        assert {type(row) for row in rows} == set(TABLES)
        await store.write(lambda tx: tx.insert(*rows))
        for table in TABLES:
            mine = [row for row in rows if type(row) is table]
            found: list[Any] = await store.read(
                lambda tx, t=table: [r for r in tx.find(t) if not _of_the_store(r)]  # type: ignore[misc]
            )
            assert [_bare(r) for r in found] == [_bare(r) for r in mine]
            assert all(type(r) is table for r in found)
            assert all(r.crc == crc_of(r) for r in found if table._fields[-1] == "crc")

    async def test_rows_are_found_by_every_kind_of_condition(self, store: Store) -> None:
        rows = [_checkpoint(n, state=n % 2 or None) for n in range(1, 8)]
        await store.write(lambda tx: tx.insert(*rows))

        def ask(tx: Tx) -> None:
            def ids(**given: Any) -> list[int]:
                return [r.cid for r in tx.find(CheckpointRow, **given)]

            assert ids() == [1, 2, 3, 4, 5, 6, 7]
            assert ids(cid=3) == [3]
            assert ids(id=_id(4)) == [4]
            assert ids(state=None) == [2, 4, 6]
            assert ids(cid=In([7, 2, 99])) == [2, 7]
            assert ids(cid=In([])) == []
            assert ids(step=Upto(2)) == [1, 2]
            assert ids(step=Above(5)) == [6, 7]
            assert ids(step=Span(2, 4)) == [3, 4]
            assert ids(step=Span(2, 6), state=None) == [4, 6]
            assert ids(order="-step", limit=2) == [7, 6]
            assert ids(order="step", limit=2, step=Above(3)) == [4, 5]
            assert tx.count(CheckpointRow) == 7
            assert tx.count(CheckpointRow, step=Upto(3)) == 3
            assert tx.one(CheckpointRow, cid=99) is None

        await store.read(ask)

    async def test_columns_are_those_of_the_rows(self, store: Store) -> None:
        rows = [
            _checkpoint(1, logs=b""),
            _checkpoint(2, logs=b"\x00\xff", node='a "node"\n'),
            _checkpoint(3, state=2**62, id=b"\xff\xc3\x00\xed\xa0\x80" + bytes(9) + b"\xfe"),
        ]
        await store.write(lambda tx: tx.insert(*reversed(rows), _batch(9)))

        def ask(tx: Tx) -> None:
            names = ("cid", "id", "state", "node", "logs", "meta", "digest")
            for some in (names, names[:5], names[2:4]):
                columns = tx.columns(CheckpointRow, *some, step=Upto(3))
                wanted = [tuple(getattr(row, name) for name in some) for row in rows]
                assert sorted(zip(*columns, strict=True), key=repr) == sorted(wanted, key=repr)
            assert tx.columns(CheckpointRow, "cid", "id", cid=In([])) == [[], []]
            assert tx.columns(Batch, "body", "log") == [[_batch(9).body], [_batch(9).log]]
            many = In(range(-20_000, 20_000))
            assert sorted(tx.columns(CheckpointRow, "cid", cid=many)[0]) == [1, 2, 3]

        await store.read(ask)

        def write_and_ask(tx: Tx) -> None:
            tx.insert(_checkpoint(7))
            assert sorted(tx.columns(CheckpointRow, "cid")[0]) == [1, 2, 3, 7]

        await store.write(write_and_ask)

    async def test_many_values_fit_in_one_condition(self, store: Store) -> None:
        await store.write(lambda tx: tx.insert(*(_batch(n) for n in range(1, 3001))))
        wanted = In(list(range(1, 3001, 2)))
        found = await store.read(lambda tx: tx.find(Batch, pk=wanted))
        assert [row.pk for row in found] == list(range(1, 3001, 2))
        assert await store.write(lambda tx: tx.delete(Batch, pk=wanted)) == 1500

    async def test_update_and_delete(self, store: Store) -> None:
        await store.write(lambda tx: tx.insert(*(_batch(n) for n in range(1, 6))))

        def change(tx: Tx) -> int:
            tx.update(_batch(2, body=b"changed"), _batch(3, body=b"too"))
            return tx.delete(Batch, pos=Above(3))

        assert await store.write(change) == 2
        found = await store.read(lambda tx: tx.find(Batch))
        assert [(r.pk, r.body) for r in found] == [(1, b"b"), (2, b"changed"), (3, b"too")]
        assert await store.write(lambda tx: tx.delete(Batch, pk=99)) == 0

    async def test_a_transaction_sees_what_it_wrote(self, store: Store) -> None:
        def work(tx: Tx) -> list[int]:
            tx.insert(_thread(1), _batch(1), _batch(2), _batch(3))
            tx.update(_batch(2, body=b"new"))
            tx.delete(Batch, pk=1)
            row = tx.thread("thread 1")
            assert row is not None
            tx.update(row._replace(step=9))
            again = tx.thread("thread 1")
            assert again is not None
            assert again.step == 9
            assert tx.count(Batch) == 2
            return [r.pk for r in tx.find(Batch)] + [len(r.body) for r in tx.find(Batch, pk=2)]

        assert await store.write(work) == [2, 3, 3]

    async def test_a_write_that_raises_leaves_nothing_and_its_neighbours_are_kept(
        self, store: Store
    ) -> None:
        def fail(tx: Tx) -> None:
            tx.insert(_batch(100))
            raise KeyError("on purpose")

        writes = [store.write(lambda tx, n=n: tx.insert(_batch(n))) for n in range(1, 6)]  # type: ignore[misc]
        writes.insert(2, store.write(fail))
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(o) for o in outcomes if o is not None] == [KeyError]
        found = await store.read(lambda tx: tx.find(Batch))
        assert sorted(r.pk for r in found) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (_thread(1), _thread(1, name="other", session=9)),
            (_thread(1), _thread(2, name="thread 1")),
            (_thread(1), _thread(2, session=1)),
            (_batch(1), _batch(2, pos=1)),
            (_checkpoint(1), _checkpoint(2, id=_id(1))),
            (_checkpoint(1), _checkpoint(2, step=1)),
            (Meta("k", "1"), Meta("k", "2")),
        ],
    )
    async def test_a_second_row_with_a_unique_value_conflicts(
        self, store: Store, first: Row, second: Row
    ) -> None:
        await store.write(lambda tx: tx.insert(first))
        results = await asyncio.gather(
            store.write(lambda tx: tx.insert(second)),
            store.write(lambda tx: tx.insert(_batch(50))),
            return_exceptions=True,
        )
        assert isinstance(results[0], Conflict)
        assert results[1] is None
        found = await store.read(lambda tx: tx.find(type(first)))
        assert second not in [_bare(r) for r in found]

    async def test_keys_are_never_used_twice(self, store: Store) -> None:
        def take(tx: Tx) -> list[int]:
            pks = []
            for _ in range(3):
                pks.append(tx.next_pk(Batch))
                tx.insert(_batch(pks[-1]))
            return pks

        first = await store.write(take)
        await store.write(lambda tx: tx.delete(Batch, pk=In(first)))
        second = await store.write(take)
        assert len({*first, *second}) == 6

    async def test_ids_are_matched_by_the_front_of_their_text(self, store: Store) -> None:
        await store.write(lambda tx: tx.insert(*(_checkpoint(n) for n in (0x12, 0x13, 0x20))))

        def ask(tx: Tx) -> None:
            assert sorted(tx.match_ids("000000001", 9)) == [_id(0x12), _id(0x13)]
            assert len(tx.match_ids("00000000", 2)) == 2
            assert tx.match_ids("0000000013" + "0" * 22, 9) == [_id(0x13)]
            assert tx.match_ids("0000000013" + "0" * 10, 9) == [_id(0x13)]
            assert tx.match_ids("0000000013" + "0" * 13, 9) == [_id(0x13)]
            assert tx.match_ids("ffff", 9) == []

        await store.read(ask)

    async def test_many_writers_lose_nothing(self, store: Store) -> None:
        await store.write(lambda tx: tx.insert(_thread(1)))

        def step(tx: Tx) -> int:
            row = tx.thread("thread 1")
            assert row is not None
            tx.update(row._replace(step=row.step + 1))
            return row.step

        seen = await asyncio.gather(*(store.write(step) for _ in range(100)))
        assert sorted(seen) == list(range(100))

    async def test_a_cancelled_write_happens_as_a_whole_or_not_at_all(self, store: Store) -> None:
        def work(tx: Tx) -> None:
            tx.insert(*(_batch(n) for n in range(1, 101)))

        task = asyncio.create_task(store.write(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.write(lambda tx: tx.insert(_thread(1)))  # after it, whatever became of it
        assert await store.read(lambda tx: tx.count(Batch)) in (0, 100)

    async def test_size_grows_and_reclaiming_gives_space_back(self, store: Store) -> None:
        rows = [_batch(n, body=bytes([n % 251]) * 5000) for n in range(1, 500)]
        await store.write(lambda tx: tx.insert(*rows))
        full = await store.size()
        assert full >= 499 * 5000
        await store.write(lambda tx: tx.delete(Batch, pk=Above(0)))
        await store.reclaim()
        await store.reclaim(erase=True)
        assert await store.size() < full / 2

    async def test_it_closes_twice_and_what_was_written_is_there_again(
        self, tmp_path: Path
    ) -> None:
        store = await self.open_store(tmp_path)
        await store.write(lambda tx: tx.insert(*rows_of_every_kind()))
        await store.close()
        await store.close()
        if not self.durable:
            return
        again = await self.open_store(tmp_path)
        try:
            assert await again.read(lambda tx: tx.count(CheckpointRow)) == 3
            assert await again.write(lambda tx: tx.next_pk(Batch)) > 1
        finally:
            await again.close()

    async def test_keys_do_not_come_again_however_they_went(self, tmp_path: Path) -> None:
        if not self.durable:
            return

        def add(tx: Tx) -> None:
            tx.insert(_batch(tx.next_pk(Batch)))

        def drop_newest(tx: Tx) -> int:
            newest: int = tx.find(Batch, order="-pk")[0].pk
            tx.delete(Batch, pk=newest)
            return newest

        async def by_one_that_remembers_nothing(work: Callable[[Tx], T]) -> T:
            store = await self.open_store(tmp_path)
            try:
                return await store.write(work)
            finally:
                await store.close()

        for _ in range(3):
            await by_one_that_remembers_nothing(add)
        taken = {await by_one_that_remembers_nothing(drop_newest) for _ in range(3)}
        assert await by_one_that_remembers_nothing(lambda tx: tx.next_pk(Batch)) not in taken


def _bare(row: Any) -> Any:
    return row._replace(crc=0) if row._fields[-1] == "crc" else row


def _of_the_store(row: Any) -> bool:
    """Tell whether a store wrote this row of its own accord, such as its schema's version."""
    return isinstance(row, Meta) and row.key != "key"
