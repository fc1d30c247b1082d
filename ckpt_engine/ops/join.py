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


def join(source: Source, parents: Sequence[CheckpointRow]) -> Joined:
    """Return the content that a step with these parents starts from."""
    if len(parents) <= 1:
        return Joined(parents[0] if parents else None)
    cut, done, links = _since_parting(source, parents)
    behind = _behind(done, links)
    copied: dict[str, list[bytes]] = {}
    whole: dict[str, list[bytes]] = {}
    if not all(_adds_up(name, cut, done, links, behind) for name in _names(cut, done)):
        prefix: CheckpointRow | None = parents[0]
        known = cut, done, links, behind
        whole = {name: _replayed(source, name, *known) for name in _names(cut, done)}
    else:
        prefix, rest = _leading(parents[0], cut, done, links)
        copied = _copied(source, parents, prefix, rest)
    state, disputed = _joined_state(source, cut, done, links, behind, parents)
    return Joined(prefix, copied, whole, state, disputed)


def _names(cut: CheckpointRow | None, done: list[CheckpointRow]) -> set[str]:
    return {name for row in (*([cut] if cut else ()), *done) for name in log_lengths(row)}


def _adds_up(
    name: str,
    cut: CheckpointRow | None,
    done: list[CheckpointRow],
    links: dict[int, list[int]],
    behind: dict[int, int],
) -> bool:
    """Return whether each step's log is what those before it appended, and what it did itself.

    Not so where one replaced it, or where a step in between was collected.
    """
    begin = log_lengths(cut).get(name, (0, b"", 0))[0]
    lengths = {cut.cid: begin} if cut else {}
    owns: list[int] = []
    for row in done:
        facts = log_lengths(row).get(name)
        own = facts[2] if facts else 0
        owns.append(own)
        above = links[row.cid]
        if len(above) == 1:
            before = lengths[above[0]]
        else:
            mine = behind[row.cid]
            before = begin + sum(o for n, o in enumerate(owns[:-1]) if mine >> n & 1)
        lengths[row.cid] = before + own
        if own < 0 or (facts and facts[0] != before + own):
            return False
    return True


def _behind(done: list[CheckpointRow], links: dict[int, list[int]]) -> dict[int, int]:
    """Return the steps that each step follows, itself too, as bits of their places."""
    behind: dict[int, int] = {}
    for number, row in enumerate(done):
        behind[row.cid] = reduce(or_, (behind.get(p, 0) for p in links[row.cid]), 1 << number)
    return behind


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


def _replayed(
    source: Source,
    name: str,
    cut: CheckpointRow | None,
    done: list[CheckpointRow],
    links: dict[int, list[int]],
    behind: dict[int, int],
) -> list[bytes]:
    """Return all items of a log, step by step: of two that replaced it, the later one counts."""
    logs = {row.cid: _log(source, row, name) for row in done if name in log_lengths(row)}
    base = _log(source, cut, name) if cut else _common(list(logs.values()))
    if cut:
        logs[cut.cid] = base
    # (item, the step that appended it; 0: all have seen it, or what another has replaces it)
    items = [(item, 0) for item in base]
    for number, row in enumerate(done):
        if row.cid not in logs:
            continue
        log, above = logs[row.cid], links[row.cid]
        before = [logs.get(parent, base) for parent in above] or [base]
        start = len(log) - log_lengths(row)[name][2]
        if len(before) == 1 and start != len(before[0]):
            start = len(before[0])  # a step in between was collected, or it replaced the log
        if start <= len(log) and (len(before) > 1 or log[:start] == before[0]):
            items += [(item, 1 << number) for item in log[start:]]
        else:
            unseen = [(item, by) for item, by in items if by & ~behind[row.cid]]
            items = [(item, 0) for item in log] + unseen
    return [item for item, _ in items]


def _common(logs: list[list[bytes]]) -> list[bytes]:
    """Return what all begin with."""
    return [same[0] for same in takewhile(_equal, zip(*logs, strict=False))]


def _equal(items: Sequence[bytes]) -> bool:
    return items.count(items[0]) == len(items)


def _log(source: Source, row: CheckpointRow, name: str) -> list[bytes]:
    length = log_lengths(row).get(name, (0, b"", 0))[0]
    return source.items(row.lineage, name, 0, length) if length else []


def _joined_state(
    source: Source,
    cut: CheckpointRow | None,
    done: list[CheckpointRow],
    links: dict[int, list[int]],
    behind: dict[int, int],
    parents: Sequence[CheckpointRow],
) -> tuple[dict[str, bytes] | None, tuple[str, ...]]:
    """Return the state with every change since the parting, in step order, and disputed keys.

    A key is disputed where the step that changed it last did not follow all others that did; what
    is appended to a log is at odds neither with what others append nor with its replacement.
    """
    same = all(row.state == parents[0].state for row in parents)
    if same and not any(len(log_lengths(row)) > 1 for row in parents):
        return None, ()
    base = _values(source, cut)
    state = dict(base)
    known = {cut.cid: base} if cut else {}
    # steps that changed a key, as bits: each, those that did more than append to a log, and those
    # that made it no log
    changes: tuple[dict[str, int], ...] = ({}, {}, {})
    disputed: dict[str, bool] = {}
    for number, row in enumerate(done):
        values = known[row.cid] = _values(source, row)
        before = [known.get(p, base) for p in links[row.cid]] or [base]
        logs = log_lengths(row)
        for key in _apply(state, values, before):
            log = values.get(key, b"").startswith(codec.LOG_PLACE)
            kind = 0 if not log else 1 if logs[key][2] < 0 else 2
            # appending settles nothing
            others = changes[min(kind, 1) if disputed.get(key) else kind]
            disputed[key] = bool(others.get(key, 0) & ~behind[row.cid])
            for some in changes[: 3 - kind]:
                some[key] = some.get(key, 0) | 1 << number
    places = {key for key, value in state.items() if value.startswith(codec.LOG_PLACE)}
    state.update(dict.fromkeys(places, codec.LOG_PLACE))
    return state, tuple(sorted(key for key, both in disputed.items() if both))


def _values(source: Source, row: CheckpointRow | None) -> dict[str, bytes]:
    """Return a checkpoint's packed state, with the chain of each log instead of its place."""
    values = source.state(row.state if row else None).values
    logs = log_lengths(row)
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
