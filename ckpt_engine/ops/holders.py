"""Who else has a large value that an erasure removes: it is stored once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from .. import codec
from ..errors import Corrupted
from ..store import Batch, Blob, BlobRef, CheckpointRow, In, Lineage, StateRow, ThreadRow, Tx
from .place import OWNER
from .prepare import log_lengths
from .source import Piece, Source, inherited_pieces
from .sweeping import Live, with_bases
from .trimming import live_parts

__all__ = ["Holders", "holders_of", "large_values", "values_in"]

_NOTHING = (0,)
"""The length of a log that a checkpoint does not have."""


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


def values_in(tx: Tx, parts: Live) -> set[bytes]:
    """Return the digests of the large values in some intervals of logs."""
    found: set[bytes] = set()
    for (lineage, log), intervals in parts.items():
        if not intervals:
            continue  # as mostly
        rows = zip(*tx.columns(Batch, "pk", "pos", "n", lineage=lineage, log=log), strict=True)
        read = In([pk for pk, pos, n in rows if live_parts(pos, n, intervals)])
        large = {r.owner for r in tx.find(BlobRef, owner_kind=OWNER["batch"], owner=read)}
        for batch in tx.find(Batch, pk=In(list(large))):
            for at, digests in _references(batch):
                if any(start <= at < stop for start, stop in intervals):
                    found |= digests
    return found


def _held(tx: Tx, kind: str, owners: Collection[int]) -> set[int]:
    return {r.blob for r in tx.find(BlobRef, owner_kind=OWNER[kind], owner=In(list(owners)))}


def holders_of(source: Source, digests: Collection[bytes]) -> Holders:
    """Return who has these values; needs a transaction."""
    tx, holders = source.tx, Holders()
    blobs = In([row.pk for row in tx.find(Blob, digest=In(list(digests)))])
    owners: dict[int, set[int]] = defaultdict(set)
    for ref in tx.find(BlobRef, blob=blobs):
        owners[ref.owner_kind].add(ref.owner)
    holders.checkpoints += tx.find(CheckpointRow, cid=In(list(owners[OWNER["checkpoint"]])))
    readers: dict[int, _Readers] = {}
    for batch in tx.find(Batch, pk=In(list(owners[OWNER["batch"]]))):
        session = _session_of(source, batch.lineage)
        some = readers.setdefault(session, _Readers(tx, session))
        _find_readers(some, batch, set(digests), holders)
    _find_named(source, owners[OWNER["state"]], holders)
    return holders


def _session_of(source: Source, lineage: int) -> int:
    """Return the key of a lineage's session."""
    return source.thread_by_pk(source.lineage(lineage).thread).session


# --- logs ---


class _Readers:
    """Finds the checkpoints of a session that read a place of a log; reads each row once."""

    def __init__(self, tx: Tx, session: int) -> None:
        self._tx = tx
        self.session = session
        self._checkpoints: dict[int, list[CheckpointRow]] = {}

    @cached_property
    def _pointing(self) -> dict[tuple[int, str], list[tuple[int, int, Piece]]]:
        """For a lineage and a log: which lineages point there, from which item of theirs on."""
        threads = In([row.pk for row in self._tx.find(ThreadRow, session=self.session)])
        found = defaultdict(list)
        for lineage in self._tx.find(Lineage, thread=threads):
            for log, pieces in inherited_pieces(lineage).items():
                at = 0
                for piece in pieces:
                    found[piece.lineage, log].append((lineage.pk, at, piece))
                    at += piece.stop - piece.start
        return found

    def first(self, batch: Batch, positions: list[int]) -> CheckpointRow | None:
        """Return the first checkpoint that reads one of these positions of a row.

        New messages among old ones, as of a shortened conversation, stand in a lineage without
        checkpoints: those that read them are of lineages that point into it.
        """
        if own := self._beyond(batch.lineage, batch.log, min(positions)):
            return own
        found: list[CheckpointRow] = []
        for lineage, at, piece in self._pointing.get((batch.lineage, batch.log), ()):
            inside = [n for n in positions if piece.start <= n < piece.stop]
            if inside and (row := self._beyond(lineage, batch.log, at + inside[0] - piece.start)):
                found.append(row)
        return min(found, key=lambda row: (row.at, row.cid), default=None)

    def _beyond(self, lineage: int, log: str, at: int) -> CheckpointRow | None:
        """Return the first checkpoint of a lineage that reads a log of it beyond ``at``."""
        rows = self._checkpoints.get(lineage)
        if rows is None:
            rows = self._tx.find(CheckpointRow, lineage=lineage, order="step")
            self._checkpoints[lineage] = rows
        reading = (row for row in rows if log_lengths(row).get(log, _NOTHING)[0] > at)
        return next(reading, None)


def _find_readers(readers: _Readers, batch: Batch, digests: set[bytes], holders: Holders) -> None:
    for positions in _named(batch, digests).values():
        if (first := readers.first(batch, positions)) is not None:
            holders.checkpoints.append(first)
        if not all(readers.first(batch, [n]) for n in positions):
            holders.leftovers.add(readers.session)


def _named(batch: Batch, digests: set[bytes]) -> dict[bytes, list[int]]:
    """Return where a row names which of the values."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for at, named in _references(batch):
        for digest in named & digests:
            found[digest].append(at)
    return found


def _references(batch: Batch) -> Iterator[tuple[int, set[bytes]]]:
    """Yield the values that a row names, by position; nothing of a row that cannot be read."""
    with suppress(Corrupted):  # that somebody else's row is damaged must not keep what goes
        items = codec.split_array(codec.decompress(batch.codec, batch.body))
        yield from ((batch.pos + n, codec.references(item)) for n, item in enumerate(items))


# --- states ---


def _find_named(source: Source, states: set[int], holders: Holders) -> None:
    tx = source.tx
    cids, named = tx.columns(CheckpointRow, "cid", "state", state=In(list(states)))
    first = dict(zip(reversed(named), reversed(cids), strict=True))
    holders.checkpoints += tx.find(CheckpointRow, cid=In(list(first.values())))
    states = states - first.keys()
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
            (lineages,) = tx.columns(CheckpointRow, "lineage", state=In(above))
            sessions |= {_session_of(source, lineage) for lineage in set(lineages)}
        holders.leftovers |= sessions
        holders.orphans |= set() if sessions else {pk}
