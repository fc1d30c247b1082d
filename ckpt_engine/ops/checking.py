"""Checking what is not of one session: each row by itself, and whether something leads to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from .. import codec
from ..delta import base_depth
from ..errors import CheckpointError
from ..model import id_from_bytes
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
from .place import OWNER
from .prepare import result_references
from .source import Source
from .tombstones import TOMBSTONES

__all__ = ["name_of", "whole"]

_SEALED = (ThreadRow, HeadMoveRow, Lineage, TagRow, Pin, RunRow, Tombstone, Meta)
_PAGE = 8_000_000  # bytes of rows that are held at once


def name_of(row: CheckpointRow) -> str:
    """Return what a checkpoint is called, also one whose id is damaged."""
    return (
        id_from_bytes(row.id) if isinstance(row.id, bytes) and len(row.id) == 16 else repr(row.id)
    )


def whole(source: Source) -> list[Problem]:
    """Return what is wrong with checksums, messages, states, large values, and what is lost."""
    tx = source.tx
    problems: list[Problem] = []
    for table in _SEALED:
        rows: list[Row] = tx.find(table)
        problems += [
            Problem(kind=TABLES[table].name, where=str(row[:2]), what="checksum does not match")
            for row in rows
            if row[-1] != crc_of(row)
        ]
    wanted: dict[tuple[int, int], set[bytes]] = {}
    owners = _Owners(tx)
    problems += _batches(tx, wanted, owners)
    problems += _states(tx, wanted, owners)
    problems += _references(tx, wanted, owners)
    problems += _lost(tx)
    problems += _facts(tx)
    return problems


def _batches(tx: Tx, wanted: dict[tuple[int, int], set[bytes]], owners: _Owners) -> list[Problem]:
    problems = []
    lineages = {row.pk for row in tx.find(Lineage)}
    for row in _paged(tx, Batch):
        try:
            packed = codec.decompress(row.codec, row.body)
            count = len(codec.split_array(packed))
            wanted[OWNER["batch"], row.pk] = codec.references(packed)
            what = f"holds {count} items, not {row.n}" if count != row.n else None
        except CheckpointError as err:
            what = str(err)
        if what is None and row.lineage not in lineages:
            what = "its lineage is missing"
        if what is not None:
            threads = owners.of_lineages([row.lineage])
            where = f"{row.lineage}/{row.pos}"
            problems.append(Problem(kind="batch", where=where, what=what, threads=threads))
    return problems


def _states(tx: Tx, wanted: dict[tuple[int, int], set[bytes]], owners: _Owners) -> list[Problem]:
    problems = []
    depths: dict[int, int] = {}
    for row in _paged(tx, StateRow):
        depths[row.pk] = row.depth
        try:
            wanted[OWNER["state"], row.pk] = codec.references(codec.decompress(row.codec, row.body))
            what = None
        except CheckpointError as err:
            what = str(err)
        if row.base is None and row.depth != 0:
            what = "a whole state has depth 0"
        elif row.base is not None and depths.get(row.base) != base_depth(row.depth):
            what = "the state it differs from is missing or another one"
        if what is not None:
            threads = owners.of_states([row.pk])
            problems.append(Problem(kind="state", where=str(row.pk), what=what, threads=threads))
    return problems


def _references(
    tx: Tx, wanted: dict[tuple[int, int], set[bytes]], owners: _Owners
) -> list[Problem]:
    problems = []
    digests: dict[int, bytes] = {}
    for row in _paged(tx, Blob):
        digests[row.pk] = row.digest
        try:
            sound = codec.digest_of(codec.decompress(row.codec, row.body)) == row.digest
        except CheckpointError:
            sound = False
        if not sound:
            what, threads = "does not match its digest", owners.of_blob(row.pk)
            problems.append(Problem(kind="blob", where=str(row.pk), what=what, threads=threads))
    held: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for ref in tx.find(BlobRef):
        if ref.blob not in digests:
            threads = owners.of_blob(ref.blob)
            found = Problem(kind="blob", where=str(ref.blob), what="is missing", threads=threads)
            problems.append(found)
        else:
            held[ref.owner_kind, ref.owner].add(digests[ref.blob])
    for row in _paged(tx, CheckpointRow):
        wanted[OWNER["checkpoint"], row.cid] = _of_checkpoint(row)
    for owner in {*wanted, *held}:
        if wanted.get(owner, set()) != held.get(owner, set()):
            what = "the references to large values are not those that its row needs"
            problems.append(Problem(kind="blob_ref", where=str(owner), what=what))
    return problems


def _of_checkpoint(row: CheckpointRow) -> set[bytes]:
    try:
        meta = codec.references(row.meta) if row.meta is not None else set()
        return meta | result_references(row)
    except CheckpointError:
        return set()


def _lost(tx: Tx) -> list[Problem]:
    """Find rows that nothing leads to."""
    problems = []
    threads = {row.pk for row in tx.find(ThreadRow)}
    lineages = tx.find(Lineage)
    for lineage in lineages:
        if lineage.thread not in threads:
            what = "the thread of a lineage is missing"
            problems.append(Problem(kind="thread", where=str(lineage.thread), what=what))
    known = {row.pk for row in lineages}
    cids = set()
    for row in _paged(tx, CheckpointRow):
        cids.add(row.cid)
        if row.lineage not in known:
            what = "the lineage of a checkpoint is missing"
            problems.append(Problem(kind="lineage", where=name_of(row), what=what))
    for edge in tx.find(Edge):
        if edge.child not in cids:
            what = "the child of an edge is missing"
            problems.append(Problem(kind="checkpoint", where=f"cid {edge.child}", what=what))
    for pin in tx.find(Pin):
        if pin.checkpoint not in cids:
            what = "a pinned checkpoint is missing"
            problems.append(Problem(kind="checkpoint", where=f"cid {pin.checkpoint}", what=what))
    return problems


def _facts(tx: Tx) -> list[Problem]:
    """Compare what the store says of itself with what is there."""
    facts = {row.key: row.value for row in tx.find(Meta)}
    problems = [
        Problem(kind="meta", where=key, what="is missing")
        for key in tx.meta_keys
        if key not in facts
    ]
    stones = tx.count(Tombstone)
    if stones != int(facts.get(TOMBSTONES, "0")):
        what = f"there are {stones}, {facts.get(TOMBSTONES, 'none')} were made"
        problems.append(Problem(kind="tombstone", where=TOMBSTONES, what=what))
    return problems


def _paged(tx: Tx, table: Any) -> Iterable[Any]:
    """Yield all rows of a table, some at a time: few where they are large."""
    last, many = -(2**62), 4
    while rows := tx.find(table, "", many, **{TABLES[table].key[0]: Above(last)}):
        yield from rows
        last = rows[-1][0]
        sizes = [len(value) for row in rows for value in row if isinstance(value, bytes)]
        many = max(1, min(500, 4 * many, _PAGE // max(1, *sizes)))


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
