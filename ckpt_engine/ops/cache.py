"""What the engine remembers of rows that never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

__all__ = ["Lru"]


class Lru(Generic[K, V]):
    """The entries used last, up to a total size; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value, if it is still here."""
        try:
            found = self._entries[key]
            self._entries.move_to_end(key)
        except KeyError:  # not here, or another thread has just dropped it
            return None
        return found[0]

    def put(self, key: K, value: V, size: int = 1) -> None:
        """Keep a value of this size; a value above the limit is not kept."""
        with self._lock:
            entries = self._entries
            known = entries.pop(key, None)
            if known is not None:
                self._size -= known[1]
            if size > self._limit:
                return
            entries[key] = (value, size)
            self._size += size
            while self._size > self._limit:
                _, (_, freed) = entries.popitem(last=False)
                self._size -= freed

    def drop(self, *keys: K) -> None:
        """Forget keys, those that are here."""
        with self._lock:
            for key in keys:
                found = self._entries.pop(key, None)
                if found is not None:
                    self._size -= found[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0
