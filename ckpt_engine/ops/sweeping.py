"""What a collection or an erasure removes: found in a read, carried out in small writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ..graph import GraphNode, nearest_kept
from ..model import id_from_bytes
from ..store import (
    Above,
    Batch,
    CheckpointRow,
    Edge,
    In,
    Lineage,
    Pin,
    StateRow,
    TagRow,
    ThreadRow,
    Tx,
)
from .pins import drop_pins
from .place import OWNER, StaleError, digest_of_row
from .prepare import log_lengths
from .source import Caches, Source, inherited_pieces
from .trimming import Intervals, live_parts, release, trim

__all__ = [
    "Session",
    "Sweep",
    "dead_batches",
    "dead_lineages",
    "drop_checkpoints",
    "drop_content",
    "live_intervals",
    "load",
    "relinked",
    "sweep_for",
    "with_bases",
]


@dataclass(slots=True)
class Session:
    """All rows of a session's graph."""

    threads: dict[int, ThreadRow]
    lineages: dict[int, Lineage]
    rows: dict[int, CheckpointRow]
    parents: dict[str, tuple[str, ...]]
    by_id: dict[str, CheckpointRow]

    def lookup(self, checkpoint_id: str) -> GraphNode:
        """Return what the graph knows of a checkpoint."""
        return GraphNode(self.by_id[checkpoint_id].step, self.parents[checkpoint_id])

    def thread_of(self, row: CheckpointRow) -> ThreadRow:
        """Return a checkpoint's thread."""
        return self.threads[self.lineages[row.lineage].thread]


@dataclass(slots=True)
class Sweep:
    """What goes.

    Attributes:
        cids: Checkpoints.
        relink: Checkpoint that stays -> its parents from the second one on.
        states: State rows that nothing needs any more, the newest first.
        batches: Batches that nothing needs any more.
        trims: Batches of which over half is dead -> what is live in them.
        lineages: Lineages likewise.
        newest: The newest checkpoint there was when this was planned.
        items_kept: Messages of dropped checkpoints that others still need.
    """

    cids: list[int]
    relink: dict[int, list[int]]
    states: list[int]
    batches: list[int]
    trims: dict[int, Intervals]
    lineages: list[int]
    newest: int
    items_kept: int


def load(source: Source, session: int) -> Session:
    """Return a session's rows."""
    tx = source.tx
    threads = {row.pk: row for row in tx.find(ThreadRow, session=session)}
    lineages = {row.pk: row for row in tx.find(Lineage, thread=In(list(threads)))}
    found = tx.find(CheckpointRow, lineage=In(list(lineages)))
    rows = {row.cid: row for row in found}
    edges: dict[int, list[int]] = defaultdict(list)
    many = [row.cid for row in found if row.nparents > 1]
    for edge in sorted(tx.find(Edge, child=In(many)), key=lambda e: e.ord):
        edges[edge.child].append(edge.parent)
    ids = {row.cid: id_from_bytes(row.id) for row in found}
    parents: dict[str, tuple[str, ...]] = {}
    for row in found:
        linked: list[str] = []
        if row.parent is not None and row.parent in ids:
            linked.append(ids[row.parent])
        elif row.parent is not None and (first := source.first_parent(row)) is not None:
            linked.append(id_from_bytes(first.id))
        if row.nparents > 1:
            linked += [ids[cid] for cid in edges[row.cid] if cid in ids]
        parents[ids[row.cid]] = tuple(linked)
    by_id = {ids[row.cid]: row for row in found}
    return Session(threads, lineages, rows, parents, by_id)


def sweep_for(tx: Tx, session: Session, dropped: Collection[str]) -> Sweep:
    """Return everything that goes with the dropped checkpoints."""
    gone = set(dropped)
    kept = [row for i, row in session.by_id.items() if i not in gone]
    dead = [session.by_id[i] for i in dropped]
    live = live_intervals(session, kept)
    batches, trims, items = dead_batches(tx, session, live, share=0.5)
    own = sum(max(row.own, 0) for row in dead)
    return Sweep(
        cids=[row.cid for row in dead],
        relink=relinked(session, gone),
        states=_dead_states(tx, kept, dead),
        batches=batches,
        trims=trims,
        lineages=dead_lineages(session, kept, live),
        newest=max(session.rows, default=0),
        items_kept=max(0, own - items),
    )


def relinked(session: Session, gone: set[str]) -> dict[int, list[int]]:
    """Return the further parents of checkpoints whose old ones are dropped, where that matters."""
    found: dict[int, list[int]] = {}
    for child, parents in session.parents.items():
        if child in gone or not any(p in gone for p in parents):
            continue
        row = session.by_id[child]
        if len(parents) == 1 and not _has_join(session, parents[0], gone):
            continue  # the nearest one on its line is found by position
        kept = nearest_kept(parents, gone, session.lookup)
        first = _on_line(session, parents[0], gone)
        rest = [session.by_id[i].cid for i in kept if i != first]
        if rest or row.nparents > 1:
            found[row.cid] = rest
    return found


def _has_join(session: Session, start: str, gone: set[str]) -> bool:
    at = start
    while at in gone:
        parents = session.parents[at]
        if len(parents) != 1:
            return bool(parents)
        at = parents[0]
    return False


def _on_line(session: Session, start: str, gone: set[str]) -> str | None:
    at: str | None = start
    while at is not None and at in gone:
        parents = session.parents[at]
        at = parents[0] if parents else None
    return at


def live_intervals(
    session: Session, kept: Iterable[CheckpointRow]
) -> dict[tuple[int, str], Intervals]:
    """Return (lineage, log) -> the intervals of its own rows that someone reads."""
    longest: dict[tuple[int, str], int] = defaultdict(int)
    for row in kept:
        for name, (length, _, _) in log_lengths(row).items():
            longest[row.lineage, name] = max(longest[row.lineage, name], length)
    live: dict[tuple[int, str], Intervals] = defaultdict(list)
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
    tx: Tx, session: Session, live: dict[tuple[int, str], Intervals], *, share: float
) -> tuple[list[int], dict[int, Intervals], int]:
    """Return what of the batches nobody reads.

    Args:
        tx: The transaction.
        session: Whose batches.
        live: What survivors read.
        share: Rows of which more than this is dead are worth cutting.

    Returns:
        Rows that go; rows to cut -> what is live in them; how many messages go with both.
    """
    batches: list[int] = []
    trims: dict[int, Intervals] = {}
    items = 0
    for pk in session.lineages:
        for row in tx.find(Batch, lineage=pk):
            parts = live_parts(row, live.get((pk, row.log), ()))
            dead = row.n - sum(stop - start for start, stop in parts)
            if not parts:
                batches.append(row.pk)
            elif dead > share * row.n:
                trims[row.pk] = parts
            else:
                continue
            items += dead if row.log == "" else 0
    return batches, trims, items


def dead_lineages(
    session: Session, kept: list[CheckpointRow], live: dict[tuple[int, str], Intervals]
) -> list[int]:
    """Return the lineages that hold no survivor, nothing that one reads, and lead to none."""
    needed = {row.lineage for row in kept} | {lineage for lineage, _ in live}
    waiting = list(needed)
    while waiting:
        parent = session.lineages[waiting.pop()].parent
        if parent is not None and parent not in needed and parent in session.lineages:
            needed.add(parent)
            waiting.append(parent)
    return [pk for pk in session.lineages if pk not in needed]


def _dead_states(tx: Tx, kept: list[CheckpointRow], dead: list[CheckpointRow]) -> list[int]:
    bases: dict[int, int | None] = {}
    used = with_bases(tx, {row.state for row in kept if row.state is not None}, bases)
    doomed = with_bases(tx, {row.state for row in dead if row.state is not None}, bases) - used
    return sorted(doomed, reverse=True)


def with_bases(tx: Tx, states: set[int], bases: dict[int, int | None]) -> set[int]:
    """Return states and all that they are deltas against; ``bases`` gathers state -> base."""
    found: set[int] = set()
    level = states
    while level:
        unknown = [pk for pk in level if pk not in bases]
        bases.update({row.pk: row.base for row in tx.find(StateRow, pk=In(unknown))})
        found |= level
        level = {b for pk in level if (b := bases.get(pk)) is not None and b not in found}
    return found


# --- writes ---


def drop_checkpoints(tx: Tx, sweep: Sweep, cids: list[int]) -> None:
    """Remove checkpoints, unless something has come to need them since the plan was made.

    Raises:
        StaleError: Plan again.
    """
    rows = tx.find(CheckpointRow, cid=In(cids))
    lineages = {pk.pk: pk for pk in tx.find(Lineage, pk=In(list({row.lineage for row in rows})))}
    _check_unneeded(tx, sweep, cids)
    for child in [cid for cid in sweep.relink if cid not in set(sweep.cids)]:
        _relink(tx, child, sweep.relink.pop(child))
    drop_pins(tx, tx.find(Pin, checkpoint=In(cids)))
    per_thread = Counter(lineages[row.lineage].thread for row in rows)
    for thread in tx.find(ThreadRow, pk=In(list(per_thread))):
        tx.update(thread._replace(n_cp=thread.n_cp - per_thread[thread.pk]))
    tx.delete(Edge, child=In(cids))
    tx.delete(CheckpointRow, cid=In(cids))
    release(tx, OWNER["checkpoint"], cids)


def _check_unneeded(tx: Tx, sweep: Sweep, cids: list[int]) -> None:
    for column in ("head", "origin", "open_tip"):
        where: dict[str, Any] = {column: In(cids)}
        if tx.find(ThreadRow, "", 1, **where):
            raise StaleError
    if tx.find(TagRow, "", 1, checkpoint=In(cids)):
        raise StaleError
    dropped = set(sweep.cids)
    for row in tx.find(CheckpointRow, cid=Above(sweep.newest)):
        if row.parent in dropped:
            raise StaleError


def _relink(tx: Tx, cid: int, parents: list[int]) -> None:
    row = tx.one(CheckpointRow, cid=cid)
    if row is None:
        return
    tx.delete(Edge, child=cid)
    tx.insert(*(Edge(cid, place, parent) for place, parent in enumerate(parents, 1)))
    state = Source(Caches(1_000_000), tx, writes=True).state(row.state)
    row = row._replace(nparents=1 + len(parents))
    digest = digest_of_row(row, parents, state.digest)
    tx.update(row._replace(digest=digest))


def drop_content(tx: Tx, sweep: Sweep) -> None:
    """Remove states, batches and lineages that the dropped checkpoints alone needed."""
    for row in tx.find(CheckpointRow, cid=Above(sweep.newest)):
        if row.state in set(sweep.states) or row.parent in set(sweep.cids):
            raise StaleError
    fresh = tx.find(Lineage, pk=Above(max(sweep.lineages, default=2**62)))
    if any(lineage.parent in set(sweep.lineages) for lineage in fresh):
        raise StaleError
    for start in range(0, len(sweep.states), 400):
        some = sweep.states[start : start + 400]
        tx.delete(StateRow, pk=In(some))
        release(tx, OWNER["state"], some)
    for pk, parts in sweep.trims.items():
        for batch in tx.find(Batch, pk=pk):  # unless it was packed meanwhile
            trim(tx, batch, parts)
    tx.delete(Batch, pk=In(sweep.batches))
    release(tx, OWNER["batch"], sweep.batches)
    tx.delete(Lineage, pk=In(sweep.lineages))
