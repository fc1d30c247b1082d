"""One grouped writer: what many tasks write at once shares a transaction.

Writes of all tasks go through one queue. Whoever is in it when the connection becomes free shares
one transaction, run as one function on the connection's own thread: a statement at a time, each
would cost a hop between threads. What one task writes alone may be committed without any
(:mod:`.in_place`).
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from ..errors import CheckpointError, EngineClosed, StoreBusy, StoreUnavailable
from ..store import Expect, Store, Tx
from .crowd import Crowd
from .in_place import InPlace
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

    def __init__(self, group: int, *, in_place: bool = False) -> None:
        self._group = group
        self._in_place = InPlace() if in_place else None
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

    def _commit_at_once(self, write: Write) -> None:
        """Do as :meth:`_commit_together`, but wait for no other process.

        Raises:
            Exception: Nothing was committed.
        """
        raise NotImplementedError

    def _write_back(self) -> None:
        """Make the log short, between two commits; does not raise."""

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
        write = Write(work, expect, done)
        if self._in_place is not None and self._committed_in_place(write, self._in_place):
            if self._in_place.turn_is_due(time.monotonic()):
                await asyncio.sleep(0)
            if write.error is not None:
                raise write.error
            return cast("T", write.answer)
        self._queue.append(write)
        if len(self._queue) > 1:
            pass  # the thread has not yet seen the one before
        elif self._alone:
            self._wake()
        else:
            loop.call_soon(self._wake)  # after those who are ready to write as well
        return await done

    def _committed_in_place(self, write: Write, in_place: InPlace) -> bool:
        """Commit a write on the loop's own thread, where that is best and nothing in the way."""
        begun = time.monotonic()
        if self._queue or not in_place.fits(write.expect, begun):
            return False
        # whatever a signal's handler raises, between any two lines of this: the turn ends
        try:
            if not self._writing.take_turn():
                return False
            self._commit_at_once(write)
        except (CheckpointError, _SpoiltError):
            in_place.failed()  # on its thread it is waited for, or said what it was
            return False
        finally:
            try:  # noqa: SIM105  (another signal might come in the midst of suppress)
                self._writing.end_turn()
            except RuntimeError:
                pass  # it was not taken
        self._observe([write])
        now = time.monotonic()
        if in_place.made(write.expect, now - begun, now):
            self._writing.call(self._write_back)
        return True

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
            begun = time.monotonic()
            try:
                self._commit_group(group)
            except BaseException as err:  # noqa: BLE001  (whatever it is, it goes to the callers)
                for write in group:
                    write.error = write.error or err
            tell(group[0].done.get_loop(), partial(self._deliver, group))
            threads = (name for write in group if write.expect for name in write.expect.threads)
            now = time.monotonic()
            self._crowd.note(threads, len(group), now, time.process_time())
            if self._in_place is not None:
                self._in_place.note([write.expect for write in group], now - begun, now)

    def _deliver(self, group: list[Write]) -> None:
        """Tell the callers; on their loop."""
        self._observe(group)
        for write in group:
            if write.done.done():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.answer)

    def _observe(self, group: list[Write]) -> None:
        if self.observer is not None and (done := sum(w.error is None for w in group)):
            self.observer.committed(done)

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
