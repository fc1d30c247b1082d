"""Erasing content for good."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from ..checks import check_name
from ..config import SnapshotConfig
from ..errors import InvalidRequest, Retryable, ThreadNotFound
from ..reports import ForgetReport
from ..store import Meta, Store, ThreadRow, Tx
from .collecting import Collecting
from .erasing import Erasure, erase
from .prepare import now_ms
from .source import Caches, Source
from .tombstones import is_erased, thread_key

__all__ = ["Forgetting"]

_log = logging.getLogger("ckpt_engine")
_PENDING = "erasure_pending"
_PAUSE = 0.05  # seconds between attempts to overwrite what was erased


class Forgetting(Collecting):
    """The verb that erases."""

    def __init__(self, store: Store, config: SnapshotConfig) -> None:
        super().__init__(store, config)
        self._unfinished = True  # as far as is known: another process may have left it so

    async def forget(
        self, *, thread_id: str | None = None, session_id: str | None = None
    ) -> ForgetReport:
        """Erase content, leaving no byte of it in the database, and tombstones in its place.

        A thread goes with every thread that began in it, at any depth; a root with its session.
        What an ancestor or another thread has of it stays and is reported: what the branch began
        with or was rewound to, a merge into another thread, a large value that other threads have
        as well. Afterwards ``get`` of an erased checkpoint raises ``Erased``, and so does a
        snapshot on an erased thread, until ``create_thread`` takes its name into use again. The
        database file is rewritten for it, which holds up writers for a second or so for every
        100 MB.

        Args:
            thread_id: This thread and its descendants.
            session_id: The whole session, by its root thread.

        Returns:
            What is gone, what stays and why. It is ``pending`` where a reader of the database held
            old pages for longer than ``busy_timeout``: the content is out of reach, but old bytes
            may still be in the file. Upkeep goes on trying, and so does forgetting again.

        Raises:
            InvalidRequest: Neither or both were given.
            ThreadNotFound: There is no such thread or session, and there never was one.

        Example:
            secret = await engine.snapshot("jane", append=["my address is ..."])
            report = await engine.forget(session_id="jane")
            assert report.erased == (secret,)
        """
        name = thread_id if thread_id is not None else session_id
        if name is None or (thread_id is not None and session_id is not None):
            raise InvalidRequest("give thread_id or session_id, one of them")
        erasure = await self._store_erase(name, total=session_id is not None)
        self._caches.clear()
        pending = self._unfinished = not await self._overwrite(self.config.busy_timeout)
        if pending:
            self._begin_upkeep()
        if erasure is None:
            return ForgetReport(erased=(), pending=pending)
        return ForgetReport(erased=erasure.erased, kept=erasure.kept, pending=pending)

    async def _store_erase(self, name: str, *, total: bool) -> Erasure | None:
        """Erase in one transaction; return ``None`` where that was done before."""
        self._check_open()
        check_name(name, "a thread id")
        at = now_ms()

        def work(tx: Tx) -> Erasure | None:
            thread = tx.thread(name)
            if thread is None:
                if not is_erased(tx, thread_key(name)):
                    raise ThreadNotFound(f"there is no thread {name!r}")
                return None
            _check_root(thread, total=total)
            source = Source(Caches(8_000_000), tx, writes=True)
            erasure = erase(tx, source, thread, total=total, at=at)
            if tx.one(Meta, key=_PENDING) is None:
                tx.insert(Meta(_PENDING, str(at)))
            return erasure

        return await self._store.write(work)

    async def _overwrite(self, seconds: float) -> bool:
        """Leave no old byte behind; return whether that was done in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                await self._store.reclaim(erase=True)
                await self._store.write(partial(_done))
            except Retryable as err:
                if time.monotonic() >= deadline:
                    _log.warning("old bytes of what was forgotten are still in the file: %s", err)
                    return False
                await asyncio.sleep(_PAUSE)
            else:
                return True

    async def _tidy(self) -> None:
        await super()._tidy()
        if self._unfinished and not self._closed:
            pending = await self._store.read(lambda tx: tx.one(Meta, key=_PENDING))
            self._unfinished = pending is not None and not await self._overwrite(0)


def _check_root(thread: ThreadRow, *, total: bool) -> None:
    if total and thread.session != thread.pk:
        raise InvalidRequest(
            f"{thread.name!r} is a thread, not a session (its root thread's id): give thread_id"
        )


def _done(tx: Tx) -> None:
    tx.delete(Meta, key=_PENDING)
