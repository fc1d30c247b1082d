"""Checking everything that is stored; nothing is repaired.

A session at a time, each in one read transaction, so that no long reader lets the log grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import codec
from ..errors import CheckpointError
from ..reports import Problem, VerifyReport
from ..store import (
    TABLES,
    CheckpointRow,
    Edge,
    HeadMoveRow,
    In,
    Lineage,
    Pin,
    RunRow,
    TagRow,
    ThreadRow,
    Tx,
)
from .base import EngineBase
from .checking import name_of, whole
from .place import digest_of_row
from .prepare import log_lengths
from .read import result_of
from .source import Caches, Source

__all__ = ["Verifying"]


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
        problems += await self._fresh_read(whole)
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
            thread = self._thread_of(lineage)
            self._guard("lineage", str(lineage.pk), thread, partial(self._logs, lineage))
        for row in self.rows.values():
            thread = self._thread_of(self.lineages[row.lineage])
            self._guard("checkpoint", name_of(row), thread, partial(self._checkpoint, row))
        return self

    def _thread_of(self, lineage: Lineage) -> str:
        return str(self.threads[lineage.thread].name)

    def _report(self, kind: str, where: str, what: str, *threads: str) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what, threads=threads))

    def _report_checkpoint(self, kind: str, row: CheckpointRow, what: str) -> None:
        self._report(kind, name_of(row), what, self._thread_of(self.lineages[row.lineage]))

    def _guard(self, kind: str, where: str, thread: str, check: Callable[[], None]) -> None:
        try:
            check()
        except CheckpointError as err:
            self._report(kind, where, str(err), thread)
        except Exception as err:  # noqa: BLE001  (damaged rows break in any way there is)
            self._report(kind, where, f"cannot be read: {err!r}", thread)

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
                what = f"there are {there[thread.pk]}, {said} were made"
                self._report(kind, thread.name, what, thread.name)

    def _links(self) -> None:
        """Check that heads, origins, lineages, tags and edges lead somewhere."""
        for thread in self.threads.values():
            for field in ("head", "origin", "open_tip"):
                cid = getattr(thread, field)
                if cid is not None and cid not in self.rows:
                    what = f"the {field} of a thread is missing"
                    self._report("checkpoint", thread.name, what, thread.name)
            for field in ("superseded", "active"):
                pk = getattr(thread, field)
                if pk is not None and pk not in self.threads:
                    what = f"its {field} thread is missing"
                    self._report("thread", thread.name, what, thread.name)
        self._rows_lead_on()

    def _rows_lead_on(self) -> None:
        for lineage in self.lineages.values():
            if lineage.parent is not None and lineage.parent not in self.lineages:
                what = "its parent lineage is missing"
                self._report("lineage", str(lineage.pk), what, self._thread_of(lineage))
        for tag in self.tx.find(TagRow, thread=In(list(self.threads))):
            if tag.checkpoint not in self.rows:
                thread = self.threads[tag.thread].name
                what = "the tagged checkpoint is missing"
                self._report("checkpoint", f"tag {tag.name}", what, thread)
        self.edges = defaultdict(list)
        for edge in self.tx.find(Edge, child=In(list(self.rows))):
            self.edges[edge.child].append(edge)
            if edge.parent not in self.rows:
                thread = self._thread_of(self.lineages[self.rows[edge.child].lineage])
                self._report("checkpoint", f"cid {edge.parent}", "a parent is missing", thread)

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
                    self._report_checkpoint("checkpoint", row, "its log does not match its digest")

    def _checkpoint(self, row: CheckpointRow) -> None:
        edges = sorted(self.edges[row.cid], key=lambda edge: edge.ord)
        if [edge.ord for edge in edges] != list(range(1, row.nparents)):
            what = f"has {len(edges)} further parents, not {max(0, row.nparents - 1)} in order"
            self._report_checkpoint("edge", row, what)
        state = self.source.state(row.state)
        if digest_of_row(row, [edge.parent for edge in edges], state.digest) != row.digest:
            self._report_checkpoint("checkpoint", row, "it does not match its digest")
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
                self._report_checkpoint("checkpoint", row, what)
        if row.meta is not None:
            codec.unpack(row.meta, self.source.blobs)
