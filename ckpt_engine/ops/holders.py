"""Which checkpoints that stay have a large value in common with what an erasure removes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from .. import codec
from ..errors import Corrupted
from ..store import Batch, Blob, BlobRef, CheckpointRow, In, Lineage, ThreadRow, Tx
from .place import OWNER
from .prepare import log_lengths
from .source import Source, inherited_pieces
from .trimming import Intervals

__all__ = ["holders_of_same"]

Named = dict[bytes, list[int]]
"""Digest of a large value -> the positions in a log whose items name it."""


def holders_of_same(
    tx: Tx,
    source: Source,
    *,
    checkpoints: Collection[int],
    states: Collection[int],
    batches: Collection[int],
    trims: Mapping[int, Intervals],
) -> Iterator[CheckpointRow]:
    """Yield, for each large value and each row that keeps it, the first checkpoint that has it.

    Args:
        tx: The transaction, before anything is removed.
        source: Reads in it.
        checkpoints: Keys of what goes,
        states: of the states that it has,
        batches: of the rows of its logs, and
        trims: of those that are cut -> what of them stays.
    """
    whole = {"checkpoint": checkpoints, "state": states, "batch": batches}
    held = {ref.blob for kind, owners in whole.items() for ref in _refs(tx, kind, owner=owners)}
    cut = {row.pk: (row, _named(row)) for row in tx.find(Batch, pk=In(list(trims)))}
    digests = {row.digest for row in tx.find(Blob, pk=In(list(held)))}
    for pk, (_, named) in cut.items():
        digests |= {d for d, at in named.items() if not all(_within(n, trims[pk]) for n in at)}
    if not digests:
        return
    blobs = [row.pk for row in tx.find(Blob, digest=In(list(digests)))]
    stay = {
        kind: [ref.owner for ref in _refs(tx, kind, blob=blobs) if ref.owner not in set(owners)]
        for kind, owners in whole.items()
    }
    gone = frozenset(checkpoints)
    yield from tx.find(CheckpointRow, cid=In(stay["checkpoint"]))
    for batch in tx.find(Batch, pk=In(list(dict.fromkeys(stay["batch"])))):
        named = cut[batch.pk][1] if batch.pk in cut else _named(batch)
        for digest in digests & named.keys():
            at = [n for n in named[digest] if _within(n, trims.get(batch.pk))]
            if (row := _first_reader(tx, source, batch, at, gone)) is not None:
                yield row
    for state in stay["state"]:
        rows = tx.find(CheckpointRow, state=state)
        yield from [row for row in rows if row.cid not in gone][:1]


def _refs(
    tx: Tx, kind: str, *, owner: Collection[int] = (), blob: Collection[int] = ()
) -> list[BlobRef]:
    if owner:
        return tx.find(BlobRef, owner_kind=OWNER[kind], owner=In(list(owner)))
    return tx.find(BlobRef, owner_kind=OWNER[kind], blob=In(list(blob)))


def _named(batch: Batch) -> Named:
    """Return which items of a row name large values; none of a row that cannot be read."""
    found: Named = defaultdict(list)
    with suppress(Corrupted):  # that somebody else's row is damaged must not keep what goes
        for n, item in enumerate(codec.split_array(codec.decompress(batch.codec, batch.body))):
            for digest in codec.references(item):
                found[digest].append(batch.pos + n)
    return found


def _within(position: int, parts: Intervals | None) -> bool:
    return parts is None or any(start <= position < stop for start, stop in parts)


def _first_reader(
    tx: Tx, source: Source, batch: Batch, positions: list[int], gone: frozenset[int]
) -> CheckpointRow | None:
    """Return the first checkpoint that reads one of these positions of a row.

    New messages among old ones, as of a shortened conversation, stand in a lineage without
    checkpoints: those that read them are of lineages that point into it.
    """
    if not positions:
        return None
    if own := _reading(tx, batch.lineage, batch.log, min(positions), gone):
        return own[0]
    home = source.lineage(batch.lineage)
    session = source.thread_by_pk(home.thread).session
    threads = In([row.pk for row in tx.find(ThreadRow, session=session)])
    found: list[CheckpointRow] = []
    for lineage in tx.find(Lineage, thread=threads):
        at = 0
        for piece in inherited_pieces(lineage).get(batch.log, []):
            inside = [n for n in positions if piece.start <= n < piece.stop]
            if piece.lineage == batch.lineage and inside:
                beyond = at + min(inside) - piece.start
                found += _reading(tx, lineage.pk, batch.log, beyond, gone)[:1]
            at += piece.stop - piece.start
    return min(found, key=lambda row: (row.at, row.cid), default=None)


def _reading(tx: Tx, lineage: int, log: str, at: int, gone: frozenset[int]) -> list[CheckpointRow]:
    """Return the checkpoints of a lineage that read a log of theirs beyond ``at``, by step."""
    rows = tx.find(CheckpointRow, lineage=lineage, order="step")
    known = [row for row in rows if row.cid not in gone]
    return [row for row in known if (lengths := log_lengths(row).get(log)) and lengths[0] > at]
