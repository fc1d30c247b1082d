"""Checking everything that is stored; nothing is repaired.

A session at a time, each in one read transaction, so that no long reader lets the log grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from .. import codec
from ..delta import base_depth
from ..errors import CheckpointError
from ..model import id_from_bytes
from ..reports import Problem, VerifyReport
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
from .base import EngineBase
from .place import OWNER, digest_of_row
from .prepare import log_lengths, result_references
from .read import result_of
from .source import Caches, Source
from .tombstones import TOMBSTONES

__all__ = ["Verifying"]

_SEALED = (ThreadRow, HeadMoveRow, Lineage, TagRow, Pin, RunRow, Tombstone, Meta)


class Verifying(EngineBase):
    """The verb that checks."""

    async def verify(self) -> VerifyReport:
        """Check every digest, checksum, parent, head, count and reference; repair nothing.

        Example:
            await engine.snapshot("chat", append=["hello"])
            report = await engine.verify()
            assert (report.ok, report.checkpoints) == (True, 1)
        """
        problems: list[Problem] = []
        sessions = await self._fresh_read(lambda source: _roots(source.tx, problems))
        checkpoints = threads = 0
        for session in sessions:
            found = await self._fresh_read(partial(_session, session=session))
            problems += found.problems
            checkpoints += found.checkpoints
            threads += len(found.threads)
        problems += await self._fresh_read(_whole)
        unique = dict.fromkeys(problems)
        return VerifyReport(problems=tuple(unique), checkpoints=checkpoints, threads=threads)

    async def _fresh_read(self, work: Callable[[Source], Any]) -> Any:
        """Read without the caches: they would hide what is on the disk."""
        self._check_open()
        return await self._store.read(lambda tx: work(Source(Caches(8_000_000), tx)))


def _roots(tx: Tx, problems: list[Problem]) -> list[int]:
    """Return the sessions' keys, also of those whose root is gone."""
    threads = tx.find(ThreadRow)
    names = {row.pk for row in threads}
    sessions = sorted({row.session for row in threads})
    problems += [
        Problem(kind="thread", where=str(pk), what="the root of a session is missing")
        for pk in sessions
        if pk not in names
    ]
    return sessions


def _session(source: Source, session: int) -> _Session:
    return _Session(source, session).check()


class _Session:
    """The check of one session."""

    def __init__(self, source: Source, session: int) -> None:
        self.source = source
        self.tx = source.tx
        self.problems: list[Problem] = []
        self.threads = {row.pk: row for row in self.tx.find(ThreadRow, session=session)}
        self.lineages = {
            row.pk: row for row in self.tx.find(Lineage, thread=In(list(self.threads)))
        }
        rows = self.tx.find(CheckpointRow, lineage=In(list(self.lineages)))
        self.rows = {row.cid: row for row in rows}
        self.checkpoints = len(rows)

    def check(self) -> _Session:
        """Check everything; what is wrong is in ``problems``."""
        self._counts()
        self._links()
        for lineage in self.lineages.values():
            self._guard("lineage", str(lineage.pk), partial(self._logs, lineage))
        for row in self.rows.values():
            self._guard("checkpoint", _name(row), partial(self._checkpoint, row))
        return self

    def _report(self, kind: str, where: str, what: str) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what))

    def _guard(self, kind: str, where: str, check: Callable[[], None]) -> None:
        try:
            check()
        except CheckpointError as err:
            self._report(kind, where, str(err))
        except Exception as err:  # noqa: BLE001  (damaged rows break in any way there is)
            self._report(kind, where, f"cannot be read: {err!r}")

    def _counts(self) -> None:
        """Compare what a thread says it has with what is there."""
        per_thread = Counter(self.lineages[row.lineage].thread for row in self.rows.values())
        counted: tuple[tuple[Any, str], ...] = (
            (TagRow, "n_tag"),
            (HeadMoveRow, "n_move"),
            (RunRow, "n_run"),
        )
        for table, field in counted:
            there = Counter(
                row.thread for row in self.tx.find(table, thread=In(list(self.threads)))
            )
            self._compare(there, field, TABLES[table].name)
        self._compare(per_thread, "n_cp", "checkpoint")
        pins = self.tx.find(Pin, checkpoint=In(list(self.rows)))
        owners = (self.lineages[self.rows[pin.checkpoint].lineage].thread for pin in pins)
        self._compare(Counter(owners), "n_pin", "pin")

    def _compare(self, there: Counter[int], field: str, kind: str) -> None:
        for thread in self.threads.values():
            said = getattr(thread, field)
            if there[thread.pk] != said:
                self._report(kind, thread.name, f"there are {there[thread.pk]}, {said} were made")

    def _links(self) -> None:
        """Check that heads, origins, lineages, tags and edges lead somewhere."""
        for thread in self.threads.values():
            for field in ("head", "origin", "open_tip"):
                cid = getattr(thread, field)
                if cid is not None and cid not in self.rows:
                    self._report("checkpoint", thread.name, f"the {field} of a thread is missing")
            for field in ("superseded", "active"):
                pk = getattr(thread, field)
                if pk is not None and pk not in self.threads:
                    self._report("thread", thread.name, f"its {field} thread is missing")
        self._rows_lead_on()

    def _rows_lead_on(self) -> None:
        for lineage in self.lineages.values():
            if lineage.parent is not None and lineage.parent not in self.lineages:
                self._report("lineage", str(lineage.pk), "its parent lineage is missing")
        for tag in self.tx.find(TagRow, thread=In(list(self.threads))):
            if tag.checkpoint not in self.rows:
                self._report("checkpoint", f"tag {tag.name}", "the tagged checkpoint is missing")
        self.edges = defaultdict(list)
        for edge in self.tx.find(Edge, child=In(list(self.rows))):
            self.edges[edge.child].append(edge)
            if edge.parent not in self.rows:
                self._report("checkpoint", f"cid {edge.parent}", "a parent is missing")

    def _logs(self, lineage: Lineage) -> None:
        """Walk a lineage's logs once and compare the chain at every checkpoint's length."""
        mine = [row for row in self.rows.values() if row.lineage == lineage.pk]
        names = {name for row in mine for name in log_lengths(row)}
        for name in names:
            ends: dict[int, list[tuple[CheckpointRow, bytes]]] = defaultdict(list)
            for row in mine:
                length, chain, _ = log_lengths(row).get(name, (0, codec.EMPTY_CHAIN, 0))
                ends[length].append((row, chain))
            self._chain(lineage, name, ends)

    def _chain(
        self, lineage: Lineage, name: str, ends: dict[int, list[tuple[CheckpointRow, bytes]]]
    ) -> None:
        chain, at = codec.EMPTY_CHAIN, 0
        for stop in sorted(ends):
            chain = codec.chain_over(chain, self.source.items(lineage.pk, name, at, stop))
            at = stop
            for row, said in ends[stop]:
                if said != chain:
                    self._report("checkpoint", _name(row), "its log does not match its digest")

    def _checkpoint(self, row: CheckpointRow) -> None:
        edges = sorted(self.edges[row.cid], key=lambda edge: edge.ord)
        if [edge.ord for edge in edges] != list(range(1, row.nparents)):
            what = f"has {len(edges)} further parents, not {max(0, row.nparents - 1)} in order"
            self._report("edge", _name(row), what)
        state = self.source.state(row.state)
        if digest_of_row(row, [edge.parent for edge in edges], state.digest) != row.digest:
            self._report("checkpoint", _name(row), "it does not match its digest")
        self._content(row, state.values)

    def _content(self, row: CheckpointRow, values: Mapping[str, bytes]) -> None:
        """Decode what a read would decode."""
        result_of(self.source, row)
        logs = log_lengths(row)
        for key, value in values.items():
            if value != codec.LOG_PLACE:
                codec.unpack(value, self.source.blobs)
            elif key not in logs:
                what = f"it does not say how long its log {key!r} is"
                self._report("checkpoint", _name(row), what)
        if row.meta is not None:
            codec.unpack(row.meta, self.source.blobs)


def _name(row: CheckpointRow) -> str:
    return (
        id_from_bytes(row.id) if isinstance(row.id, bytes) and len(row.id) == 16 else repr(row.id)
    )


def _whole(source: Source) -> list[Problem]:
    """Check what is not of one session: checksums, batches, states, blobs, and lost rows."""
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
    problems += _batches(tx, wanted)
    problems += _states(tx, wanted)
    problems += _references(tx, wanted)
    problems += _lost(tx)
    problems += _facts(tx)
    return problems


def _batches(tx: Tx, wanted: dict[tuple[int, int], set[bytes]]) -> list[Problem]:
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
            problems.append(Problem(kind="batch", where=f"{row.lineage}/{row.pos}", what=what))
    return problems


def _states(tx: Tx, wanted: dict[tuple[int, int], set[bytes]]) -> list[Problem]:
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
            problems.append(Problem(kind="state", where=str(row.pk), what=what))
    return problems


def _references(tx: Tx, wanted: dict[tuple[int, int], set[bytes]]) -> list[Problem]:
    problems = []
    digests: dict[int, bytes] = {}
    for row in _paged(tx, Blob):
        digests[row.pk] = row.digest
        try:
            sound = codec.digest_of(codec.decompress(row.codec, row.body)) == row.digest
        except CheckpointError:
            sound = False
        if not sound:
            what = "does not match its digest"
            problems.append(Problem(kind="blob", where=str(row.pk), what=what))
    held: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for ref in tx.find(BlobRef):
        if ref.blob not in digests:
            problems.append(Problem(kind="blob", where=str(ref.blob), what="is missing"))
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
            problems.append(Problem(kind="lineage", where=_name(row), what=what))
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
    """Yield all rows of a table, some at a time."""
    last = -(2**62)
    while rows := tx.find(table, "", 500, **{TABLES[table].key[0]: Above(last)}):
        yield from rows
        last = rows[-1][0]
