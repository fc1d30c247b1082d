"""The content that a step starts from: its parent's, or the join of several parents'.

A join is the union of the ancestors' additions in step order, and state by key with the later step
winning. Where parallel lines set out, everything older is common to all.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
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
        state: The packed state by key; ``None`` where it is exactly the first parent's.
        disputed: State keys that more than one line had changed.
    """

    prefix: CheckpointRow | None
    copied: dict[str, list[bytes]] = field(default_factory=dict)
    state: dict[str, bytes] | None = None
    disputed: tuple[str, ...] = ()


def join(source: Source, parents: Sequence[CheckpointRow]) -> Joined:
    """Return the content that a step with these parents starts from."""
    if len(parents) <= 1:
        return Joined(parents[0] if parents else None)
    cut, done, links = _since_parting(source, parents)
    if any(own < 0 for row in done for _, _, own in log_lengths(row).values()):
        prefix: CheckpointRow | None = parents[0]
        copied = _after_rewriting(source, parents)
    else:
        prefix, rest = _leading(parents[0], cut, done, links)
        copied = _copied(source, parents, prefix, rest)
    state, disputed = _joined_state(source, cut, done, links, parents)
    return Joined(prefix, copied, state, disputed)


def _since_parting(
    source: Source, parents: Sequence[CheckpointRow]
) -> tuple[CheckpointRow | None, list[CheckpointRow], dict[int, list[int]]]:
    """Return the checkpoint from which all lines set out, and what came after it by step."""
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
    return cut, done[::-1], links


def _leading(
    first: CheckpointRow,
    cut: CheckpointRow | None,
    done: list[CheckpointRow],
    links: dict[int, list[int]],
) -> tuple[CheckpointRow | None, list[CheckpointRow]]:
    """Return the newest checkpoint of the first line that the union begins with, and the rest."""
    mine = {first.cid}
    for row in reversed(done):
        if row.cid in mine:
            mine.update(links[row.cid])
    run = 0
    while run < len(done) and done[run].cid in mine:
        run += 1
    if run and done[run - 1].cid == first.cid:
        return first, done[run:]
    prefix, used = cut, 0
    while used < run and links[done[used].cid] == ([prefix.cid] if prefix else []):
        prefix = done[used]
        used += 1
    return prefix, done[used:]


def _copied(
    source: Source,
    parents: Sequence[CheckpointRow],
    prefix: CheckpointRow | None,
    rest: list[CheckpointRow],
) -> dict[str, list[bytes]]:
    """Return what comes after the prefix: the additions of the rest, in step order."""
    names = {name for row in (*rest, *parents) for name in log_lengths(row)} | {MESSAGES}
    copied: dict[str, list[bytes]] = {}
    for name in names:
        items: list[bytes] = []
        for row in rest:
            length, _, own = log_lengths(row).get(name, (0, b"", 0))
            items += source.items(row.lineage, name, length - own, length) if own > 0 else []
        if items or name != MESSAGES:  # an empty log is one, too
            copied[name] = items
    return copied


def _after_rewriting(source: Source, parents: Sequence[CheckpointRow]) -> dict[str, list[bytes]]:
    """Return what the further parents have beyond what they share with the first.

    Where a parallel line has replaced a log there are no additions to speak of.
    """
    first = parents[0]
    copied: dict[str, list[bytes]] = {}
    for name in {name for row in parents for name in log_lengths(row)}:
        mine = _log(source, first, name)
        for other in parents[1:]:
            theirs = _log(source, other, name)
            pairs = enumerate(zip(mine, theirs, strict=False))
            common = min(len(mine), len(theirs))
            common = next((i for i, (x, y) in pairs if x != y), common)
            copied[name] = copied.get(name, []) + theirs[common:]
    return {name: items for name, items in copied.items() if items or name != MESSAGES}


def _log(source: Source, row: CheckpointRow, name: str) -> list[bytes]:
    length = log_lengths(row).get(name, (0, b"", 0))[0]
    return source.items(row.lineage, name, 0, length) if length else []


def _joined_state(
    source: Source,
    cut: CheckpointRow | None,
    done: list[CheckpointRow],
    links: dict[int, list[int]],
    parents: Sequence[CheckpointRow],
) -> tuple[dict[str, bytes] | None, tuple[str, ...]]:
    """Return the state with every change since the parting, in step order, and disputed keys.

    A key is disputed where the step that changed it last did not follow all others that did; lists
    that are logs are joined, and not at odds with each other.
    """
    if all(row.state == parents[0].state for row in parents):
        return None, ()
    base = source.state(cut.state if cut else None).values
    state = dict(base)
    known = {cut.cid: base} if cut else {}
    behind: dict[int, int] = {}  # the steps that a step follows, itself too, as bits
    changed: dict[str, int] = {}
    settled: dict[str, int] = {}  # the same without those that made a log of it
    disputed: dict[str, bool] = {}
    for number, row in enumerate(done):
        values = known[row.cid] = source.state(row.state).values
        above = links[row.cid]
        before = [known.get(p, base) for p in above] or [base]
        behind[row.cid] = reduce(or_, (behind.get(p, 0) for p in above), 1 << number)
        for key in _apply(state, values, before):
            log = values.get(key) == codec.LOG_PLACE
            others = settled if log else changed
            disputed[key] = bool(others.get(key, 0) & ~behind[row.cid])
            changed[key] = changed.get(key, 0) | 1 << number
            settled[key] = settled.get(key, 0) | (not log) << number
    return state, tuple(sorted(key for key, both in disputed.items() if both))


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
