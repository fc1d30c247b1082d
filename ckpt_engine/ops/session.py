"""A session's graph, read column by column: what plans of collections and erasures stand on."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar

from ..store import CheckpointRow, Cond, Edge, In, Lineage, Span, ThreadRow, Tx

__all__ = ["Session", "among", "exactly", "load", "picked", "times_of"]

V = TypeVar("V")

_COLUMNS = ("cid", "id", "step", "own", "state", "logs")
_ID, _STEP = _COLUMNS.index("id"), _COLUMNS.index("step")
_PARTS = 16  # ranges that are sooner gone through, one by one, than a list
_SPARSE = 2  # so many times as long as there are keys, a range is still read faster than a list


@dataclass(slots=True)
class Session:
    """A session's threads and checkpoints; a checkpoint goes by its position, oldest first.

    Attributes:
        threads: Key -> thread.
        lineages: Key -> lineage.
        cids: The checkpoints' keys, and so on: columns of their rows.
        logs: Position -> lengths of its other logs, packed, of those that have any.
        at: Key -> position.
        firsts: The position of each one's first parent, or where that was collected of its nearest
            ancestor on the line.
        further: Position -> the positions of its other parents, of those that have any.
        joined: Positions of those that have edges, though perhaps to nothing any more.
    """

    threads: dict[int, ThreadRow]
    lineages: dict[int, Lineage]
    cids: Sequence[int]
    ids: Sequence[bytes]
    lineage: Sequence[int]
    steps: Sequence[int]
    own: Sequence[int]
    states: Sequence[int | None]
    logs: dict[int, bytes]
    at: dict[int, int]
    firsts: list[int | None]
    further: dict[int, tuple[int, ...]]
    joined: frozenset[int]

    def __len__(self) -> int:
        return len(self.cids)

    def parents(self, n: int) -> tuple[int, ...]:
        """Return the positions of a checkpoint's parents that still exist."""
        first = self.firsts[n]
        return (*(() if first is None else (first,)), *self.further.get(n, ()))

    def thread_of(self, n: int) -> ThreadRow:
        """Return a checkpoint's thread."""
        return self.threads[self.lineages[self.lineage[n]].thread]

    def positions(self, cids: Iterable[int | None]) -> list[int]:
        """Return the positions of those checkpoints that are of this session."""
        return [self.at[cid] for cid in cids if cid is not None and cid in self.at]


def load(tx: Tx, session: int) -> Session:
    """Return a session, by the key of its root thread."""
    threads = {row.pk: row for row in tx.find(ThreadRow, session=session)}
    lineages = {row.pk: row for row in tx.find(Lineage, thread=In(list(threads)))}
    cids, ids, steps, own, states, logs, lineage = _columns(tx, list(lineages))
    at = dict(zip(cids, range(len(cids)), strict=True))
    edges = _edges(tx, cids, at)
    return Session(
        threads,
        lineages,
        *(cids, ids, lineage, steps, own, states),
        _sparse(logs),
        at,
        firsts=_firsts(lineages, lineage, steps),
        further={n: tuple(parents) for n, parents in edges.items() if parents},
        joined=frozenset(edges),
    )


def _columns(tx: Tx, lineages: list[int]) -> list[list[Any]]:
    """Return the columns with the oldest first, of equally old ones the one of the lower step.

    On a lineage everything comes after what it stands on: of one alone, no times are read.
    """
    mine = In(lineages)
    if len(lineages) == 1:  # as mostly
        found = tx.columns(CheckpointRow, *_COLUMNS, lineage=mine)
        keys = found[_STEP]
        found.append(lineages * len(keys))
    else:
        *found, times = tx.columns(CheckpointRow, *_COLUMNS, "lineage", "at", lineage=mine)
        by_step = sorted(range(len(times)), key=found[_STEP].__getitem__)
        risen = _risen(picked(found[-1], by_step), picked(times, by_step))
        at = dict(zip(by_step, risen, strict=True))
        keys = [(at[n], found[_STEP][n], found[_ID][n]) for n in range(len(times))]
    if keys == sorted(keys):
        return found
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [picked(column, order) for column in found]


def _risen(lineage: Iterable[int], times: Iterable[int]) -> list[int]:
    """Return the times, each at least those before it on the same lineage.

    Where a clock was put back, what came afterwards counts as no older than what was there.
    """
    newest: dict[int, int] = {}
    risen: list[int] = []
    for pk, time in zip(lineage, times, strict=True):
        newest[pk] = max(time, newest.get(pk, time))
        risen.append(newest[pk])
    return risen


def times_of(tx: Tx, session: Session) -> list[int]:
    """Return when the checkpoints were committed, in milliseconds since 1970, by position."""
    columns = tx.columns(CheckpointRow, "cid", "at", lineage=In(list(session.lineages)))
    times = dict(zip(*columns, strict=True))
    return _risen(session.lineage, picked(times, session.cids))


def _firsts(
    lineages: dict[int, Lineage], lineage: Sequence[int], steps: Sequence[int]
) -> list[int | None]:
    """Return the positions of the first parents: a lineage is a straight line of them."""
    order: Sequence[int] = range(len(steps))
    if steps != sorted(steps):
        order = sorted(order, key=steps.__getitem__)
    elif len(lineages) == 1 and steps:
        return [None, *order[:-1]]
    lines: dict[int, list[int]] = {pk: [] for pk in lineages}
    for n in order:
        lines[lineage[n]].append(n)
    firsts: list[int | None] = [None] * len(steps)
    for pk, line in lines.items():
        for first, n in pairwise(line):
            firsts[n] = first
        if line:
            firsts[line[0]] = _fork(lineages, lines, steps, pk)
    return firsts


def _fork(
    lineages: dict[int, Lineage], lines: dict[int, list[int]], steps: Sequence[int], pk: int
) -> int | None:
    """Return the nearest checkpoint before a lineage that still exists."""
    while True:
        lineage = lineages.get(pk)
        if lineage is None or lineage.parent is None or lineage.fork_step is None:
            return None
        pk = lineage.parent
        line = lines.get(pk, [])
        place = bisect_right(line, lineage.fork_step, key=steps.__getitem__)
        if place:
            return line[place - 1]


def _sparse(column: list[Any]) -> dict[int, Any]:
    if column.count(None) == len(column):  # as mostly
        return {}
    return {n: value for n, value in enumerate(column) if value is not None}


def _edges(tx: Tx, cids: Sequence[int], at: dict[int, int]) -> dict[int, list[int]]:
    """Return the positions of those with edges -> of the further parents that still exist."""
    edges: dict[int, list[int]] = defaultdict(list)
    rows = zip(*tx.columns(Edge, "child", "ord", "parent", child=among(cids)), strict=True)
    for child, _, parent in sorted(rows):
        if child in at:
            edges[at[child]] += [at[parent]] if parent in at else []
    return edges


def picked(column: Sequence[V] | Mapping[int, V], positions: Iterable[int]) -> list[V]:
    """Return the values at some positions, or by some keys."""
    return list(map(column.__getitem__, positions))


def among(keys: Sequence[int]) -> Cond:
    """Return the condition to read rows by these keys, and maybe a few others with them."""
    low, high = min(keys, default=0), max(keys, default=0)
    if high - low < _SPARSE * len(keys):
        return Span(low - 1, high)
    return In(keys)


def exactly(keys: Sequence[int]) -> list[Cond]:
    """Return conditions of which each row of these keys, all different, meets one, and no other."""
    gaps = (n for n, (one, other) in enumerate(pairwise(keys), 1) if other - one != 1)
    parts = [0, *islice(gaps, _PARTS), len(keys)]
    if len(parts) > _PARTS + 1:
        return [In(keys)]
    return [Span(keys[start] - 1, keys[stop - 1]) for start, stop in pairwise(parts) if keys]
