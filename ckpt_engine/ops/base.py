"""What every part of the engine stands on: the store, the caches, and how work is run on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ..config import SnapshotConfig
from ..errors import EngineClosed, InvalidRequest, shown
from ..observe import Guarded, Observer
from ..store import Expect, Store, Tx
from .damaged import BREAKS, is_damage, typed
from .source import Caches, MissError, Source

__all__ = ["EngineBase"]

T = TypeVar("T")


class EngineBase:
    """Holds the store.

    Attributes:
        url: Where the checkpoints are.
        config: How they are taken and kept.
    """

    def __init__(self, store: Store, config: SnapshotConfig) -> None:
        self.config = config
        self.url = store.url
        self._store = store
        self._caches = Caches(int(config.cache_mb * 1_000_000))
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observer: Observer | None = None
        self._background: set[asyncio.Task[None]] = set()

    def observe(self, observer: Observer | None) -> None:
        """Tell ``observer`` of every transaction and look-up from now on.

        Example:
            class Counter:
                writes = 0

                def committed(self, writes: int) -> None:
                    self.writes += writes

                def looked_up(self, *, hit: bool) -> None:
                    pass

            counter = Counter()
            engine.observe(counter)
            await engine.snapshot("chat")
            assert counter.writes == 1
        """
        told = (getattr(observer, name, None) for name in ("committed", "looked_up"))
        if observer is not None and not all(map(callable, told)):
            raise InvalidRequest(
                f"an observer has committed() and looked_up(), not {shown(observer)}"
            )
        guarded = None if observer is None else Guarded(observer)
        self._observer = self._store.observer = guarded

    async def _read(self, work: Callable[[Source], T]) -> T:
        """Run ``work`` in a read transaction; once more without the caches if that breaks.

        Another process may have repacked or collected what was remembered. Where a damaged row has
        broken it, that is said the second time.
        """
        self._check_open()
        return await self._read_anyway(work)

    async def _read_anyway(self, work: Callable[[Source], T]) -> T:
        """Do as :meth:`_read`, while the engine is being closed too."""
        try:
            return await self._store.read(lambda tx: work(Source(self._caches, tx)))
        except BREAKS as err:
            if not is_damage(err):
                raise
            self._caches.clear()
            return await self._store.read(lambda tx: work(Source(self._caches, typed(tx))))

    async def _look_up(self, work: Callable[[Source], T]) -> T:
        """Run ``work`` from memory, in a read transaction where that does not suffice."""
        self._check_open()
        try:
            found = work(Source(self._caches))
        except MissError:
            self._looked_up(hit=False)
            return await self._read(work)
        self._looked_up(hit=True)
        return found

    def _looked_up(self, *, hit: bool) -> None:
        if self._observer is not None:
            self._observer.looked_up(hit=hit)

    async def _write(self, work: Callable[[Tx, Source], T], *, threads: tuple[str, ...] = ()) -> T:
        """Run ``work`` in a write transaction."""
        self._check_open()
        return await self._store.write(
            lambda tx: work(tx, Source(self._caches, tx, writes=True)), Expect(threads)
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed("the engine was closed")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                raise InvalidRequest(
                    "this engine is at work in another event loop: open one engine for each"
                )
            self._loop = loop
