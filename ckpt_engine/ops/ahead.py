"""Decompressing rows from both ends: most of the time of reading a long conversation goes there.

It needs no lock of the interpreter, so another thread begins with the last row while the reader
goes from the first one on. They meet once; what nobody has begun is the reader's, so that it never
waits for a thread that is busy with something else, or gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ..codec import decompress
from ..store import Batch

__all__ = ["contents"]

_WORTH = 64_000  # bytes of all bodies from which on it is worth another thread's while
_LARGE = 8_000  # bytes of a body on average: with less, the two get in each other's way
_MOST = 8_000_000  # bytes that are held beside what the reader has come to
_helper = ThreadPoolExecutor(1, "ckpt-ahead")

_Found = list[tuple[Batch, bytes]]


def contents(rows: list[Batch]) -> Iterator[tuple[Batch, bytes]]:
    """Yield each row, without its body, with its content, in order; the list is emptied.

    Raises:
        Corrupted: A row cannot be decompressed.
    """
    size = sum(len(row.body) for row in rows)
    todo = deque(rows)
    rows.clear()
    helping = _help(todo) if size >= max(_WORTH, _LARGE * len(todo)) else None
    try:
        while (opened := _opened(todo.popleft)) is not None:
            yield opened
        if helping is not None and not helping.cancel():
            found = helping.result()
            while found:
                yield found.pop()
    finally:
        todo.clear()


def _help(todo: deque[Batch]) -> Future[_Found] | None:
    try:
        return _helper.submit(_from_behind, todo)
    except RuntimeError:  # the interpreter is ending
        return None


def _from_behind(todo: deque[Batch]) -> _Found:
    found: _Found = []
    size = 0
    while size < _MOST and (opened := _opened(todo.pop)) is not None:
        found.append(opened)
        size += len(opened[1])
    return found


def _opened(pop: Callable[[], Batch]) -> tuple[Batch, bytes] | None:
    try:
        row = pop()
    except IndexError:  # the other thread may have been quicker
        return None
    return row._replace(body=b""), decompress(row.codec, row.body)  # one of both is held
