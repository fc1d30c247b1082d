"""Checking what is not of one session: each row by itself, and whether something leads to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

from .. import codec
from ..delta import base_depth
from ..errors import CheckpointError, Corrupted
from ..reports import Problem
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
    StateRow,
    TagRow,
    ThreadRow,
    Tombstone,
    Tx,
    crc_of,
)
from .damaged import BREAKS, name_of
from .place import OWNER
from .prepare import result_references
from .source import Source
from .tombstones import TOMBSTONES

__all__ = ["what_breaks", "whole"]

_SEALED = (ThreadRow, HeadMoveRow, Lineage, TagRow, Pin, RunRow, Tombstone, Meta)
_NEVER_PACKED = "its codec is one that only packed messages have"
_PAGE = 8_000_000  # bytes of rows that are held at once


_Wanted = dict[tuple[int, int], set[bytes]]
"""(Kind of row, its key) -> digests of the large values that it names."""


def what_breaks(check: Callable[[], str | None]) -> str | None:
    """Return what a check says is wrong, or what it broke on: damaged rows break in many ways."""
    try:
        return check()
    except CheckpointError as err:
        return str(err)
    except BREAKS as err:
        return f"cannot be read: {err!r}"


def whole(source: Source) -> list[Problem]:
    """Return what is wrong with checksums, messages, states, large values, and what is lost."""
    tx = source.tx
    wanted: _Wanted = {}
    owners = _Owners(tx)
    problems: list[Problem] = []
    parts = {
        **{TABLES[table].name: _checksums(tx, table) for table in _SEALED},
        "batch": _batches(tx, wanted, owners),
        "state": _states(tx, wanted, owners),
        "blob": _references(tx, wanted, owners),
        "lost rows": _lost(tx),
        "facts": _facts(tx),
    }
    for where, part in parts.items():
        # a part that cannot go on keeps what it has found, and the next ones are looked at
        if (what := what_breaks(partial(problems.extend, part))) is not None:
            problems.append(Problem(kind="file", where=where, what=what))
    return problems


def _checksums(tx: Tx, table: type[Row]) -> Iterable[Problem]:
    for row in tx.find(table):
        if row[-1] != crc_of(row):
            what = "checksum does not match"
            yield Problem(kind=TABLES[table].name, where=str(row[:2]), what=what)


def _batches(tx: Tx, wanted: _Wanted, owners: _Owners) -> Iterable[Problem]:
    lineages = {row.pk for row in tx.find(Lineage)}
    for row in _paged(tx, Batch):
        what = what_breaks(partial(_batch, row, wanted))
        if what is None and row.lineage not in lineages:
            what = "its lineage is missing"
        if what is not None:
            threads = owners.of_lineages([row.lineage])
            where = f"{row.lineage}/{row.pos}"
            yield Problem(kind="batch", where=where, what=what, threads=threads)


def _batch(row: Batch, wanted: _Wanted) -> str | None:
    packed = codec.decompress(row.codec, row.body)
    count = len(codec.split_array(packed))
    wanted[OWNER["batch"], row.pk] = codec.references(packed)
    return f"holds {count} items, not {row.n}" if count != row.n else None


def _states(tx: Tx, wanted: _Wanted, owners: _Owners) -> Iterable[Problem]:
    depths: dict[int, int] = {}
    for row in _paged(tx, StateRow):
        depths[row.pk] = row.depth
        what = what_breaks(partial(_state, row, depths, wanted))
        if what is not None:
            threads = owners.of_states([row.pk])
            yield Problem(kind="state", where=str(row.pk), what=what, threads=threads)


def _state(row: StateRow, depths: dict[int, int], wanted: _Wanted) -> str | None:
    wanted[OWNER["state"], row.pk] = codec.references(codec.decompress(row.codec, row.body))
    if codec.kind_of(row.codec) == codec.SEALED:
        return _NEVER_PACKED
    if row.base is None and row.depth != 0:
        return "a whole state has depth 0"
    if row.base is not None and depths.get(row.base) != base_depth(row.depth):
        return "the state it differs from is missing or another one"
    return None


def _blob(row: Blob) -> str | None:
    if codec.digest_of(codec.decompress(row.codec, row.body)) != row.digest:
        return "does not match its digest"
    return _NEVER_PACKED if codec.kind_of(row.codec) == codec.SEALED else None


def _references(tx: Tx, wanted: _Wanted, owners: _Owners) -> Iterable[Problem]:
    digests: dict[int, bytes] = {}
    for row in _paged(tx, Blob):
        digests[row.pk] = row.digest
        if (what := what_breaks(partial(_blob, row))) is not None:
            threads = owners.of_blob(row.pk)
            yield Problem(kind="blob", where=str(row.pk), what=what, threads=threads)
    held: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for ref in tx.find(BlobRef):
        if ref.blob not in digests:
            threads = owners.of_blob(ref.blob)
            yield Problem(kind="blob", where=str(ref.blob), what="is missing", threads=threads)
        else:
            held[ref.owner_kind, ref.owner].add(digests[ref.blob])
    for row in _paged(tx, CheckpointRow):
        wanted[OWNER["checkpoint"], row.cid] = _of_checkpoint(row)
    for owner in {*wanted, *held}:
        if wanted.get(owner, set()) != held.get(owner, set()):
            what = "the references to large values are not those that its row needs"
            yield Problem(kind="blob_ref", where=str(owner), what=what)


def _of_checkpoint(row: CheckpointRow) -> set[bytes]:
    try:
        meta = codec.references(row.meta) if row.meta is not None else set()
        return meta | result_references(row)
    except (CheckpointError, *BREAKS):  # a checkpoint's own digest tells
        return set()


def _lost(tx: Tx) -> Iterable[Problem]:
    """Find rows that nothing leads to."""
    threads = {row.pk for row in tx.find(ThreadRow)}
    lineages = tx.find(Lineage)
    for lineage in lineages:
        if lineage.thread not in threads:
            what = "the thread of a lineage is missing"
            yield Problem(kind="thread", where=str(lineage.thread), what=what)
    known = {row.pk for row in lineages}
    cids = set()
    for row in _paged(tx, CheckpointRow):
        cids.add(row.cid)
        if row.lineage not in known:
            what = "the lineage of a checkpoint is missing"
            yield Problem(kind="lineage", where=name_of(row), what=what)
    for edge in tx.find(Edge):
        if edge.child not in cids:
            what = "the child of an edge is missing"
            yield Problem(kind="checkpoint", where=f"cid {edge.child}", what=what)
    for pin in tx.find(Pin):
        if pin.checkpoint not in cids:
            what = "a pinned checkpoint is missing"
            yield Problem(kind="checkpoint", where=f"cid {pin.checkpoint}", what=what)


def _facts(tx: Tx) -> Iterable[Problem]:
    """Compare what the store says of itself with what is there."""
    facts = {row.key: row.value for row in tx.find(Meta)}
    for key in tx.meta_keys:
        if key not in facts:
            yield Problem(kind="meta", where=key, what="is missing")
    stones, made = tx.count(Tombstone), facts.get(TOMBSTONES, "0")
    if str(stones) != made:
        what = f"there are {stones}, {made} were made"
        yield Problem(kind="tombstone", where=TOMBSTONES, what=what)


def _paged(tx: Tx, table: Any) -> Iterable[Any]:
    """Yield all rows of a table, some at a time: few where they are large."""
    last, many = -(2**62), 4
    while rows := tx.find(table, "", many, **{TABLES[table].key[0]: Above(last)}):
        yield from rows
        if rows[-1][0] <= last:
            raise Corrupted(f"the rows of {TABLES[table].name} are out of order")
        last = rows[-1][0]
        sizes = [len(value) for row in rows for value in row if isinstance(value, bytes)]
        many = max(1, min(500, 4 * many, _PAGE // max([1, *sizes])))


class _Owners:
    """Finds threads by their rows; what is damaged or missing leads to none."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    @cached_property
    def _names(self) -> dict[int, str]:
        """Lineage -> its thread's id."""
        threads = {row.pk: row.name for row in self._tx.find(ThreadRow)}
        lineages = self._tx.find(Lineage)
        return {row.pk: str(threads[row.thread]) for row in lineages if row.thread in threads}

    def of_lineages(self, pks: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of the threads that lineages belong to."""
        return tuple(sorted({self._names[pk] for pk in pks if pk in self._names}))

    def of_states(self, pks: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of the threads with a checkpoint that has one of these states."""
        rows = self._tx.find(CheckpointRow, state=In(list(pks)))
        return self.of_lineages(row.lineage for row in rows)

    def of_blob(self, pk: int) -> tuple[str, ...]:
        """Return the ids of the threads in which a large value stands."""
        owners: dict[int, list[int]] = defaultdict(list)
        for ref in self._tx.find(BlobRef, blob=pk):
            owners[ref.owner_kind].append(ref.owner)
        batches = self._tx.find(Batch, pk=In(owners[OWNER["batch"]]))
        checkpoints = self._tx.find(CheckpointRow, cid=In(owners[OWNER["checkpoint"]]))
        lineages = [row.lineage for row in batches] + [row.lineage for row in checkpoints]
        found = {*self.of_lineages(lineages)}
        return tuple(sorted(found.union(self.of_states(owners[OWNER["state"]]))))
