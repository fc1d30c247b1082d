"""Leases that keep checkpoints from collection; a thread counts those of its checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..store import CheckpointRow, In, Lineage, Pin, ThreadRow, Tx

__all__ = ["drop_pins", "put_pins"]


def put_pins(tx: Tx, rows: Sequence[CheckpointRow], owner: str, until: int) -> None:
    """Lease checkpoints until a time, or renew an owner's leases of them."""
    cids = [row.cid for row in rows]
    known = {pin.checkpoint for pin in tx.find(Pin, owner=owner, checkpoint=In(cids))}
    tx.update(*(Pin(cid, owner, until) for cid in known))
    fresh = [row for row in rows if row.cid not in known]
    tx.insert(*(Pin(row.cid, owner, until) for row in fresh))
    _count(tx, fresh, +1)


def drop_pins(tx: Tx, pins: Sequence[Pin]) -> None:
    """End leases, before their checkpoints go."""
    rows = {
        row.cid: row for row in tx.find(CheckpointRow, cid=In([pin.checkpoint for pin in pins]))
    }
    for pin in pins:
        tx.delete(Pin, checkpoint=pin.checkpoint, owner=pin.owner)
    _count(tx, [rows[pin.checkpoint] for pin in pins if pin.checkpoint in rows], -1)


def _count(tx: Tx, rows: Sequence[CheckpointRow], change: int) -> None:
    lineages = Counter(row.lineage for row in rows)
    counts: Counter[int] = Counter()
    for lineage in tx.find(Lineage, pk=In(list(lineages))):
        counts[lineage.thread] += lineages[lineage.pk]
    for thread in tx.find(ThreadRow, pk=In(list(counts))):
        tx.update(thread._replace(n_pin=thread.n_pin + change * counts[thread.pk]))
