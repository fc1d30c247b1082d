"""A thread that runs functions in turn, for what owns a connection.

An executor would do as well; but each commit of an agent's step passes through here, and its work
items, semaphore and futures of both kinds took longer than the wake-up itself.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker", "tell"]

T = TypeVar("T")
_Todo = SimpleQueue[Callable[[], object] | None]


class Worker:
    """Runs functions on a thread of its own, one after the other.

    The thread ends with :meth:`stop`, when nobody holds the worker any more, or, after what it has
    in hand, when the interpreter ends.
    """

    def __init__(self, name: str) -> None:
        self._todo: _Todo = SimpleQueue()
        self._turn = threading.RLock()  # held while a function runs
        given = (self._todo, self._turn)
        # not awaited by the interpreter before it has told `_stop`
        thread = threading.Thread(target=_serve, args=given, name=name, daemon=True)
        thread.start()
        self.stop = weakref.finalize(self, _stop, self._todo, thread)
        """End the thread after what it was given; may be called twice."""
        self.end_turn = self._turn.release
        """Let the thread go on; a ``RuntimeError`` where the turn is not the caller's."""
        self.call = self._todo.put
        """Run a function that does not raise, after those that were given before."""

    def take_turn(self) -> bool:
        """Keep the thread from running anything until ``end_turn``, if it has nothing to do.

        Returns:
            Whether it had nothing to do: what it works with is the caller's by then.
        """
        return self._todo.empty() and self._turn.acquire(blocking=False)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what a function returns, or raise what it raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.call(partial(_answer, work, done))
        return await done


def _serve(todo: _Todo, turn: threading.RLock) -> None:
    while (work := todo.get()) is not None:
        with turn:
            work()
        del work  # hold on to nothing while waiting


def _stop(todo: _Todo, thread: threading.Thread) -> None:
    todo.put(None)
    if thread is not threading.current_thread():
        thread.join()


def _answer(work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
    try:
        say: partial[None] = partial(_settle, done, work(), None)
    except BaseException as err:  # noqa: BLE001  (whatever it is, it goes to the caller)
        say = partial(_settle, done, None, err)
    tell(done.get_loop(), say)


def _settle(done: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(answer)


def tell(loop: asyncio.AbstractEventLoop, say: Callable[[], object]) -> None:
    """Run a function on a loop, from another thread; nobody hears it if that loop has ended."""
    try:  # noqa: SIM105  (suppress takes a microsecond, while agents wait)
        loop.call_soon_threadsafe(say)
    except RuntimeError:
        pass
