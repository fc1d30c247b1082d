"""What goes with the checkpoints that a collection or an erasure drops: found in a read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

import msgspec

from ..graph import GraphNode, nearest_kept
from ..retention_plan import flipped
from ..store import Batch, CheckpointRow, In, StateRow, Tx
from .session import Session, among, picked
from .source import MESSAGES, inherited_pieces
from .trimming import Intervals, live_parts

__all__ = [
    "Live",
    "Sweep",
    "dead_batches",
    "dead_lineages",
    "live_intervals",
    "relinked",
    "sweep_for",
    "with_bases",
]

Live = dict[tuple[int, str], Intervals]
"""(lineage, log) -> the intervals of its own rows that someone reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What goes.

    Attributes:
        session: The key of the session's root thread.
        cids: Checkpoints.
        threads: The key of each one's thread.
        known: The lineages that there were when this was planned.
        ended: Those of which the newest checkpoint goes -> its step.
        relink: Checkpoint that stays -> its parents from the second one on.
        states: State rows that nothing needs any more.
        named: The state of each of ``cids``.
        bases: State -> base, of these.
        batches: Batches that nothing needs any more.
        trims: Batches of which over half is dead -> what is live in them.
        lineages: Lineages that nothing needs any more.
        items_kept: Messages that stay without the checkpoint that added them.
    """

    session: int
    cids: Sequence[int]
    threads: Sequence[int]
    known: frozenset[int]
    ended: dict[int, int]
    relink: dict[int, list[int]]
    states: list[int]
    named: Sequence[int | None]
    bases: dict[int, int | None]
    batches: list[int]
    trims: dict[int, Intervals]
    lineages: list[int]
    items_kept: int

    def states_by_part(self, size: int) -> list[list[int]]:
        """Return the states that go with each part of so many of ``cids``.

        With the last that needs it: one that names it, or a state that stands on it.
        """
        if len(self.cids) <= size:
            return [self.states]
        parts: list[list[int]] = [[] for _ in range(0, len(self.cids), size)]
        left = set(self.states)
        for n in range(len(self.named) - 1, -1, -1):
            pk = self.named[n]
            while pk in left:
                left.remove(pk)
                parts[n // size].append(pk)
                pk = self.bases[pk]
        return [sorted(part) for part in parts]


def sweep_for(tx: Tx, root: int, session: Session, dropped: Sequence[int]) -> Sweep:
    """Return everything that goes with the dropped checkpoints.

    Args:
        tx: The transaction.
        root: The key of the session's root thread.
        session: The session.
        dropped: Positions.
    """
    goes = bytearray(len(session))
    for n in dropped:
        goes[n] = 1
    stays = flipped(goes)
    kept = list(compress(range(len(session)), stays))
    live = live_intervals(tx, session, kept)
    batches, trims, items = dead_batches(tx, session, live, share=0.5)
    cids = list(compress(session.cids, goes))
    named = list(compress(session.states, goes))
    bases: dict[int, int | None] = {}
    owners = {pk: lineage.thread for pk, lineage in session.lineages.items()}
    return Sweep(
        session=root,
        cids=cids,
        threads=picked(owners, compress(session.lineage, goes)),
        known=frozenset(owners),
        ended=_ended(session, dropped),
        relink=relinked(session, set(dropped)),
        states=_dead_states(tx, compress(session.states, stays), named, bases),
        named=named,
        bases=bases,
        batches=batches,
        trims=trims,
        lineages=dead_lineages(session, kept, live),
        items_kept=max(0, items - _own_messages(tx, session, kept)),
    )


def _own_messages(tx: Tx, session: Session, checkpoints: Sequence[int]) -> int:
    """Return how many messages of a session's logs these checkpoints added themselves."""
    own = picked(session.own, checkpoints)
    if not session.further and min(own, default=0) >= 0:
        return sum(own)  # as mostly
    others = [n for n in checkpoints if session.own[n] < 0 or n in session.further]
    total = sum(own) - sum(picked(session.own, others))
    firsts = {n: first for n in others if (first := session.firsts[n]) is not None}
    cids = In(picked(session.cids, {*others, *firsts.values()}))
    length = dict(zip(*tx.columns(CheckpointRow, "cid", "length", cid=cids), strict=True))
    lines = set(session.lineage)
    for n in others:
        first, lineage = firsts.get(n), session.lineage[n]
        if first is not None and session.lineage[first] == lineage:
            before = length[session.cids[first]]
        else:
            pieces = inherited_pieces(session.lineages[lineage]).get(MESSAGES, [])
            before = sum(piece.stop - piece.start for piece in pieces if piece.lineage in lines)
        total += length[session.cids[n]] - before
    return total


def _ended(session: Session, dropped: Iterable[int]) -> dict[int, int]:
    if len(session.lineages) == 1:
        return {}  # its newest is a leaf
    newest = dict(sorted(zip(session.lineage, session.steps, strict=True)))
    ends = ((session.lineage[n], session.steps[n]) for n in dropped)
    return {pk: step for pk, step in ends if step == newest[pk]}


def relinked(session: Session, gone: set[int]) -> dict[int, list[int]]:
    """Return the further parents of checkpoints whose old ones are dropped, where that matters.

    Args:
        session: The session.
        gone: Positions of what is dropped.

    Returns:
        Keys, of the checkpoints and of their parents.
    """
    found: dict[int, list[int]] = {}
    if not session.joined:
        return found  # the nearest one on a line is found by position
    for child in range(len(session)):
        if child in gone:
            continue
        parents = session.parents(child)
        if gone.isdisjoint(parents):
            continue
        plain = len(parents) == 1 and child not in session.joined
        if plain and not _has_join(session, parents[0], gone):
            continue
        kept = nearest_kept(
            parents, gone, lambda n: GraphNode(session.steps[n], session.parents(n))
        )
        first = _on_line(session, session.firsts[child], gone)
        rest = [session.cids[n] for n in kept if n != first]
        if rest or child in session.joined:
            found[session.cids[child]] = rest
    return found


def _has_join(session: Session, start: int, gone: set[int]) -> bool:
    at = start
    while at in gone:
        if at in session.joined:  # also one whose first line is gone, with a single parent
            return True
        parents = session.parents(at)
        if not parents:
            return False
        at = parents[0]
    return False


def _on_line(session: Session, start: int | None, gone: set[int]) -> int | None:
    """Return the nearest that stays on a line of first parents."""
    at = start
    while at is not None and at in gone:
        at = session.firsts[at]
    return at


def live_intervals(tx: Tx, session: Session, kept: Sequence[int]) -> Live:
    """Return what the checkpoints at these positions read."""
    longest: dict[tuple[int, str], int] = defaultdict(int)
    # along a lineage the conversation only grows
    order = kept if len(session.lineages) == 1 else sorted(kept, key=session.steps.__getitem__)
    ends: dict[int, int] = {}
    for n in reversed(order):
        ends.setdefault(session.lineage[n], session.cids[n])
        if len(ends) == len(session.lineages):
            break
    lines = tx.columns(CheckpointRow, "lineage", "length", cid=In(list(ends.values())))
    longest.update(((pk, MESSAGES), length) for pk, length in zip(*lines, strict=True))
    for n in session.logs.keys() & set(order) if session.logs else ():
        for name, (length, _, _) in msgspec.msgpack.decode(session.logs[n]).items():
            log = session.lineage[n], name
            longest[log] = max(longest[log], length)
    live: Live = defaultdict(list)
    for (lineage, name), length in longest.items():
        at = 0
        for piece in inherited_pieces(session.lineages[lineage]).get(name, []):
            if at < length:
                stop = min(piece.stop, piece.start + length - at)
                live[piece.lineage, name].append((piece.start, stop))
            at += piece.stop - piece.start
        if at < length:
            live[lineage, name].append((at, length))
    return live


def dead_batches(
    tx: Tx, session: Session, live: Live, *, share: float
) -> tuple[list[int], dict[int, Intervals], int]:
    """Return what of the batches nobody reads.

    Args:
        tx: The transaction.
        session: Whose batches.
        live: What survivors read.
        share: Rows of which more than this is dead are worth cutting.

    Returns:
        Rows that go; rows to cut -> what is live in them; how many messages are left after both.
    """
    batches: list[int] = []
    trims: dict[int, Intervals] = {}
    items = 0
    found = tx.columns(
        Batch, "pk", "lineage", "log", "pos", "n", lineage=In(list(session.lineages))
    )
    for pk, lineage, log, pos, n in zip(*found, strict=True):
        parts = live_parts(pos, n, live.get((lineage, log), ()))
        left = sum(stop - start for start, stop in parts)
        if not parts:
            batches.append(pk)
        elif n - left > share * n:
            trims[pk] = parts
        else:
            left = n
        items += left if log == MESSAGES else 0
    return batches, trims, items


def dead_lineages(session: Session, kept: Iterable[int], live: Live) -> list[int]:
    """Return the lineages that hold no survivor, nothing that one reads, and lead to none."""
    needed = set(picked(session.lineage, kept)) | {lineage for lineage, _ in live}
    waiting = list(needed)
    while waiting:
        parent = session.lineages[waiting.pop()].parent
        if parent is not None and parent not in needed and parent in session.lineages:
            needed.add(parent)
            waiting.append(parent)
    return [pk for pk in session.lineages if pk not in needed]


def _dead_states(
    tx: Tx, stay: Iterable[int | None], go: Sequence[int | None], bases: dict[int, int | None]
) -> list[int]:
    """Return the states that go, of those that survivors name and those that the others do.

    Args:
        tx: The transaction.
        stay: The states that survivors name.
        go: Those that the others do.
        bases: Gathers state -> base.
    """
    used, doomed = ([pk for pk in states if pk is not None] for states in (stay, go))
    needed = with_bases(tx, used, bases, ahead=doomed)
    return sorted(with_bases(tx, doomed, bases, known=needed))


def with_bases(
    tx: Tx,
    states: Collection[int],
    bases: dict[int, int | None],
    *,
    known: Container[int] = (),
    ahead: Collection[int] = (),
) -> set[int]:
    """Return states and all that they are deltas against.

    Args:
        tx: The transaction.
        states: The states.
        bases: Gathers state -> base.
        known: States that are left out, with their bases.
        ahead: States that will be asked for as well, to be read at once.
    """
    found: set[int] = set()
    waiting = list(states)
    while waiting:
        if unknown := [pk for pk in waiting if pk not in bases]:
            columns = tx.columns(StateRow, "pk", "base", pk=among([*unknown, *ahead]))
            bases.update(dict.fromkeys(unknown))  # of which a row may be missing
            bases.update(zip(*columns, strict=True))
        starts, waiting, ahead = waiting, [], ()
        for start in starts:
            pk: int | None = start
            while pk is not None and pk not in found and pk not in known:
                if pk not in bases:
                    waiting.append(pk)
                    break
                found.add(pk)
                pk = bases[pk]
    return found
