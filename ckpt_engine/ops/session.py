"""A session's graph, read column by column: what plans of collections and erasures stand on."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..store import CheckpointRow, Cond, Edge, In, Lineage, Span, ThreadRow, Tx

__all__ = ["Session", "among", "exactly", "load"]

_COLUMNS = ("cid", "id", "step", "own", "state", "length", "logs", "at", "parent")
_SPARSE = 2  # so many times as long as there are keys, a range is still read faster than a list


@dataclass(slots=True)
class Session:
    """A session's threads and checkpoints; a checkpoint goes by its position, oldest first.

    Attributes:
        threads: Key -> thread.
        lineages: Key -> lineage.
        cids: The checkpoints' keys, and so on: columns of their rows.
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
    lengths: Sequence[int]
    logs: Sequence[bytes | None]
    times: Sequence[int]
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
    found = _by_age(_columns(tx, list(lineages)))
    cids, ids, steps, own, states, lengths, logs, times, parents, lineage = found
    at = dict(zip(cids, range(len(cids)), strict=True))
    firsts = list(map(at.get, parents))
    if firsts.count(None) != parents.count(None):
        before = _finder(lineages, lineage, steps)
        for n, (first, parent) in enumerate(zip(firsts, parents, strict=True)):
            if first is None and parent is not None:
                firsts[n] = before(lineage[n], steps[n] - 1)
    edges = _edges(tx, at)
    return Session(
        threads,
        lineages,
        *(cids, ids, lineage, steps, own, states, lengths, logs, times),
        at,
        firsts,
        further={n: tuple(parents) for n, parents in edges.items() if parents},
        joined=frozenset(edges),
    )


def _columns(tx: Tx, lineages: list[int]) -> list[list[Any]]:
    mine = In(lineages)
    if len(lineages) == 1:  # as mostly: there is nothing to read about it
        found = tx.columns(CheckpointRow, *_COLUMNS, lineage=mine)
        return [*found, lineages * len(found[0])]
    return tx.columns(CheckpointRow, *_COLUMNS, "lineage", lineage=mine)


def _by_age(columns: list[list[Any]]) -> list[list[Any]]:
    """Return the columns with the oldest first, of equally old ones the one of the lower step."""
    ids, steps, times = columns[1], columns[2], columns[7]
    if times == sorted(times) and steps == sorted(set(steps)):
        return columns
    keys = list(zip(times, steps, ids, strict=True))
    order = sorted(range(len(ids)), key=keys.__getitem__)
    return [[column[n] for n in order] for column in columns]


def _finder(
    lineages: dict[int, Lineage], lineage: Sequence[int], steps: Sequence[int]
) -> Callable[[int, int], int | None]:
    lines: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for n, (pk, step) in enumerate(zip(lineage, steps, strict=True)):
        lines[pk].append((step, n))
    for line in lines.values():
        line.sort()
    return partial(_before, lineages, lines)


def _before(
    lineages: dict[int, Lineage], lines: dict[int, list[tuple[int, int]]], pk: int, upto: int
) -> int | None:
    """Return the newest checkpoint up to a step on a line of first parents."""
    while True:
        line = lines[pk]
        place = bisect_right(line, upto, key=lambda entry: entry[0])
        if place:
            return line[place - 1][1]
        lineage = lineages.get(pk)
        if lineage is None or lineage.parent is None or lineage.fork_step is None:
            return None
        pk, upto = lineage.parent, lineage.fork_step


def _edges(tx: Tx, at: dict[int, int]) -> dict[int, list[int]]:
    """Return the positions of those with edges -> of the further parents that still exist."""
    edges: dict[int, list[int]] = defaultdict(list)
    rows = zip(*tx.columns(Edge, "child", "ord", "parent", child=among(list(at))), strict=True)
    for child, _, parent in sorted(rows):
        if child in at:
            edges[at[child]] += [at[parent]] if parent in at else []
    return edges


def among(keys: Sequence[int]) -> Cond:
    """Return the condition to read rows by these keys, and maybe a few others with them."""
    low, high = min(keys, default=0), max(keys, default=0)
    if high - low < _SPARSE * len(keys):
        return Span(low - 1, high)
    return In(keys)


def exactly(keys: Sequence[int]) -> Cond:
    """Return the condition for rows of these keys, all different, and no others."""
    low, high = min(keys, default=0), max(keys, default=0)
    return Span(low - 1, high) if high - low == len(keys) - 1 else In(keys)
