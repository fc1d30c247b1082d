"""Carrying out a sweep, in small writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..store import (
    Batch,
    CheckpointRow,
    Edge,
    In,
    Lineage,
    Pin,
    Span,
    StateRow,
    TagRow,
    ThreadRow,
    Tx,
)
from .pins import drop_pins
from .place import OWNER, StaleError, digest_of_row
from .prepare import now_ms
from .session import exactly
from .source import Caches, Source
from .sweeping import Sweep
from .trimming import release, trim

__all__ = ["check_unneeded", "drop_checkpoints", "drop_content", "drop_states"]


def drop_checkpoints(tx: Tx, sweep: Sweep, start: int, stop: int) -> None:
    """Remove some of the checkpoints.

    Raises:
        StaleError: Plan again: another process collects as well.
    """
    cids = sweep.cids[start:stop]
    if start == 0 and sweep.relink:
        _relink(tx, sweep.relink)
    if pins := tx.find(Pin):
        gone = set(sweep.cids)
        if expired := [pin for pin in pins if pin.checkpoint in gone]:
            drop_pins(tx, expired)
    counts = Counter(sweep.threads[start:stop])
    for thread in tx.find(ThreadRow, pk=In(list(counts))):
        tx.update(thread._replace(n_cp=thread.n_cp - counts[thread.pk]))
    drop_edges(tx, cids)
    if sum(tx.delete(CheckpointRow, cid=some) for some in exactly(cids)) != len(cids):
        raise StaleError
    release(tx, OWNER["checkpoint"], cids)


def check_unneeded(tx: Tx, sweep: Sweep) -> None:
    """Refuse a plan where something came to need what it drops.

    What is taken after a checkpoint is either on a lineage of its own, or on that of its parent,
    if that was the newest there.

    Raises:
        StaleError: Something did.
    """
    threads = tx.columns(ThreadRow, "pk", "head", "origin", "open_tip", session=sweep.session)
    needed = set().union(*threads[1:])
    needed.update(*tx.columns(TagRow, "checkpoint", thread=In(threads[0])))
    now = now_ms()
    needed.update(pin.checkpoint for pin in tx.find(Pin) if pin.expires > now)
    (lineages,) = tx.columns(Lineage, "pk", thread=In(threads[0]))
    if grown := [*sweep.ended, *(pk for pk in lineages if pk not in sweep.known)]:
        rows = tx.columns(CheckpointRow, "lineage", "step", "parent", lineage=In(grown))
        needed.update(
            parent for pk, step, parent in zip(*rows, strict=True) if step > sweep.ended.get(pk, -1)
        )
    if not needed.isdisjoint(sweep.cids):
        raise StaleError


def drop_edges(tx: Tx, cids: Sequence[int]) -> None:
    """Remove what says that checkpoints have further parents; mostly none has."""
    if tx.one(Edge, child=Span(min(cids, default=0) - 1, max(cids, default=0))):
        tx.delete(Edge, child=In(cids))


def _relink(tx: Tx, relink: dict[int, list[int]]) -> None:
    source = Source(Caches(4_000_000), tx, writes=True)
    rows = tx.find(CheckpointRow, cid=In(list(relink)))
    tx.delete(Edge, child=In(list(relink)))
    for row in rows:
        parents = relink[row.cid]
        tx.insert(*(Edge(row.cid, place, parent) for place, parent in enumerate(parents, 1)))
        row = row._replace(nparents=1 + len(parents))
        digest = digest_of_row(row, parents, source.state(row.state).digest)
        tx.update(row._replace(digest=digest))


def drop_states(tx: Tx, states: Sequence[int]) -> None:
    """Remove the states that some of the dropped checkpoints were the last to need.

    In the same transaction as those: a state that no checkpoint leads to is never found again.
    """
    if states:
        for some in exactly(states):
            tx.delete(StateRow, pk=some)
        release(tx, OWNER["state"], states)


def drop_content(tx: Tx, sweep: Sweep) -> None:
    """Remove batches and lineages that the dropped checkpoints alone needed."""
    for pk, parts in sweep.trims.items():
        for batch in tx.find(Batch, pk=pk):  # unless it was packed meanwhile
            trim(tx, batch, parts)
    if sweep.batches:
        tx.delete(Batch, pk=In(sweep.batches))
        release(tx, OWNER["batch"], sweep.batches)
    if sweep.lineages:
        tx.delete(Lineage, pk=In(sweep.lineages))
