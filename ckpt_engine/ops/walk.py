"""Walking a path: a checkpoint and its ancestors through every parent, newest first.

A lineage is a straight line of first parents, so it is read in pages by step; joins open the
lineages of their other parents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import CheckpointNotFound
from ..store import CheckpointRow, Edge, In, Lineage, ThreadRow, Upto
from .called import thread_called
from .source import Source

__all__ = ["ancestors", "at_most", "frontier", "own_rows", "session_lineages", "thread_tips"]

_PAGE = 64


class _Line:
    """One lineage being read downwards."""

    def __init__(self, source: Source, lineage: int, upto: int, page: int) -> None:
        self._source = source
        self._page = page
        self.lineage = source.lineage(lineage)
        self.upto = upto
        self._rows: list[CheckpointRow] = []
        self._ended = False

    def reach(self, upto: int) -> None:
        """Let the line go on from a higher step than it has come to."""
        if upto > (self._rows[-1].step if self._rows else self.upto):
            self.upto, self._rows, self._ended = upto, [], False

    def peek(self) -> CheckpointRow | None:
        """Return the newest row that is left."""
        if not self._rows and not self._ended:
            rows = self._source.tx.find(
                CheckpointRow,
                lineage=self.lineage.pk,
                step=Upto(self.upto),
                order="-step",
                limit=self._page,
            )
            self._ended = len(rows) < self._page
            self._rows = rows[::-1]
            if rows:
                self.upto = rows[-1].step - 1
        return self._rows[-1] if self._rows else None

    def take(self) -> CheckpointRow:
        """Return the newest row and go below it."""
        return self._rows.pop()


class _Walk:
    """The lines that are open, and what was yielded."""

    def __init__(self, source: Source, page: int) -> None:
        self._source = source
        self._page = page
        self._lines: dict[int, _Line] = {}
        self._seen: set[int] = set()
        self._step: int | None = None

    def open(self, lineage: int, upto: int) -> None:
        """Read a lineage from a step downwards, too."""
        if self._step is not None:
            upto = min(upto, self._step)  # what is above was yielded
        if lineage in self._lines:
            self._lines[lineage].reach(upto)
        else:
            self._lines[lineage] = _Line(self._source, lineage, upto, self._page)

    def next(self) -> CheckpointRow | None:
        """Return the newest row that was not yielded, or ``None`` at the end."""
        while (line := self._newest()) is not None:
            row = line.take()
            if row.cid not in self._seen:
                self._seen.add(row.cid)
                self._step = row.step
                return row
        return None

    def _newest(self) -> _Line | None:
        best: tuple[tuple[int, bytes], _Line] | None = None
        pending = list(self._lines)
        while pending:
            pk = pending.pop()
            line = self._lines[pk]
            row = line.peek()
            if row is None:
                del self._lines[pk]
                parent, step = line.lineage.parent, line.lineage.fork_step
                if parent is not None and step is not None:
                    self.open(parent, step)
                    if parent not in pending:
                        pending.append(parent)
            elif best is None or (row.step, row.id) > best[0]:
                best = (row.step, row.id), line
        return best[1] if best else None


def ancestors(
    source: Source, starts: Iterable[CheckpointRow], *, page: int = _PAGE
) -> Iterator[CheckpointRow]:
    """Yield the starts and all their ancestors, newest step first, each once.

    Args:
        source: With a transaction.
        starts: Where to begin.
        page: Rows to read at a time.
    """
    walk = _Walk(source, page)
    for row in starts:
        walk.open(row.lineage, row.step)
    while (found := walk.next()) is not None:
        yield found
        if found.nparents > 1:
            cids = [edge.parent for edge in source.tx.find(Edge, child=found.cid)]
            for other in source.tx.find(CheckpointRow, cid=In(cids)):
                walk.open(other.lineage, other.step)


def own_rows(source: Source, thread: ThreadRow, upto: int) -> list[CheckpointRow]:
    """Return a thread's own checkpoints up to a step, without lines that a rewind left."""
    rows: list[CheckpointRow] = []
    for lineage in source.tx.find(Lineage, thread=thread.pk):
        if thread.turned is None or (lineage.pk > thread.closed and not lineage.late):
            rows += source.tx.find(CheckpointRow, lineage=lineage.pk, step=Upto(upto))
    return rows


def thread_tips(source: Source, thread: ThreadRow) -> list[CheckpointRow]:
    """Return where a thread's path ends: its newest checkpoints that nothing of it follows."""
    tips = []
    for lineage in source.tx.find(Lineage, thread=thread.pk):
        if thread.turned is None or (lineage.pk > thread.closed and not lineage.late):
            tips += source.tx.find(CheckpointRow, lineage=lineage.pk, order="-step", limit=1)
    heads = (thread.head, thread.turned, thread.origin)
    cids = [cid for cid in heads if cid is not None]
    known = {row.cid for row in tips}
    tips += [row for row in source.tx.find(CheckpointRow, cid=In(cids)) if row.cid not in known]
    return tips


def frontier(source: Source, thread: ThreadRow, step: int) -> list[CheckpointRow]:
    """Return what was done on the thread's path up to ``step`` and nothing of it follows.

    Raises:
        CheckpointNotFound: Nothing was done up to there.
    """
    tips = thread_tips(source, thread)
    starts = [at_most(source, tip, step) for tip in tips]
    for row in ancestors(source, tips):
        if row.step <= step:
            break
        if row.nparents > 1:
            starts += [at_most(source, parent, step) for parent in source.parents(row)]
    unique = {row.cid: row for row in starts if row is not None}
    if not unique:
        whose = thread_called(source, thread)
        raise CheckpointNotFound(f"{whose} has no checkpoint at or before step {step}")
    return _unfollowed(source, list(unique.values()))


def at_most(source: Source, row: CheckpointRow, step: int) -> CheckpointRow | None:
    """Return the newest checkpoint up to ``step`` on a checkpoint's line of first parents."""
    if row.step <= step:
        return row
    lineage: Lineage | None = source.lineage(row.lineage)
    upto: int | None = step
    while lineage is not None and upto is not None:
        found = source.tx.find(
            CheckpointRow, lineage=lineage.pk, step=Upto(upto), order="-step", limit=1
        )
        if found:
            return found[0]
        upto = None if lineage.fork_step is None else min(step, lineage.fork_step)
        lineage = source.lineage(lineage.parent) if lineage.parent is not None else None
    return None


def _unfollowed(source: Source, rows: list[CheckpointRow]) -> list[CheckpointRow]:
    """Return those of the rows that are no ancestor of another, in step order."""
    if len(rows) == 1:
        return rows
    lowest = min(row.step for row in rows)
    followed: set[int] = set()
    for start in rows:
        for row in ancestors(source, [start]):
            if row.step < lowest:
                break
            if row.cid != start.cid:
                followed.add(row.cid)
    return sorted((r for r in rows if r.cid not in followed), key=lambda r: (r.step, r.id))


def session_lineages(source: Source, session: int) -> dict[int, int]:
    """Return lineage -> thread of every lineage of a session."""
    threads = [row.pk for row in source.tx.find(ThreadRow, session=session)]
    return {row.pk: row.thread for row in source.tx.find(Lineage, thread=In(threads))}
