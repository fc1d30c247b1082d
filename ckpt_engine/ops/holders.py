"""Who else has a large value that an erasure removes: it is stored once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

from .. import codec
from ..errors import Corrupted
from ..store import Batch, Blob, BlobRef, CheckpointRow, In, Lineage, StateRow, ThreadRow, Tx
from .place import OWNER
from .prepare import log_lengths
from .source import Source, inherited_pieces
from .sweeping import with_bases

__all__ = ["Holders", "holders_of", "large_values"]


@dataclass(slots=True)
class Holders:
    """Who has some large values.

    Attributes:
        checkpoints: For each value and each row that has it, the first checkpoint that reads it.
        leftovers: Keys of the sessions in which rows have one that no checkpoint reads any more.
        orphans: Keys of states that have one and that nothing leads to.
    """

    checkpoints: list[CheckpointRow] = field(default_factory=list)
    leftovers: set[int] = field(default_factory=set)
    orphans: set[int] = field(default_factory=set)


def large_values(
    tx: Tx,
    source: Source,
    *,
    lineages: Collection[int],
    states: Collection[int],
    checkpoints: Collection[int],
) -> set[bytes]:
    """Return the digests of the large values in some lineages' logs, in states and in results."""
    (batches,) = tx.columns(Batch, "pk", lineage=In(list(lineages)))
    held = {*_held(tx, "batch", batches), *_held(tx, "checkpoint", checkpoints)}
    found = {row.digest for row in tx.find(Blob, pk=In(list(held)))}
    if _held(tx, "state", with_bases(tx, states, {})):
        for pk in states:
            for value in source.state(pk).values.values():
                found |= codec.references(value)
    return found


def _held(tx: Tx, kind: str, owners: Collection[int]) -> set[int]:
    return {r.blob for r in tx.find(BlobRef, owner_kind=OWNER[kind], owner=In(list(owners)))}


def holders_of(tx: Tx, digests: Collection[bytes]) -> Holders:
    """Return who has these values."""
    holders = Holders()
    blobs = In([row.pk for row in tx.find(Blob, digest=In(list(digests)))])
    owners: dict[int, set[int]] = defaultdict(set)
    for ref in tx.find(BlobRef, blob=blobs):
        owners[ref.owner_kind].add(ref.owner)
    holders.checkpoints += tx.find(CheckpointRow, cid=In(list(owners[OWNER["checkpoint"]])))
    for batch in tx.find(Batch, pk=In(list(owners[OWNER["batch"]]))):
        _find_readers(tx, batch, set(digests), holders)
    _find_named(tx, owners[OWNER["state"]], holders)
    return holders


# --- logs ---


def _find_readers(tx: Tx, batch: Batch, digests: set[bytes], holders: Holders) -> None:
    session = _session_of(tx, batch.lineage)
    for positions in _named(batch, digests).values():
        first = _first_reader(tx, session, batch, positions)
        if first is not None:
            holders.checkpoints.append(first)
        if first is None or len(positions) > 1:
            unread = [n for n in positions if _first_reader(tx, session, batch, [n]) is None]
            holders.leftovers |= {session} if unread else set()


def _named(batch: Batch, digests: set[bytes]) -> dict[bytes, list[int]]:
    """Return where a row names which of the values; nothing of a row that cannot be read."""
    found: dict[bytes, list[int]] = defaultdict(list)
    with suppress(Corrupted):  # that somebody else's row is damaged must not keep what goes
        for n, item in enumerate(codec.split_array(codec.decompress(batch.codec, batch.body))):
            for digest in codec.references(item) & digests:
                found[digest].append(batch.pos + n)
    return found


def _first_reader(tx: Tx, session: int, batch: Batch, positions: list[int]) -> CheckpointRow | None:
    """Return the first checkpoint that reads one of these positions of a row.

    New messages among old ones, as of a shortened conversation, stand in a lineage without
    checkpoints: those that read them are of lineages that point into it.
    """
    if own := _reading(tx, batch.lineage, batch.log, min(positions)):
        return own[0]
    threads = In([row.pk for row in tx.find(ThreadRow, session=session)])
    found: list[CheckpointRow] = []
    for lineage in tx.find(Lineage, thread=threads):
        at = 0
        for piece in inherited_pieces(lineage).get(batch.log, []):
            inside = [n for n in positions if piece.start <= n < piece.stop]
            if piece.lineage == batch.lineage and inside:
                beyond = at + min(inside) - piece.start
                found += _reading(tx, lineage.pk, batch.log, beyond)[:1]
            at += piece.stop - piece.start
    return min(found, key=lambda row: (row.at, row.cid), default=None)


def _reading(tx: Tx, lineage: int, log: str, at: int) -> list[CheckpointRow]:
    """Return the checkpoints of a lineage that read a log of theirs beyond ``at``, by step."""
    rows = tx.find(CheckpointRow, lineage=lineage, order="step")
    return [row for row in rows if (lengths := log_lengths(row).get(log)) and lengths[0] > at]


# --- states ---


def _find_named(tx: Tx, states: set[int], holders: Holders) -> None:
    for pk in states:
        if named := tx.find(CheckpointRow, state=pk, limit=1):
            holders.checkpoints += named
            states = states - {pk}
    if not states:
        return
    standing: dict[int, list[int]] = defaultdict(list)  # on which states others stand
    for pk, base in zip(*tx.columns(StateRow, "pk", "base"), strict=True):
        if base is not None:
            standing[base].append(pk)
    for pk in states:
        waiting, sessions = [pk], set()
        while waiting:
            above = standing[waiting.pop()]
            waiting += above
            rows = tx.find(CheckpointRow, state=In(above))
            sessions |= {_session_of(tx, row.lineage) for row in rows}
        holders.leftovers |= sessions
        holders.orphans |= set() if sessions else {pk}


def _session_of(tx: Tx, lineage: int) -> int:
    """Return the key of a lineage's session."""
    row = tx.one(Lineage, pk=lineage)
    thread = tx.one(ThreadRow, pk=row.thread) if row is not None else None
    if thread is None:
        raise Corrupted(f"lineage {lineage} belongs to no thread")
    return thread.session
