"""Cutting what nobody reads out of rows that hold other items too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import codec
from ..store import Batch, Blob, BlobRef, In, Span, Tx
from .place import OWNER

__all__ = ["Intervals", "hold", "live_parts", "release", "trim", "without"]

Intervals = list[tuple[int, int]]
"""Positions in a log, each from the first to before the second."""


def live_parts(pos: int, n: int, live: Iterable[tuple[int, int]]) -> Intervals:
    """Return which of ``n`` positions from ``pos`` on are live, joined where they touch."""
    end = pos + n
    clipped = sorted((max(start, pos), min(stop, end)) for start, stop in live)
    parts: Intervals = []
    for start, stop in clipped:
        if start >= stop:
            continue
        if parts and start <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(stop, parts[-1][1]))
        else:
            parts.append((start, stop))
    return parts


def without(parts: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Intervals:
    """Return what of some intervals is in none of others."""
    left: Intervals = []
    taken = sorted(others)
    for start, stop in parts:
        at = start
        for low, high in taken:
            if at < low < stop:
                left.append((at, low))
            at = max(at, high) if low < stop else at
        if at < stop:
            left.append((at, stop))
    return left


def trim(tx: Tx, row: Batch, parts: Intervals) -> None:
    """Put rows with only some of its items in a row's place; positions stay as they are."""
    items = codec.split_array(codec.decompress(row.codec, row.body))
    tx.delete(Batch, pk=row.pk)
    for start, stop in parts:
        packed = codec.join_array(items[start - row.pos : stop - row.pos])
        pk = tx.next_pk(Batch)
        kind, body = codec.recompress(row.codec, packed)
        tx.insert(Batch(pk, row.lineage, row.log, start, stop - start, kind, body))
        hold(tx, OWNER["batch"], pk, packed)
    release(tx, OWNER["batch"], [row.pk])


def hold(tx: Tx, kind: int, owner: int, packed: bytes) -> None:
    """Record that a new row holds the blobs it names, which are there already."""
    digests = list(codec.references(packed))
    if digests:
        blobs = tx.find(Blob, digest=In(digests))
        tx.insert(*(BlobRef(blob.pk, kind, owner) for blob in blobs))


def release(tx: Tx, kind: int, owners: Sequence[int]) -> None:
    """Remove references to blobs, and the blobs that nothing holds any more."""
    span = Span(min(owners, default=0) - 1, max(owners, default=0))
    if not tx.one(BlobRef, owner_kind=kind, owner=span):
        return  # as mostly
    held = {ref.blob for ref in tx.find(BlobRef, owner_kind=kind, owner=In(owners))}
    if not held:
        return
    tx.delete(BlobRef, owner_kind=kind, owner=In(owners))
    still = {ref.blob for ref in tx.find(BlobRef, blob=In(list(held)))}
    tx.delete(Blob, pk=In(list(held - still)))
