"""What ``forget`` removes, and what stays and why; all of it inside one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .. import codec
from ..model import id_from_bytes
from ..store import (
    Batch,
    CheckpointRow,
    Edge,
    HeadMoveRow,
    In,
    Lineage,
    Pin,
    RunRow,
    StateRow,
    TagRow,
    ThreadRow,
    Tx,
)
from .holders import holders_of, large_values, values_in
from .pins import drop_pins
from .place import OWNER, digest_of_row
from .session import Session, load
from .source import Source
from .sweeping import Live, dead_batches, dead_lineages, live_intervals, relinked, with_bases
from .tombstones import put_tombstones
from .trimming import Intervals, hold, release, trim, without

__all__ = ["Erasure", "erase"]


@dataclass(slots=True)
class Erasure:
    """What an erasure does; a checkpoint goes by its position.

    Attributes:
        root: Key of the session's own thread.
        session: The session.
        threads: Keys of the threads that are forgotten.
        gone: The checkpoints that go.
        kept: Id of one that stays, of any session -> what of the forgotten it has, and why.
    """

    root: int
    session: Session
    threads: set[int]
    gone: set[int] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def survivors(self) -> list[int]:
        """The checkpoints that stay."""
        return [n for n in range(len(self.session)) if n not in self.gone]

    @property
    def victims(self) -> list[int]:
        """The checkpoints that go."""
        return sorted(self.gone)

    @property
    def erased(self) -> tuple[str, ...]:
        """The ids of what goes, by step."""
        steps = self.session.steps
        return tuple(i for _, i in sorted((steps[n], self.id_of(n)) for n in self.gone))

    def id_of(self, n: int) -> str:
        """Return a checkpoint's id."""
        return id_from_bytes(self.session.ids[n])

    def states(self, checkpoints: Iterable[int]) -> set[int]:
        """Return the states that checkpoints have."""
        states = self.session.states
        return {state for n in checkpoints if (state := states[n]) is not None}


def erase(tx: Tx, source: Source, thread: ThreadRow, *, total: bool, at: int) -> Erasure:
    """Remove a thread and its descendants, or the whole session, and what only they need.

    Args:
        tx: The transaction.
        source: Reads in it.
        thread: The thread, or any of the session.
        total: Whether the whole session goes.
        at: The time, for the tombstones.
    """
    tx.erase()
    session = load(tx, thread.session)
    # every thread of a session began in its root, whatever of the way there was erased before
    whole = total or thread.pk == thread.session
    found = set(session.threads) if whole else _descendants(session, thread.pk)
    erasure = Erasure(thread.session, session, found)
    _decide(erasure)
    _explain(erasure)
    values = large_values(
        tx,
        source,
        lineages=[pk for pk, row in session.lineages.items() if row.thread in found],
        states=erasure.states(erasure.gone),
        checkpoints=[session.cids[n] for n in erasure.gone],
    )
    values |= values_in(tx, _inherited(tx, erasure))
    live = _drop(tx, source, erasure)
    _drop_lineages(tx, erasure, live)
    names = _drop_threads(tx, erasure)
    put_tombstones(tx, [session.ids[n] for n in erasure.victims], names, at)
    if values:
        _explain_values(tx, source, erasure, values)
    return erasure


def _drop(tx: Tx, source: Source, erasure: Erasure) -> Live:
    """Remove checkpoints, and every state and message that no survivor of the session has.

    Returns:
        What survivors read.
    """
    session = erasure.session
    live = live_intervals(tx, session, erasure.survivors)
    batches, trims, _ = dead_batches(tx, session, live, share=0)
    former = _rewrite(tx, source, erasure)
    _drop_checkpoints(tx, [session.cids[n] for n in erasure.victims])
    _drop_states(tx, erasure, former)
    _drop_items(tx, batches, trims)
    return live


def _descendants(session: Session, pk: int) -> set[int]:
    """Return a thread and every thread that began at a checkpoint of it or of its descendants."""
    found: set[int] = set()
    waiting = {pk}
    while waiting:
        found |= waiting
        waiting = {
            row.pk
            for row in session.threads.values()
            if row.pk not in found
            and any(session.thread_of(n).pk in found for n in session.positions([row.origin]))
        }
    return found


def _decide(erasure: Erasure) -> None:
    """Find what goes: all of the threads but what another thread goes on from right now."""
    session = erasure.session
    outside = [row for pk, row in session.threads.items() if pk not in erasure.threads]
    heads = {row.head: row.name for row in outside if row.head is not None}
    for n, cid in enumerate(session.cids):
        if session.thread_of(n).pk not in erasure.threads:
            continue
        if cid in heads:
            erasure.kept[erasure.id_of(n)] = f"thread {heads[cid]!r} goes on from it"
        else:
            erasure.gone.add(n)


# --- what stays and why ---


def _explain(erasure: Erasure) -> None:
    """Say what has something of the forgotten threads, and stays since another thread owns it."""
    session = erasure.session
    for origin in session.positions(session.threads[pk].origin for pk in erasure.threads):
        if origin not in erasure.gone:
            owner = session.thread_of(origin).name
            why = f"the branch began here; it belongs to thread {owner!r}"
            erasure.kept.setdefault(erasure.id_of(origin), why)
    for n in erasure.survivors:
        parents = session.parents(n)
        if not erasure.gone.isdisjoint(parents):
            owner = session.thread_of(n).name
            what = "joined a copy of its work" if len(parents) > 1 else "went on from it"
            erasure.kept.setdefault(erasure.id_of(n), f"thread {owner!r} {what}")
    for n, what in _stood_on(erasure):
        why = f"{what}; it belongs to thread {session.thread_of(n).name!r}"
        erasure.kept.setdefault(erasure.id_of(n), why)


def _stood_on(erasure: Erasure) -> Iterator[tuple[int, str]]:
    """Yield which survivors the forgotten threads reached by a rewind or a merge, and how."""
    session = erasure.session
    for n in erasure.victims:
        for parent in session.parents(n):
            if parent not in erasure.gone:
                first = parent == session.firsts[n]
                how = "went on from it" if first else "joined a copy of its work"
                yield parent, f"the branch {how}"
    for n in session.positions(session.threads[pk].head for pk in erasure.threads):
        if n not in erasure.gone:
            yield n, "the branch was rewound to it"


def _inherited(tx: Tx, erasure: Erasure) -> Live:
    """Return what of other threads' logs the erased read, and nothing that is named so far does.

    For the rest those names do: nearly every ancestor has some large message.
    """
    session = erasure.session
    named = [n for n in erasure.survivors if erasure.id_of(n) in erasure.kept]
    known = live_intervals(tx, session, named)
    mine = {pk for pk, row in session.lineages.items() if row.thread in erasure.threads}
    read = live_intervals(tx, session, erasure.victims)
    return {
        log: without(parts, known.get(log, ())) for log, parts in read.items() if log[0] not in mine
    }


def _explain_values(tx: Tx, source: Source, erasure: Erasure, values: set[bytes]) -> None:
    """Say which checkpoints have a large value in common with the forgotten ones.

    What only stands in rows of other sessions, and no checkpoint of theirs has any more, goes too.
    """
    holders = holders_of(source, values)
    for root in holders.leftovers:
        _drop(tx, source, Erasure(root, load(tx, root), set()))
    if holders.orphans:
        tx.delete(StateRow, pk=In(list(holders.orphans)))
        release(tx, OWNER["state"], list(holders.orphans))
    if holders.leftovers:
        holders = holders_of(source, values)
    for row in holders.checkpoints:
        erasure.kept.setdefault(id_from_bytes(row.id), "it has a large value of the same content")


# --- writes ---


def _rewrite(tx: Tx, source: Source, erasure: Erasure) -> set[int]:
    """Give survivors their new parents, and whole states where they stand on forgotten ones.

    Returns:
        The states that they had.
    """
    session = erasure.session
    states = _whole_states(tx, source, erasure)
    links = relinked(session, erasure.gone)
    changed = [
        n for n in erasure.survivors if session.cids[n] in links or session.states[n] in states
    ]
    moved: set[int] = set()
    for row in tx.find(CheckpointRow, cid=In([session.cids[n] for n in changed])):
        edges = links.get(row.cid)
        if edges is None:
            edges = [edge.parent for edge in tx.find(Edge, child=row.cid, order="ord")]
        else:
            tx.delete(Edge, child=row.cid)
            tx.insert(*(Edge(row.cid, place, parent) for place, parent in enumerate(edges, 1)))
            row = row._replace(nparents=1 + len(edges))
        if row.state in states:
            moved.add(session.lineages[row.lineage].thread)
            row = row._replace(state=states[row.state])
        digest = digest_of_row(row, edges, source.state(row.state).digest)
        tx.update(row._replace(digest=digest))
    session.states = [states.get(s, s) if s is not None else None for s in session.states]
    for pk in moved:
        # what was prepared for the old state must not be appended in place unseen
        session.threads[pk] = session.threads[pk]._replace(open_tip=None)
        tx.update(session.threads[pk])
    return set(states)


def _whole_states(tx: Tx, source: Source, erasure: Erasure) -> dict[int, int]:
    """Store those states whole that are deltas against one no survivor has; return old -> new."""
    bases: dict[int, int | None] = {}
    named = erasure.states(erasure.survivors)
    with_bases(tx, named, bases)
    found: dict[int, int] = {}
    for pk in sorted(named):
        at = bases[pk]
        while at is not None and at in named:
            at = bases[at]
        if at is None:
            continue
        state = source.state(pk)
        body = codec.join_map(state.values)
        found[pk] = tx.next_pk(StateRow)
        kind, packed = codec.compress(body)
        tx.insert(StateRow(found[pk], None, 0, kind, packed))
        hold(tx, OWNER["state"], found[pk], body)
    return found


def _drop_states(tx: Tx, erasure: Erasure, former: set[int]) -> None:
    bases: dict[int, int | None] = {}
    named = erasure.states(erasure.survivors)
    were = former | erasure.states(erasure.gone)
    dead = list(with_bases(tx, were, bases) - with_bases(tx, named, bases))
    tx.delete(StateRow, pk=In(dead))
    release(tx, OWNER["state"], dead)


def _drop_items(tx: Tx, batches: list[int], trims: dict[int, Intervals]) -> None:
    tx.delete(Batch, pk=In(batches))
    release(tx, OWNER["batch"], batches)
    for pk, parts in trims.items():
        for row in tx.find(Batch, pk=pk):
            trim(tx, row, parts)


def _drop_lineages(tx: Tx, erasure: Erasure, live: Live) -> None:
    """Remove lineages; those that others read become the session's own thread's."""
    survivors = erasure.survivors
    dead = dead_lineages(erasure.session, survivors, live)
    tx.delete(Lineage, pk=In(dead))
    staying = {*dead, *(erasure.session.lineage[n] for n in survivors)}
    for lineage in erasure.session.lineages.values():
        if lineage.thread in erasure.threads and lineage.pk not in staying:
            tx.update(lineage._replace(thread=erasure.root))


def _drop_checkpoints(tx: Tx, cids: list[int]) -> None:
    drop_pins(tx, tx.find(Pin, checkpoint=In(cids)))
    tx.delete(TagRow, checkpoint=In(cids))
    tx.delete(Edge, child=In(cids))
    tx.delete(CheckpointRow, cid=In(cids))
    release(tx, OWNER["checkpoint"], cids)


def _drop_threads(tx: Tx, erasure: Erasure) -> list[str]:
    """Remove the threads, or where something of them stays all but that; return their names."""
    session = erasure.session
    rows = tx.find(ThreadRow, session=erasure.root)
    staying = {session.thread_of(n).pk for n in erasure.survivors}
    gone = erasure.threads - staying
    doomed = In(list(erasure.threads))
    tx.delete(HeadMoveRow, thread=doomed)
    tx.delete(RunRow, thread=doomed)
    names = [row.name for row in rows if row.pk in gone]
    tx.delete(ThreadRow, pk=In(list(gone)))
    tags = Counter(tag.thread for tag in tx.find(TagRow, thread=doomed))
    for row in rows:
        if row.pk in gone:
            continue
        new = row._replace(
            superseded=None if row.superseded in gone else row.superseded,
            active=None if row.active in gone else row.active,
        )
        if row.pk in erasure.threads:
            new = _bare(erasure, new)._replace(n_tag=tags[row.pk])
        if new != row:
            tx.update(new)
    return names


def _bare(erasure: Erasure, row: ThreadRow) -> ThreadRow:
    """Return the row of a thread of which only what others go on from stays."""
    session = erasure.session
    left = [n for n in erasure.survivors if session.thread_of(n).pk == row.pk]
    step, head = max((session.steps[n], session.cids[n]) for n in left)
    return row._replace(
        origin=_origin_left(erasure, row),
        head=head,
        step=step,
        open_tip=None,
        turned=None,
        n_cp=len(left),
        n_move=0,
        n_run=0,
    )


def _origin_left(erasure: Erasure, row: ThreadRow) -> int | None:
    """Return where a thread began, or the nearest before it that stays.

    So it still counts as begun in the threads that its way back leads through.
    """
    session = erasure.session
    way = session.positions([row.origin])
    while way and way[0] in erasure.gone:
        way = list(session.parents(way[0]))
    return session.cids[way[0]] if way else None
