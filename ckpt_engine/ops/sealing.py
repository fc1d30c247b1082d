"""Packing the small rows of lineages into blocks, which compress much better.

Positions stay as they are, so nobody notices. The packing is done outside the transaction; inside,
it is only checked that the rows are still those that were packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import codec
from ..store import Above, Batch, BlobRef, In, Lineage, ThreadRow, Tx
from .place import OWNER

__all__ = [
    "TOGETHER",
    "Block",
    "Plan",
    "lineages_after",
    "plan_blocks",
    "replace_rows",
    "sealed_bodies",
]

BLOCK_ITEMS = 256
BLOCK_BYTES = 256_000
ALONE_BYTES = 64_000  # rows that are large by themselves gain nothing
TOGETHER = 4
"""Lineages that are packed together: rows of agents that write at once are in the same pages."""

_AT_A_TIME = 4  # blocks that are packed in one transaction


class Block(NamedTuple):
    """Rows that become one, and what they hold."""

    rows: tuple[int, ...]
    first: Batch
    items: int
    packed: list[bytes]


class Plan(NamedTuple):
    """What can be packed in some lineages.

    Attributes:
        blocks: The blocks, not too many at a time.
        done: Lineage of which the blocks are all there -> key up to which there is nothing left to
            do once they are packed.
        threads: Whose lineages they are: nobody else has to wait for the packing.
    """

    blocks: list[Block]
    done: dict[int, int]
    threads: tuple[str, ...]


def plan_blocks(tx: Tx, after: Mapping[int, int], *, whole: bool = False) -> Plan:
    """Return what can be packed in some lineages.

    Args:
        tx: The transaction.
        after: Lineage -> only rows with greater keys.
        whole: Pack whatever can be; else rows wait until they are worth repacking an earlier block
            that is not full yet, so that few bytes are written again and again.
    """
    chosen: list[list[Batch]] = []
    done: dict[int, int] = {}
    for lineage, start in after.items():
        if len(chosen) >= _AT_A_TIME:
            break
        found, end = _worth_packing(tx, lineage, start, whole=whole)
        chosen += found
        if len(chosen) <= _AT_A_TIME:
            done[lineage] = end
    chosen = chosen[:_AT_A_TIME]
    owners = dict.fromkeys(group[0].lineage for group in chosen)
    threads = dict.fromkeys(name for lineage in owners for name in _owner(tx, lineage))
    return Plan([_block(group) for group in chosen], done, tuple(threads))


def _worth_packing(
    tx: Tx, lineage: int, after: int, *, whole: bool
) -> tuple[list[list[Batch]], int]:
    """Return the rows that become blocks, and the key up to which nothing is left after that."""
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
    return [group for group in chosen if len(group) > 1], done


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
    """Return from where on the rows are worth packing.

    What was never packed is; what was is packed again with those after it unless it is much larger.
    """
    start, size = len(group), 0
    while start:
        row = group[start - 1]
        held = codec.content_size(row.codec, row.body)
        if codec.kind_of(row.codec) == codec.SEALED and held > 2 * size:
            break
        start -= 1
        size += held
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
