"""The content that a step starts from: its parent's, or the join of several parents'.

A join is the union of the ancestors' additions in step order, and state by key with the later step
winning. Where parallel lines set out, everything older is common to all. A step that replaces a log
replaces what it has seen of it; what lines beside it add comes after that.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import takewhile
from operator import or_

from .. import codec
from ..store import CheckpointRow
from .prepare import log_lengths
from .source import MESSAGES, Source

__all__ = ["Joined", "join"]


@dataclass(slots=True)
class Joined:
    """What a step starts from.

    Attributes:
        prefix: The checkpoint whose logs the content begins with.
        copied: Log -> packed items that come after those.
        whole: Log -> all of its packed items, where a line replaced a log, or steps of one were
            collected; then nothing is in ``copied``.
        state: The packed state by key; ``None`` where it is exactly the first parent's.
        disputed: State keys that more than one line had changed.
    """

    prefix: CheckpointRow | None
    copied: dict[str, list[bytes]] = field(default_factory=dict)
    whole: dict[str, list[bytes]] = field(default_factory=dict)
    state: dict[str, bytes] | None = None
    disputed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Parting:
    """Lines that set out from one checkpoint.

    Attributes:
        cut: Where they set out; ``None`` where they have nothing in common.
        done: The steps since then, by step.
        links: Step -> its parents.
        behind: Step -> the steps it follows, itself too, as bits of their places in ``done``.
        logs: Checkpoint -> log -> (length, chain, own).
    """

    cut: CheckpointRow | None
    done: list[CheckpointRow]
    links: dict[int, list[int]]
    behind: dict[int, int]
    logs: dict[int, dict[str, tuple[int, bytes, int]]]

    def names(self) -> set[str]:
        """Return the logs that any of them has."""
        return {name for logs in self.logs.values() for name in logs}

    def length(self, row: CheckpointRow | None, name: str) -> int:
        """Return a log's length at one of the checkpoints; 0 where it has none."""
        return self.logs[row.cid].get(name, _NO_LOG)[0] if row else 0

    def own(self, row: CheckpointRow, name: str) -> int:
        """Return how many items a step appended to a log; below 0 where it replaced it."""
        return self.logs[row.cid].get(name, _NO_LOG)[2]


_NO_LOG = (0, b"", 0)


def join(source: Source, parents: Sequence[CheckpointRow]) -> Joined:
    """Return the content that a step with these parents starts from."""
    if len(parents) <= 1:
        return Joined(parents[0] if parents else None)
    parting = _parting(source, parents)
    copied: dict[str, list[bytes]] = {}
    whole: dict[str, list[bytes]] = {}
    names = parting.names()
    if all(_adds_up(parting, name) for name in names):
        prefix, rest = _leading(parting, parents[0])
        copied = _copied(source, parting, parents, rest)
    else:
        prefix = parents[0]
        whole = {name: _replayed(source, parting, name) for name in names}
    state, disputed = _joined_state(source, parting, parents)
    return Joined(prefix, copied, whole, state, disputed)


def _parting(source: Source, parents: Sequence[CheckpointRow]) -> _Parting:
    """Return from where all lines set out, and what came after it."""
    rows = {row.cid: row for row in parents}
    heap = [(-row.step, row.id, row.cid) for row in rows.values()]
    heapq.heapify(heap)
    done: list[CheckpointRow] = []
    links: dict[int, list[int]] = {}
    while len(heap) > 1:
        row = rows[heapq.heappop(heap)[2]]
        done.append(row)
        links[row.cid] = []
        for parent in source.parents(row):
            links[row.cid].append(parent.cid)
            if parent.cid not in rows:
                rows[parent.cid] = parent
                heapq.heappush(heap, (-parent.step, parent.id, parent.cid))
    cut = rows[heap[0][2]] if heap else None
    done.reverse()
    behind: dict[int, int] = {}
    for number, row in enumerate(done):
        behind[row.cid] = reduce(or_, (behind.get(p, 0) for p in links[row.cid]), 1 << number)
    logs = {row.cid: log_lengths(row) for row in (*([cut] if cut else ()), *done)}
    return _Parting(cut, done, links, behind, logs)


def _adds_up(parting: _Parting, name: str) -> bool:
    """Return whether each step's log is what those before it appended, and what it did itself.

    Not so where one replaced it, or where a step in between was collected.
    """
    begin = parting.length(parting.cut, name)
    lengths = {parting.cut.cid: begin} if parting.cut else {}
    owns: list[int] = []
    for row in parting.done:
        own = parting.own(row, name)
        above = parting.links[row.cid]
        if len(above) == 1:
            before = lengths[above[0]]
        else:
            mine = parting.behind[row.cid]
            before = begin + sum(o for n, o in enumerate(owns) if mine >> n & 1)
        owns.append(own)
        lengths[row.cid] = before + own
        has = name in parting.logs[row.cid]
        if own < 0 or (has and parting.length(row, name) != before + own):
            return False
    return True


def _leading(
    parting: _Parting, first: CheckpointRow
) -> tuple[CheckpointRow | None, list[CheckpointRow]]:
    """Return the newest checkpoint of the first line that the union begins with, and the rest."""
    done, links = parting.done, parting.links
    mine = {first.cid}
    for row in reversed(done):
        if row.cid in mine:
            mine.update(links[row.cid])
    run = 0
    while run < len(done) and done[run].cid in mine:
        run += 1
    if run and done[run - 1].cid == first.cid:
        return first, done[run:]
    prefix, used = parting.cut, 0
    while used < run and links[done[used].cid] == ([prefix.cid] if prefix else []):
        prefix = done[used]
        used += 1
    return prefix, done[used:]


def _copied(
    source: Source,
    parting: _Parting,
    parents: Sequence[CheckpointRow],
    rest: list[CheckpointRow],
) -> dict[str, list[bytes]]:
    """Return what comes after the prefix: the additions of the rest, in step order."""
    names = {name for row in (*rest, *parents) for name in parting.logs[row.cid]} | {MESSAGES}
    copied: dict[str, list[bytes]] = {}
    for name in names:
        items: list[bytes] = []
        for row in rest:
            length, own = parting.length(row, name), parting.own(row, name)
            items += source.items(row.lineage, name, length - own, length) if own > 0 else []
        if items or name != MESSAGES:  # an empty log is one, too
            copied[name] = items
    return copied


def _replayed(source: Source, parting: _Parting, name: str) -> list[bytes]:
    """Return all items of a log, step by step: of two that replaced it, the later one counts."""

    def log_of(row: CheckpointRow) -> list[bytes]:
        length = parting.length(row, name)
        return source.items(row.lineage, name, 0, length) if length else []

    logs = {row.cid: log_of(row) for row in parting.done if name in parting.logs[row.cid]}
    base = log_of(parting.cut) if parting.cut else _common(list(logs.values()))
    if parting.cut:
        logs[parting.cut.cid] = base
    # (item, the step that appended it; 0: all have seen it, or what another has replaces it)
    items = [(item, 0) for item in base]
    for number, row in enumerate(parting.done):
        if row.cid not in logs:
            continue
        log, above = logs[row.cid], parting.links[row.cid]
        before = [logs.get(parent, base) for parent in above] or [base]
        start = len(log) - parting.own(row, name)
        if len(before) == 1 and start != len(before[0]):
            start = len(before[0])  # a step in between was collected, or it replaced the log
        if start <= len(log) and (len(before) > 1 or log[:start] == before[0]):
            items += [(item, 1 << number) for item in log[start:]]
        else:
            unseen = [(item, by) for item, by in items if by & ~parting.behind[row.cid]]
            items = [(item, 0) for item in log] + unseen
    return [item for item, _ in items]


def _common(logs: list[list[bytes]]) -> list[bytes]:
    """Return what all begin with."""
    return [same[0] for same in takewhile(_equal, zip(*logs, strict=False))]


def _equal(items: Sequence[bytes]) -> bool:
    return items.count(items[0]) == len(items)


def _joined_state(
    source: Source, parting: _Parting, parents: Sequence[CheckpointRow]
) -> tuple[dict[str, bytes] | None, tuple[str, ...]]:
    """Return the state with every change since the parting, in step order, and disputed keys.

    A key is disputed where the step that changed it last did not follow all others that did; what
    is appended to a log is at odds neither with what others append nor with its replacement.
    """
    same = all(row.state == parents[0].state for row in parents)
    if same and not any(len(parting.logs[row.cid]) > 1 for row in parents):
        return None, ()
    base = _values(source, parting, parting.cut)
    state = dict(base)
    known = {parting.cut.cid: base} if parting.cut else {}
    # steps that changed a key, as bits: each, those that did more than append to a log, and those
    # that made it no log
    changes: tuple[dict[str, int], ...] = ({}, {}, {})
    disputed: dict[str, bool] = {}
    for number, row in enumerate(parting.done):
        values = known[row.cid] = _values(source, parting, row)
        before = [known.get(p, base) for p in parting.links[row.cid]] or [base]
        for key in _apply(state, values, before):
            log = values.get(key, b"").startswith(codec.LOG_PLACE)
            kind = 0 if not log else 1 if parting.own(row, key) < 0 else 2
            # appending settles nothing
            others = changes[min(kind, 1) if disputed.get(key) else kind]
            disputed[key] = bool(others.get(key, 0) & ~parting.behind[row.cid])
            for some in changes[: 3 - kind]:
                some[key] = some.get(key, 0) | 1 << number
    places = {key for key, value in state.items() if value.startswith(codec.LOG_PLACE)}
    state.update(dict.fromkeys(places, codec.LOG_PLACE))
    return state, tuple(sorted(key for key, both in disputed.items() if both))


def _values(source: Source, parting: _Parting, row: CheckpointRow | None) -> dict[str, bytes]:
    """Return a checkpoint's packed state, with the chain of each log instead of its place."""
    values = source.state(row.state if row else None).values
    logs = parting.logs[row.cid] if row else {}
    if len(logs) < 2:
        return values
    return {
        key: codec.LOG_PLACE + logs[key][1] if value == codec.LOG_PLACE else value
        for key, value in values.items()
    }


def _apply(
    state: dict[str, bytes], values: dict[str, bytes], before: list[dict[str, bytes]]
) -> list[str]:
    """Do to ``state`` what a step did to the states it came from; return the keys it changed."""
    changed = []
    for key in dict.fromkeys((*values, *(k for known in before for k in known))):
        if any(values.get(key) == known.get(key) for known in before):
            continue
        changed.append(key)
        if key in values:
            state[key] = values[key]
        else:
            state.pop(key, None)
    return changed
