"""What is left of what was erased: that there was something, and since when there is not.

A checkpoint's tombstone has its id. A thread's has only a digest of its name, since a name may be
what was to be erased.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ..codec import digest_of
from ..errors import Erased
from ..store import Meta, Tombstone, Tx

__all__ = ["TOMBSTONES", "check_unerased", "is_erased", "put_tombstones", "thread_key", "unbury"]

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


def is_erased(tx: Tx, key: bytes) -> bool:
    """Tell whether the checkpoint or thread of this key was erased."""
    return tx.one(Tombstone, key=key) is not None


def check_unerased(tx: Tx, key: bytes, what: str) -> None:
    """Refuse what is not there because it was erased.

    Raises:
        Erased: With the time.
    """
    row = tx.one(Tombstone, key=key)
    if row is not None:
        at = datetime.fromtimestamp(row.at / 1000, UTC)
        raise Erased(f"{what} was erased on {at:%Y-%m-%d at %H:%M} UTC; its content is gone")


def _count(tx: Tx, change: int) -> None:
    fact = tx.one(Meta, key=TOMBSTONES)
    if fact is None:
        tx.insert(Meta(TOMBSTONES, str(change)))
    else:
        tx.update(fact._replace(value=str(int(fact.value) + change)))
