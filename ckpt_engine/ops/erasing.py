"""What ``forget`` removes, and what stays and why; all of it inside one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .. import codec
from ..model import id_from_bytes
from ..store import (
    Batch,
    BlobRef,
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
from .pins import drop_pins
from .place import OWNER, digest_of_row
from .source import Source
from .sweeping import (
    Session,
    dead_batches,
    dead_lineages,
    live_intervals,
    load,
    relinked,
    with_bases,
)
from .tombstones import put_tombstones
from .trimming import Intervals, hold, release, trim

__all__ = ["Erasure", "erase"]


@dataclass(slots=True)
class Erasure:
    """What an erasure does.

    Attributes:
        root: Key of the session's own thread.
        session: The session's rows.
        threads: Keys of the threads that are forgotten.
        gone: Ids of the checkpoints that go.
        kept: Id of a checkpoint that stays -> what of the forgotten it has, and why it stays.
    """

    root: int
    session: Session
    threads: set[int]
    gone: set[str] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def survivors(self) -> list[CheckpointRow]:
        """Rows of the checkpoints that stay."""
        return [row for i, row in self.session.by_id.items() if i not in self.gone]

    @property
    def victims(self) -> list[CheckpointRow]:
        """Rows of the checkpoints that go."""
        return [row for i, row in self.session.by_id.items() if i in self.gone]


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
    session = load(source, thread.session)
    found = set(session.threads) if total else _descendants(session, thread.pk)
    erasure = Erasure(thread.session, session, found)
    _decide(erasure)
    live = live_intervals(session, erasure.survivors)
    batches, trims, _ = dead_batches(tx, session, live, share=0)
    _explain(tx, erasure, [*batches, *trims])
    former = _rewrite(tx, source, erasure)
    _drop_checkpoints(tx, erasure.victims)
    _drop_states(tx, erasure, former)
    _drop_items(tx, batches, trims)
    _drop_lineages(tx, erasure, live)
    names = _drop_threads(tx, erasure)
    put_tombstones(tx, [row.id for row in erasure.victims], names, at)
    return erasure


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
            and row.origin in session.rows
            and session.thread_of(session.rows[row.origin]).pk in found
        }
    return found


def _decide(erasure: Erasure) -> None:
    """Find what goes: all of the threads but what another thread goes on from right now."""
    session = erasure.session
    outside = [row for pk, row in session.threads.items() if pk not in erasure.threads]
    heads = {row.head: row.name for row in outside if row.head is not None}
    for checkpoint_id, row in session.by_id.items():
        if session.thread_of(row).pk not in erasure.threads:
            continue
        if row.cid in heads:
            erasure.kept[checkpoint_id] = f"thread {heads[row.cid]!r} goes on from it"
        else:
            erasure.gone.add(checkpoint_id)


# --- what stays and why ---


def _explain(tx: Tx, erasure: Erasure, batches: list[int]) -> None:
    """Say what has something of the forgotten threads, and stays since another thread owns it."""
    session = erasure.session
    for pk in erasure.threads:
        origin = session.rows.get(session.threads[pk].origin or 0)
        if origin is not None and id_from_bytes(origin.id) not in erasure.gone:
            owner = session.thread_of(origin).name
            erasure.kept.setdefault(
                id_from_bytes(origin.id), f"the branch began here; it belongs to thread {owner!r}"
            )
    for row in erasure.survivors:
        parents = session.parents[id_from_bytes(row.id)]
        if any(parent in erasure.gone for parent in parents):
            owner = session.thread_of(row).name
            what = "joined a copy of its work" if len(parents) > 1 else "went on from it"
            erasure.kept.setdefault(id_from_bytes(row.id), f"thread {owner!r} {what}")
    _explain_blobs(tx, erasure, batches)


def _explain_blobs(tx: Tx, erasure: Erasure, batches: list[int]) -> None:
    """Say which checkpoints elsewhere have a large value in common with the forgotten ones."""
    mine = {
        "batch": batches,
        "state": [row.state for row in erasure.victims if row.state is not None],
        "checkpoint": [row.cid for row in erasure.victims],
    }
    held: set[int] = set()
    for kind, owners in mine.items():
        held |= {r.blob for r in tx.find(BlobRef, owner_kind=OWNER[kind], owner=In(owners))}
    if not held:
        return
    others: dict[str, list[int]] = {}
    for kind, owners in mine.items():
        known = set(owners)
        refs = tx.find(BlobRef, blob=In(list(held)), owner_kind=OWNER[kind])
        others[kind] = [ref.owner for ref in refs if ref.owner not in known]
    for row in _first_holders(tx, others):
        checkpoint_id = id_from_bytes(row.id)
        if checkpoint_id not in erasure.gone:
            erasure.kept.setdefault(checkpoint_id, "it has a large value of the same content")


def _first_holders(tx: Tx, owners: dict[str, list[int]]) -> Iterable[CheckpointRow]:
    """Yield the first checkpoint that has each of these rows."""
    yield from tx.find(CheckpointRow, cid=In(owners["checkpoint"]))
    for batch in tx.find(Batch, pk=In(owners["batch"])):
        rows = tx.find(CheckpointRow, lineage=batch.lineage, order="step")
        yield from [row for row in rows if batch.log or row.length > batch.pos][:1]
    for state in owners["state"]:
        yield from tx.find(CheckpointRow, state=state, limit=1)


# --- writes ---


def _rewrite(tx: Tx, source: Source, erasure: Erasure) -> set[int]:
    """Give survivors their new parents, and whole states where they stand on forgotten ones.

    Returns:
        The states that they had.
    """
    states = _whole_states(tx, source, erasure)
    links = relinked(erasure.session, erasure.gone)
    moved: set[int] = set()
    for row in erasure.survivors:
        if row.cid not in links and row.state not in states:
            continue
        edges = links.get(row.cid)
        if edges is None:
            edges = [edge.parent for edge in tx.find(Edge, child=row.cid, order="ord")]
        else:
            tx.delete(Edge, child=row.cid)
            tx.insert(*(Edge(row.cid, place, parent) for place, parent in enumerate(edges, 1)))
            row = row._replace(nparents=1 + len(edges))
        if row.state in states:
            moved.add(erasure.session.thread_of(row).pk)
            row = row._replace(state=states[row.state])
        digest = digest_of_row(row, edges, source.state(row.state).digest)
        tx.update(row._replace(digest=digest))
        erasure.session.rows[row.cid] = erasure.session.by_id[id_from_bytes(row.id)] = row
    for pk in moved:
        # what was prepared for the old state must not be appended in place unseen
        erasure.session.threads[pk] = erasure.session.threads[pk]._replace(open_tip=None)
        tx.update(erasure.session.threads[pk])
    return set(states)


def _whole_states(tx: Tx, source: Source, erasure: Erasure) -> dict[int, int]:
    """Store those states whole that are deltas against one no survivor has; return old -> new."""
    bases: dict[int, int | None] = {}
    named = {row.state for row in erasure.survivors if row.state is not None}
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
    named = {row.state for row in erasure.survivors if row.state is not None}
    were = former | {row.state for row in erasure.victims if row.state is not None}
    dead = list(with_bases(tx, were, bases) - with_bases(tx, named, bases))
    tx.delete(StateRow, pk=In(dead))
    release(tx, OWNER["state"], dead)


def _drop_items(tx: Tx, batches: list[int], trims: dict[int, Intervals]) -> None:
    tx.delete(Batch, pk=In(batches))
    release(tx, OWNER["batch"], batches)
    for pk, parts in trims.items():
        for row in tx.find(Batch, pk=pk):
            trim(tx, row, parts)


def _drop_lineages(tx: Tx, erasure: Erasure, live: dict[tuple[int, str], Intervals]) -> None:
    """Remove lineages; those that others read become the session's own thread's."""
    survivors = erasure.survivors
    dead = dead_lineages(erasure.session, survivors, live)
    tx.delete(Lineage, pk=In(dead))
    staying = {*dead, *(row.lineage for row in survivors)}
    for lineage in erasure.session.lineages.values():
        if lineage.thread in erasure.threads and lineage.pk not in staying:
            tx.update(lineage._replace(thread=erasure.root))


def _drop_checkpoints(tx: Tx, rows: list[CheckpointRow]) -> None:
    cids = [row.cid for row in rows]
    drop_pins(tx, tx.find(Pin, checkpoint=In(cids)))
    tx.delete(TagRow, checkpoint=In(cids))
    tx.delete(Edge, child=In(cids))
    tx.delete(CheckpointRow, cid=In(cids))
    release(tx, OWNER["checkpoint"], cids)


def _drop_threads(tx: Tx, erasure: Erasure) -> list[str]:
    """Remove the threads, or where something of them stays all but that; return their names."""
    session = erasure.session
    rows = tx.find(ThreadRow, session=erasure.root)
    staying = {session.thread_of(row).pk for row in erasure.survivors}
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
    left = [r for r in erasure.survivors if session.thread_of(r).pk == row.pk]
    newest = max(left, key=lambda r: (r.step, r.cid))
    kept_origin = row.origin in {r.cid for r in erasure.survivors}
    return row._replace(
        origin=row.origin if kept_origin else None,
        head=newest.cid,
        step=newest.step,
        open_tip=None,
        turned=None,
        n_cp=len(left),
        n_move=0,
        n_run=0,
    )
