"""Rows are packed in the background: what that costs, and that nobody notices."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ckpt_engine import CheckpointEngine, SnapshotConfig, codec, create_checkpoint_engine
from ckpt_engine.ops import sealing
from ckpt_engine.ops.source import Piece, batches
from ckpt_engine.store import Batch, Expect, Lineage, ThreadRow, Tx
from ckpt_engine.stores.memory import MemoryStore

from ..postgres import url_in

ITEM = {"role": "user", "content": "what happened next, and why did it have to happen at all? " * 9}


def append(tx: Tx, number: int, lineage: int = 1) -> None:
    packed = codec.join_array([codec.pack({**ITEM, "number": number}, None)])
    tx.insert(Batch(tx.next_pk(Batch), lineage, "", number, 1, *codec.compress(packed)))


async def test_a_row_is_packed_again_only_a_few_times_however_often_packing_runs() -> None:
    store, done, written = MemoryStore(), 0, 0
    for number in range(500):
        await store.write(partial(append, number=number))
        plan = await store.read(partial(sealing.plan_blocks, after={1: done}))
        bodies = sealing.sealed_bodies(plan.blocks)
        await store.write(partial(sealing.replace_rows, blocks=plan.blocks, bodies=bodies))
        done, written = plan.done[1], written + sum(block.items for block in plan.blocks)
    rows = await store.read(lambda tx: tx.find(Batch, lineage=1, order="pos"))
    items = [item for r in rows for item in codec.split_array(codec.decompress(r.codec, r.body))]
    assert [codec.unpack(item, {})["number"] for item in items] == list(range(500))
    assert len(rows) < 10
    assert written < 500 * 12


async def test_a_short_message_at_the_end_does_not_keep_longer_ones_loose() -> None:
    store = MemoryStore()
    for number in range(10):
        await store.write(partial(append, number=number))
    short = codec.compress(codec.join_array([codec.pack("ok", None)]))
    await store.write(lambda tx: tx.insert(Batch(tx.next_pk(Batch), 1, "", 10, 1, *short)))
    plan = await store.read(partial(sealing.plan_blocks, after={1: 0}))
    assert [block.items for block in plan.blocks] == [11]


async def test_what_is_packed_already_is_not_read_again() -> None:
    store = MemoryStore()
    for number in range(300):
        await store.write(partial(append, number=number))
    plan = await store.read(partial(sealing.plan_blocks, after={1: 0}))
    bodies = sealing.sealed_bodies(plan.blocks)
    await store.write(partial(sealing.replace_rows, blocks=plan.blocks, bodies=bodies))
    await store.write(partial(append, number=300))
    rows = await store.read(lambda tx: tx.find(Batch, lineage=1, order="pos"))
    assert [(row.pos, row.n) for row in rows] == [(0, 256), (256, 44), (300, 1)]
    assert not (await store.read(partial(sealing.plan_blocks, after={1: rows[0].pk}))).blocks, (
        "one new row is not worth packing 44 over again"
    )
    whole = await store.read(partial(sealing.plan_blocks, after={1: 0}, whole=True))
    assert [block.items for block in whole.blocks] == [45]


async def test_lineages_are_packed_together_and_none_is_left_out() -> None:
    store = MemoryStore()
    for number in range(300):  # two blocks each
        for lineage in range(1, 6):
            await store.write(partial(append, number=number, lineage=lineage))
    after, packed = dict.fromkeys(range(1, 6), 0), []
    while after:
        plan = await store.read(partial(sealing.plan_blocks, after=after))
        bodies = sealing.sealed_bodies(plan.blocks)
        await store.write(partial(sealing.replace_rows, blocks=plan.blocks, bodies=bodies))
        packed.append([block.first.lineage for block in plan.blocks])
        assert plan.done
        for lineage in plan.done:
            del after[lineage]
    assert packed == [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5]]
    rows = await store.read(lambda tx: tx.find(Batch, order="pos"))
    assert [row.n for row in rows] == [256] * 5 + [44] * 5


async def test_rows_that_changed_while_they_were_packed_stay_as_they_are() -> None:
    store = MemoryStore()
    for number in range(4):
        await store.write(partial(append, number=number))
    plan = await store.read(partial(sealing.plan_blocks, after={1: 0}))
    await store.write(lambda tx: tx.delete(Batch, pk=3))
    bodies = sealing.sealed_bodies(plan.blocks)
    gone = await store.write(partial(sealing.replace_rows, blocks=plan.blocks, bodies=bodies))
    assert gone == 0
    assert await store.read(lambda tx: tx.count(Batch)) == 3


async def test_closing_packs_and_every_checkpoint_reads_back(tmp_path: Path) -> None:
    url, config = f"sqlite:///{tmp_path}/c.db", SnapshotConfig(logs=("notes",))
    ids = []
    async with await create_checkpoint_engine(url, config) as engine:
        for number in range(70):
            state = {"notes": [f"note {n}" for n in range(number)], "number": number}
            ids.append(await engine.snapshot("t", append=[{**ITEM, "n": number}], state=state))
    async with await create_checkpoint_engine(url, config) as engine:
        assert await engine._store.read(lambda tx: tx.count(Batch)) < 10
        for number, checkpoint_id in enumerate(ids):
            found = await engine.get(str(checkpoint_id))
            assert found.messages == [{**ITEM, "n": n} for n in range(number + 1)]
            assert found.state["notes"] == [f"note {n}" for n in range(number)]
        assert (await engine.verify()).ok


def test_packed_lists_are_joined_without_a_look_at_their_items() -> None:
    for sizes in ([], [0], [1, 0, 15], [3, 16, 2], [70_000, 2]):
        lists = [[f"item {n}" for n in range(size)] for size in sizes]
        joined = codec.join_arrays([codec.pack(items, None) for items in lists])
        assert codec.unpack(joined, {}) == [item for items in lists for item in items]


async def two_on_postgres(stack: AsyncExitStack, folder: Path) -> list[CheckpointEngine]:
    """Open two engines, as two processes would; there are 40 loose rows in the thread ``t``."""
    config = SnapshotConfig(idle_seal_seconds=0, busy_timeout=5)
    opened = [
        await stack.enter_async_context(await create_checkpoint_engine(url_in(folder), config))
        for _ in range(2)
    ]
    for number in range(40):
        await opened[0].snapshot("t", append=[{**ITEM, "n": number}])
    return opened


async def lineage_of(engine: CheckpointEngine, thread: str) -> int:
    def find(tx: Tx) -> int:
        row = tx.one(ThreadRow, name=thread)
        assert row is not None
        return tx.find(Lineage, thread=row.pk)[0].pk

    return await engine._store.read(find)


async def test_packing_on_postgresql_waits_for_no_other_thread(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one, other = await two_on_postgres(stack, tmp_path)
        await other.snapshot("another", append=["x"])
        begun, go_on = threading.Event(), threading.Event()

        def slow(tx: Tx) -> None:
            begun.set()
            assert go_on.wait(60)

        writing = asyncio.create_task(other._store.write(slow, Expect(("another",))))
        try:
            assert await asyncio.to_thread(begun.wait, 60)
            assert await one._seal([await lineage_of(one, "t")], whole=True) == 39
        finally:
            go_on.set()
            await writing
        found = await other.get_latest("t")
        assert [message["n"] for message in found.messages] == list(range(40))
        assert not (await other.verify()).problems


async def test_a_write_may_read_a_log_while_it_is_packed(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one, other = await two_on_postgres(stack, tmp_path)
        await other.snapshot("another", append=["x"])
        lineage, loop = await lineage_of(one, "t"), asyncio.get_running_loop()

        class Between:
            """Has the rows packed after the first look at them."""

            def __init__(self, tx: Tx) -> None:
                self.tx, self.packed = tx, False

            def find(self, *args: Any, **where: Any) -> list[Any]:
                found = self.tx.find(*args, **where)
                if not self.packed:
                    self.packed = True
                    packing = one._seal([lineage], whole=True)
                    assert asyncio.run_coroutine_threadsafe(packing, loop).result(60) == 39
                return found

        def read(tx: Tx) -> list[tuple[int, int]]:
            found: Any = Between(tx)
            return [(row.pos, row.n) for row in batches(found, "", Piece(lineage, 5, 30))]

        assert await other._store.write(read, Expect(("another",))) == [(0, 40)]
