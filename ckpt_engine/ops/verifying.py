"""Checking everything that is stored; nothing is repaired.

A session at a time, each in one read transaction, so that no long reader lets the log grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from .. import codec
from ..errors import CheckpointError, Corrupted
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
from .checking import what_breaks, whole
from .damaged import BREAKS, is_damage, name_of
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
        problems = await self._looked("all of it", partial(_file, url=self.url))
        sessions: list[int] = []
        problems += await self._looked("the threads", partial(_roots, sessions=sessions))
        counts = Counter(checkpoints=0, threads=0)
        for session in sessions:
            look = partial(_session, session=session, counts=counts)
            problems += await self._looked(f"session {session}", look)
        problems += await self._looked("the rows", whole)
        unique = dict.fromkeys(problems)
        return VerifyReport(problems=tuple(unique), **counts)

    async def _looked(self, what: str, work: Callable[[Source], list[Problem]]) -> list[Problem]:
        """Return what a part of the check finds; that it breaks, if it does."""
        try:
            return await self._fresh_read(work)
        except BREAKS as err:
            if not is_damage(err):
                raise
            why = str(err) if isinstance(err, Corrupted) else repr(err)
            found = f"{what} cannot be checked: {why}"
            return [Problem(kind="file", where=self.url, what=found)]

    async def _fresh_read(self, work: Callable[[Source], list[Problem]]) -> list[Problem]:
        """Read without the caches: they would hide what is on the disk."""
        self._check_open()

        def forgiving(tx: Tx) -> list[Problem]:
            tx.forgive()
            return work(Source(Caches(8_000_000), tx))

        return await self._store.read(forgiving)


def _file(source: Source, url: str) -> list[Problem]:
    return [Problem(kind="file", where=url, what=line) for line in source.tx.damage()]


def _roots(source: Source, sessions: list[int]) -> list[Problem]:
    """Note the sessions' keys, also of those whose root is gone."""
    threads = source.tx.find(ThreadRow)
    names = {row.pk for row in threads}
    sessions += dict.fromkeys(row.session for row in threads)
    return [
        Problem(kind="thread", where=str(pk), what="the root of a session is missing")
        for pk in sessions
        if pk not in names
    ]


def _session(source: Source, session: int, counts: Counter[str]) -> list[Problem]:
    found = _Session(source, session)
    counts.update(checkpoints=len(found.rows), threads=len(found.threads))
    return found.check()


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
        self.edges: dict[int, list[Edge]] = defaultdict(list)
        self.session = session

    def check(self) -> list[Problem]:
        """Check everything; return what is wrong."""
        for check in (self._counts, self._links, self._rows_lead_on):
            self._guard("session", str(self.session), check)
        for lineage in self.lineages.values():
            thread = self._thread_of(lineage)
            self._guard("lineage", str(lineage.pk), partial(self._logs, lineage), thread)
        for row in self.rows.values():
            thread = self._thread_of(self.lineages[row.lineage])
            self._guard("checkpoint", name_of(row), partial(self._checkpoint, row), thread)
        return self.problems

    def _thread_of(self, lineage: Lineage) -> str:
        return str(self.threads[lineage.thread].name)

    def _report(self, kind: str, where: str, what: str, *threads: str) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what, threads=threads))

    def _report_checkpoint(self, kind: str, row: CheckpointRow, what: str) -> None:
        self._report(kind, name_of(row), what, self._thread_of(self.lineages[row.lineage]))

    def _guard(self, kind: str, where: str, check: Callable[[], None], *threads: str) -> None:
        if (what := what_breaks(check)) is not None:
            self._report(kind, where, what, *threads)

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
        """Check that heads, origins and what supersedes a thread lead somewhere."""
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

    def _rows_lead_on(self) -> None:
        """Check that lineages, tags and edges lead somewhere."""
        for lineage in self.lineages.values():
            if lineage.parent is not None and lineage.parent not in self.lineages:
                what = "its parent lineage is missing"
                self._report("lineage", str(lineage.pk), what, self._thread_of(lineage))
        for tag in self.tx.find(TagRow, thread=In(list(self.threads))):
            if tag.checkpoint not in self.rows:
                thread = self.threads[tag.thread].name
                what = "the tagged checkpoint is missing"
                self._report("checkpoint", f"tag {tag.name}", what, thread)
        for edge in self.tx.find(Edge, child=In(list(self.rows))):
            self.edges[edge.child].append(edge)
            if edge.parent not in self.rows:
                thread = self._thread_of(self.lineages[self.rows[edge.child].lineage])
                self._report("checkpoint", f"cid {edge.parent}", "a parent is missing", thread)

    def _logs(self, lineage: Lineage) -> None:
        """Walk a lineage's logs once and compare the chain at every checkpoint's length."""
        mine: list[tuple[CheckpointRow, dict[str, tuple[int, bytes, int]]]] = []
        for row in self.rows.values():
            # one that does not say how long its logs are is reported as a checkpoint
            if row.lineage == lineage.pk and isinstance(row.length, int):
                with suppress(CheckpointError):
                    mine.append((row, log_lengths(row)))
        for name in {name for _, lengths in mine for name in lengths}:
            ends: dict[int, list[tuple[CheckpointRow, bytes]]] = defaultdict(list)
            for row, lengths in mine:
                length, chain, _ = lengths.get(name, (0, codec.EMPTY_CHAIN, 0))
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
