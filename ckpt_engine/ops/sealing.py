"""Packing a lineage's small rows into blocks, which compress much better.

Positions stay as they are, so nobody notices. The packing is done outside the transaction; inside,
it is only checked that the rows are still those that were packed.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import codec
from ..store import Above, Batch, BlobRef, In, Lineage, Tx
from .place import OWNER

__all__ = ["Block", "lineages_after", "plan_blocks", "replace_rows"]

BLOCK_ROWS = 32
BLOCK_BYTES = 256_000
ALONE_BYTES = 64_000  # rows that are large by themselves gain nothing


class Block(NamedTuple):
    """Rows that become one."""

    rows: tuple[int, ...]
    packed: bytes
    first: Batch
    items: int


def plan_blocks(tx: Tx, lineage: int) -> list[Block]:
    """Return what can be packed in a lineage."""
    blocks: list[Block] = []
    rows = tx.find(Batch, lineage=lineage, order="pos")
    for log in dict.fromkeys(row.log for row in rows):
        group: list[tuple[Batch, bytes]] = []
        for row in (row for row in rows if row.log == log):
            packed = codec.decompress(row.codec, row.body)
            sealed = codec.kind_of(row.codec) == codec.SEALED
            full = sealed and (row.n >= BLOCK_ROWS or len(packed) > BLOCK_BYTES)
            alone = full or len(row.body) >= ALONE_BYTES
            if alone or _ended(group, row, len(packed)):
                blocks += _block(group)
                group = []
            if not alone:
                group.append((row, packed))
        blocks += _block(group)
    return blocks


def _ended(group: list[tuple[Batch, bytes]], row: Batch, size: int) -> bool:
    if not group:
        return False
    last = group[-1][0]
    whole = sum(len(packed) for _, packed in group) + size
    return last.pos + last.n != row.pos or len(group) >= BLOCK_ROWS or whole > BLOCK_BYTES


def _block(group: list[tuple[Batch, bytes]]) -> list[Block]:
    if len(group) < 2:
        return []
    items = [item for _, packed in group for item in codec.split_array(packed)]
    rows = tuple(row.pk for row, _ in group)
    return [Block(rows, codec.join_array(items), group[0][0], len(items))]


def replace_rows(tx: Tx, block: Block, body: bytes) -> bool:
    """Put a block in the place of its rows, unless those have changed; return whether it was."""
    if tx.count(Batch, pk=In(block.rows), lineage=block.first.lineage) != len(block.rows):
        return False
    kind = OWNER["batch"]
    refs = tx.find(BlobRef, owner_kind=kind, owner=In(block.rows))
    tx.delete(BlobRef, owner_kind=kind, owner=In(block.rows))
    tx.delete(Batch, pk=In(block.rows))
    pk = tx.next_pk(Batch)
    tx.insert(
        block.first._replace(pk=pk, n=block.items, codec=codec.versioned(codec.SEALED), body=body)
    )
    tx.insert(*(BlobRef(blob, kind, pk) for blob in {ref.blob for ref in refs}))
    return True


def lineages_after(tx: Tx, pk: int, limit: int) -> list[int]:
    """Return the next lineages by key."""
    return [row.pk for row in tx.find(Lineage, pk=Above(pk), limit=limit)]
