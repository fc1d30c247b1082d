"""One grouped writer: what many tasks write at once shares a transaction.

Writes of all tasks go through one queue. Whoever is in it when the connection becomes free shares
one transaction, run as one function on the connection's own thread: a statement at a time, each
would cost a hop between threads.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ..errors import CheckpointError, EngineClosed, StoreBusy, StoreUnavailable
from ..store import Expect, Store, Tx
from .crowd import Crowd
from .transaction import SqlTx
from .worker import Worker, tell

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
        self._crowd = Crowd(time.monotonic(), time.process_time())
        self._writing = Worker("ckpt-write")
        self._closed = False
        self._alone = True  # whether the last write shared its transaction with no other

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
        done: asyncio.Future[T] = loop.create_future()
        self._queue.append(Write(work, expect, done))
        if len(self._queue) > 1:
            pass  # the thread has not yet seen the one before
        elif self._alone:
            self._wake()
        else:
            loop.call_soon(self._wake)  # after those who are ready to write as well
        return await done

    def _wake(self) -> None:
        self._writing.call(self._commit_queued)

    def _commit_queued(self) -> None:
        """Commit what is queued, group by group; on the thread that writes."""
        while self._queue:
            if pause := self._crowd.pause(len(self._queue), time.monotonic()):
                time.sleep(pause)
            group = [self._queue.popleft() for _ in range(min(len(self._queue), self._group))]
            # without those whose callers were cancelled before it began
            group = [write for write in group if not write.done.done()]
            if not group:
                continue
            self._alone = len(group) == 1
            try:
                self._commit_group(group)
            except BaseException as err:  # noqa: BLE001  (whatever it is, it goes to the callers)
                for write in group:
                    write.error = write.error or err
            tell(group[0].done.get_loop(), partial(self._deliver, group))
            threads = (name for write in group if write.expect for name in write.expect.threads)
            self._crowd.note(threads, len(group), time.monotonic(), time.process_time())

    def _deliver(self, group: list[Write]) -> None:
        """Tell the callers; on their loop."""
        if self.observer is not None and (done := sum(w.error is None for w in group)):
            self.observer.committed(done)
        for write in group:
            if write.done.done():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.answer)

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
        self._wake()
        await self._disconnect()  # behind the writes that were begun
        self._writing.stop()


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
