"""What is left of what was erased: that there was something, and since when there is not.

A checkpoint's tombstone has its id. A thread's has only a digest of its name, since a name may be
what was to be erased.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..codec import digest_of
from ..store import Meta, Tombstone, Tx

__all__ = ["TOMBSTONES", "erased_at", "put_tombstones", "thread_key", "unbury"]

TOMBSTONES = "tombstones"
"""The fact that says how many there are."""

_CHECKPOINT, _THREAD = 0, 1


def thread_key(name: str) -> bytes:
    """Return under which key a thread's tombstone stands."""
    return digest_of(b"thread:", name.encode())


def put_tombstones(tx: Tx, ids: Iterable[bytes], names: Iterable[str], at: int) -> None:
    """Set tombstones for checkpoints, by stored id, and for threads, by name."""
    rows = [Tombstone(stored, _CHECKPOINT, at) for stored in ids]
    rows += [Tombstone(thread_key(name), _THREAD, at) for name in names]
    tx.insert(*rows)
    _count(tx, len(rows))


def unbury(tx: Tx, name: str) -> None:
    """Take a thread's tombstone away: the name is used anew."""
    gone = tx.delete(Tombstone, key=thread_key(name))
    if gone:
        _count(tx, -gone)


def erased_at(tx: Tx, key: bytes) -> int | None:
    """Return when the checkpoint or thread of this key was erased; ``None`` if it was not."""
    row = tx.one(Tombstone, key=key)
    return None if row is None else row.at


def _count(tx: Tx, change: int) -> None:
    fact = tx.one(Meta, key=TOMBSTONES)
    if fact is None:
        tx.insert(Meta(TOMBSTONES, str(change)))
    else:
        tx.update(fact._replace(value=str(int(fact.value) + change)))
