"""One grouped writer: what many tasks write at once shares a transaction.

Writes of all tasks go through one queue. Whoever is in it when the connection becomes free shares
one transaction, run as one function on the connection's own thread: a statement at a time, each
would cost a hop between threads.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import CheckpointError, EngineClosed, StoreBusy, StoreUnavailable
from ..store import Expect, Store, Tx
from .transaction import SqlTx

__all__ = ["GroupedStore", "Write", "run_group"]

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Write:
    """What a task waits for."""

    work: Callable[[Tx], Any]
    expect: Expect | None
    done: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = field(default=None)


class GroupedStore(Store):
    """Gathers writes, and runs them on a thread of its own; a backend says how they commit."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._queue: deque[Write] = deque()
        self._writing = ThreadPoolExecutor(1, "ckpt-write")
        self._running = False
        self._idle = asyncio.Event()
        self._closed = False

    async def _on_writer(self, run: Callable[[], T]) -> T:
        """Run a function on the thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, run)

    @abstractmethod
    def _commit_together(self, group: list[Write], *, alone: bool) -> None:
        """Commit a group in one transaction, by way of :func:`run_group`.

        Args:
            group: The writes; one that failed without a change has its error set.
            alone: It is one write, whose group failed.

        Raises:
            StoreBusy: Another process held the lock for too long.
            StoreUnavailable: The database cannot be written.
            Exception: One of the writes failed, and the transaction with it.
        """

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close every connection."""

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed("the engine was closed")

    async def write(self, work: Callable[[Tx], T], expect: Expect | None = None) -> T:
        self._check_open()
        loop = asyncio.get_running_loop()
        write = Write(work, expect, loop.create_future())
        self._queue.append(write)
        if not self._running and len(self._queue) == 1:
            loop.call_soon(self._begin)  # after those who are ready to write as well
        answer: T = await write.done
        return answer

    def _begin(self) -> None:
        """Start to commit what is queued; the next group begins when this one has ended."""
        if self._running:
            return
        group = [self._queue.popleft() for _ in range(min(len(self._queue), self._group))]
        # without those whose callers were cancelled before it began
        group = [write for write in group if not write.done.done()]
        if group:
            self._running = True
            self._idle.clear()
            self._writing.submit(self._run, group, asyncio.get_running_loop())
        elif self._queue:
            self._begin()
        else:
            self._idle.set()

    def _run(self, group: list[Write], loop: asyncio.AbstractEventLoop) -> None:
        """Commit a group; on the thread that writes."""
        try:
            self._commit_group(group)
        except Exception as err:  # noqa: BLE001  (whatever it is, it goes to the callers)
            for write in group:
                write.error = write.error or err
        loop.call_soon_threadsafe(self._end, group)

    def _end(self, group: list[Write]) -> None:
        """Tell the callers, and go on with those who came meanwhile."""
        self._running = False
        if self.observer is not None and (done := sum(w.error is None for w in group)):
            self.observer.committed(done)
        for write in group:
            if write.done.done():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.answer)
        self._begin()

    def _commit_group(self, group: list[Write]) -> None:
        """Commit the group in one transaction; each by itself where that fails because of one."""
        try:
            self._commit_together(group, alone=False)
        except (StoreBusy, StoreUnavailable) as err:
            for write in group:
                write.error = err
        except Exception:  # noqa: BLE001
            for write in group:
                self._commit_alone(write)

    def _commit_alone(self, write: Write) -> None:
        try:
            self._commit_together([write], alone=True)
        except _SpoiltError as err:
            write.error = err.error
        except Exception as err:  # noqa: BLE001
            write.error = err

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._begin()
        await self._idle.wait()
        await self._disconnect()
        self._writing.shutdown()


class _SpoiltError(Exception):
    """A write failed after it had changed something: the transaction must be begun anew."""

    def __init__(self, error: CheckpointError) -> None:
        super().__init__(error)
        self.error = error


def run_group(tx: SqlTx, group: list[Write]) -> None:
    """Run the work of a group; what fails without having changed anything is left out."""
    for write in group:
        write.error = None
        before = tx.changes
        try:
            write.answer = write.work(tx)
        except CheckpointError as err:
            if tx.changes != before:
                raise _SpoiltError(err) from err
            write.error = err
