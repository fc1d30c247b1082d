"""Packing a lineage's small rows into blocks, which compress much better.

Positions stay as they are, so nobody notices. The packing is done outside the transaction; inside,
it is only checked that the rows are still those that were packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import codec
from ..store import Above, Batch, BlobRef, In, Lineage, ThreadRow, Tx
from .place import OWNER

__all__ = ["Block", "Plan", "lineages_after", "plan_blocks", "replace_rows", "sealed_bodies"]

BLOCK_ITEMS = 256
BLOCK_BYTES = 256_000
ALONE_BYTES = 64_000  # rows that are large by themselves gain nothing
_AT_A_TIME = 4  # blocks that are packed in one transaction


class Block(NamedTuple):
    """Rows that become one, and what they hold."""

    rows: tuple[int, ...]
    first: Batch
    items: int
    packed: list[bytes]


class Plan(NamedTuple):
    """What can be packed in a lineage.

    Attributes:
        blocks: The blocks, not too many at a time.
        more: Whether there are more.
        done: Key up to which there is nothing left to do once these are packed.
        threads: Whose lineage it is: nobody else has to wait for the packing.
    """

    blocks: list[Block]
    more: bool
    done: int
    threads: tuple[str, ...]


def plan_blocks(tx: Tx, lineage: int, *, after: int = 0, whole: bool = False) -> Plan:
    """Return what can be packed in a lineage.

    Args:
        tx: The transaction.
        lineage: The lineage.
        after: Only rows with greater keys.
        whole: Pack whatever can be; else rows wait until they are worth repacking an earlier block
            that is not full yet, so that few bytes are written again and again.
    """
    rows = tx.find(Batch, lineage=lineage, pk=Above(after), order="pos")
    chosen: list[list[Batch]] = []
    done = max((row.pk for row in rows), default=after)
    for log in dict.fromkeys(row.log for row in rows):
        *full, last = _groups([row for row in rows if row.log == log])
        start = 0 if whole else _worthwhile(last)
        if len(last) - start < 2:
            start = len(last)  # nothing to pack it with, yet
        chosen += [*full, last[start:]]
        done = min([done, *(row.pk - 1 for row in last[:start])])
    chosen = [group for group in chosen if len(group) > 1]
    threads = _owner(tx, lineage) if chosen else ()
    blocks = [_block(group) for group in chosen[:_AT_A_TIME]]
    return Plan(blocks, len(chosen) > _AT_A_TIME, done, threads)


def _owner(tx: Tx, lineage: int) -> tuple[str, ...]:
    row = tx.one(Lineage, pk=lineage)
    thread = tx.one(ThreadRow, pk=row.thread) if row is not None else None
    return (thread.name,) if thread is not None else ()


def _groups(rows: list[Batch]) -> list[list[Batch]]:
    """Return the rows by the blocks they may become; the last one may yet grow."""
    groups: list[list[Batch]] = [[]]
    size = items = 0
    for row in rows:
        held = codec.content_size(row.codec, row.body)
        alone = len(row.body) >= ALONE_BYTES or row.n >= BLOCK_ITEMS or held >= BLOCK_BYTES
        last = groups[-1]
        apart = bool(last) and last[-1].pos + last[-1].n != row.pos
        if alone or apart or items + row.n > BLOCK_ITEMS or size + held > BLOCK_BYTES:
            groups.append([])
            size = items = 0
        if not alone:
            groups[-1].append(row)
            size, items = size + held, items + row.n
    return groups


def _worthwhile(group: list[Batch]) -> int:
    """Return from where on the rows are worth packing: none is much larger than those after it."""
    held = [codec.content_size(row.codec, row.body) for row in group]
    start, size = len(group), 0
    while start and (not size or held[start - 1] <= 2 * size):
        start -= 1
        size += held[start]
    return start


def _block(group: list[Batch]) -> Block:
    packed = [codec.decompress(row.codec, row.body) for row in group]
    return Block(tuple(row.pk for row in group), group[0], sum(row.n for row in group), packed)


def sealed_bodies(blocks: Sequence[Block]) -> list[bytes]:
    """Return the bodies of the rows that the blocks become; takes some time."""
    return [codec.seal(codec.join_arrays(block.packed)) for block in blocks]


def replace_rows(tx: Tx, blocks: Sequence[Block], bodies: Sequence[bytes]) -> int:
    """Put blocks in the places of their rows, unless those have changed; return how many went."""
    kind, gone = OWNER["batch"], 0
    for block, body in zip(blocks, bodies, strict=True):
        rows, lineage = In(block.rows), block.first.lineage
        if tx.count(Batch, pk=rows, lineage=lineage) != len(block.rows):
            continue
        refs = tx.find(BlobRef, owner_kind=kind, owner=rows)
        if refs:
            tx.delete(BlobRef, owner_kind=kind, owner=rows)
        tx.delete(Batch, pk=rows)
        pk = tx.next_pk(Batch)
        code = codec.versioned(codec.SEALED)
        tx.insert(block.first._replace(pk=pk, n=block.items, codec=code, body=body))
        tx.insert(*(BlobRef(blob, kind, pk) for blob in {ref.blob for ref in refs}))
        gone += len(block.rows) - 1
    return gone


def lineages_after(tx: Tx, pk: int, limit: int) -> list[int]:
    """Return the next lineages by key."""
    return [row.pk for row in tx.find(Lineage, pk=Above(pk), limit=limit)]
