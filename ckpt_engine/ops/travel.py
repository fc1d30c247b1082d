"""Looking at checkpoints, and going on from older ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any, Final

from ..checks import check_count, check_name
from ..errors import CheckpointNotFound
from ..model import (
    Checkpoint,
    CheckpointInfo,
    SnapshotTrigger,
    Thread,
    TimeTravelResult,
    id_from_bytes,
    id_to_bytes,
)
from ..store import CheckpointRow, In, TagRow, ThreadRow, Tx
from ..triggers import parse_trigger
from . import heads, read
from .base import EngineBase
from .called import thread_called
from .prepare import TRIGGERS, now_ms
from .roots import make_branch
from .source import Source
from .walk import ancestors, at_most, frontier

__all__ = ["UNSET", "Travel", "Unset", "check_head", "head_of"]


class Unset:
    """The type of :data:`UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Stands for an argument that was not given, where ``None`` means something."""


def check_head(expected: Any) -> None:
    """Refuse an expected head that can never be one.

    Raises:
        InvalidRequest: It is neither a checkpoint id, ``None`` nor :data:`UNSET`.
    """
    if not isinstance(expected, Unset) and expected is not None:
        id_to_bytes(expected)


class Travel(EngineBase):
    """The verbs that read checkpoints and move heads."""

    async def get(self, checkpoint_id: str) -> Checkpoint:
        """Return the whole checkpoint, equal to what was given.

        Raises:
            InvalidRequest: This is no id.
            CheckpointNotFound: There is none of this id.
            Erased: Its content was erased.
            Corrupted: What is stored of it is damaged.

        Example:
            first = await engine.snapshot("chat", append=["hello"], state={"n": 1})
            found = await engine.get(first)
            assert (found.messages, found.state) == (["hello"], {"n": 1})
        """
        return await self._read(
            lambda source: read.checkpoint(source, source.checkpoint(checkpoint_id))
        )

    async def get_info(self, checkpoint_id: str) -> CheckpointInfo:
        """Return a checkpoint without its content.

        Raises:
            InvalidRequest: This is no id.
            CheckpointNotFound: There is none of this id.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            info = await engine.get_info(first)
            assert (info.step, info.message_count) == (0, 1)
        """
        return await self._read(
            lambda source: read.infos(source, [source.checkpoint(checkpoint_id)])[0]
        )

    async def get_latest(self, thread_id: str) -> Checkpoint:
        """Return the checkpoint that a thread goes on from.

        Raises:
            ThreadNotFound: There is no such thread.
            CheckpointNotFound: It has none yet.

        Example:
            await engine.snapshot("chat", append=["hello"])
            assert (await engine.get_latest("chat")).messages == ["hello"]
        """
        return await self._read(
            lambda source: read.checkpoint(source, head_of(source, source.thread(thread_id)))
        )

    async def rewind(
        self,
        checkpoint_id: str,
        *,
        thread_id: str | None = None,
        expected_head: str | Unset | None = UNSET,
    ) -> TimeTravelResult:
        """Let a thread go on from a checkpoint; deletes nothing, and ``undo`` takes it back.

        Args:
            checkpoint_id: A checkpoint of the thread's session.
            thread_id: The thread; the checkpoint's own when absent.
            expected_head: The head that the caller has read; anything may be the head when absent.

        Raises:
            Conflict: The head is another one than ``expected_head``.
            NotInSession: The checkpoint belongs to another session.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            await engine.snapshot("chat", append=["this went wrong"])
            result = await engine.rewind(first)
            assert (result.rewind_depth, result.checkpoint.messages) == (1, ["hello"])
            await engine.snapshot("chat", append=["better"])
            assert (await engine.get_latest("chat")).messages == ["hello", "better"]
        """
        check_head(expected_head)
        expected = None if isinstance(expected_head, Unset) else expected_head
        check = expected_head is not UNSET

        def move(tx: Tx, source: Source) -> heads.Moved:
            target = source.checkpoint(checkpoint_id)
            return heads.rewind(tx, source, target, thread_id, expected, now_ms(), check=check)

        return await self._moved(move)

    async def undo(self, thread_id: str) -> TimeTravelResult:
        """Bring back the head from before the newest rewind that was not undone.

        Raises:
            InvalidRequest: There is nothing to undo.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            second = await engine.snapshot("chat", append=["hi"])
            await engine.rewind(first)
            assert (await engine.undo("chat")).checkpoint.id == second
        """
        return await self._moved(lambda tx, source: heads.undo(tx, source, thread_id, now_ms()))

    async def _moved(self, move: Callable[[Tx, Source], heads.Moved]) -> TimeTravelResult:
        moved = await self._write(move)
        self._caches.threads.put(moved.thread.name, moved.thread)

        def result(source: Source) -> TimeTravelResult:
            found = read.checkpoint(source, moved.target)
            count = 0
            if moved.old_head is not None:
                old = source.by_cid(moved.old_head)
                count = sum(1 for _ in ancestors(source, [old], page=512))
            return TimeTravelResult(
                checkpoint=found,
                thread_id=moved.thread.name,
                rewind_depth=moved.depth,
                snapshot_count_before=count,
                can_replay=found.next_node is not None,
            )

        return await self._read(result)

    async def time_travel_to_step(self, thread_id: str, step: int) -> Checkpoint:
        """Return the newest checkpoint at or before a step on the head's own line.

        That is the line of first parents: what was merged into it, or done beside it, has steps of
        its own, which are found on its own thread, or with :meth:`frontier_at`.

        Raises:
            InvalidRequest: The step is no whole number.
            CheckpointNotFound: The line begins after that step.

        Example:
            for n in range(3):
                await engine.snapshot("chat", append=[n])
            assert (await engine.time_travel_to_step("chat", 1)).messages == [0, 1]
        """
        check_count(step, "step", least=None)

        def find(source: Source) -> Checkpoint:
            thread = source.thread(thread_id)
            row = at_most(source, head_of(source, thread), step)
            if row is not None:
                return read.checkpoint(source, row)
            whose = thread_called(source, thread)
            raise CheckpointNotFound(f"{whose} has no checkpoint at or before step {step}")

        return await self._read(find)

    async def list_time_travel_points(
        self,
        thread_id: str,
        *,
        limit: int | None = 100,
        before: int | None = None,
        trigger: SnapshotTrigger | None = None,
        tag: str | None = None,
    ) -> list[CheckpointInfo]:
        """Return the checkpoints on the head's path, newest first, without their content.

        Args:
            thread_id: The thread.
            limit: So many, and what else has the last one's step, as there may be after a merge;
                all when ``None``.
            before: Only steps below this one: the last step of a page gives the next page.
            trigger: Only those taken for this reason.
            tag: Only those with this tag.

        Example:
            for n in range(5):
                await engine.snapshot("chat", append=[n])
            page = await engine.list_time_travel_points("chat", limit=2)
            assert [point.step for point in page] == [4, 3]
            rest = await engine.list_time_travel_points("chat", before=page[-1].step)
            assert [point.step for point in rest] == [2, 1, 0]
        """
        check_count(limit, "limit", optional=True)
        check_count(before, "before", least=None, optional=True)
        if tag is not None:
            tag = check_name(tag, "a tag")
        wanted = TRIGGERS.index(parse_trigger(trigger)) if trigger is not None else None

        def find(source: Source) -> list[CheckpointInfo]:
            thread = source.thread(thread_id)
            if thread.head is None:
                return []
            tagged = _tagged(source, thread, tag) if tag is not None else None
            rows = (
                row
                for row in ancestors(source, [source.by_cid(thread.head)], page=128)
                if (before is None or row.step < before)
                and (wanted is None or row.trigger == wanted)
                and (tagged is None or row.cid in tagged)
            )
            return read.infos(source, _page(rows, limit))

        return await self._read(find)

    async def branch(
        self, from_checkpoint_id: str, name: str, *, thread_id: str | None = None
    ) -> Thread:
        """Make a new thread that goes on from a checkpoint; nothing is copied.

        Args:
            from_checkpoint_id: Where it begins.
            name: Its name, unique in the session.
            thread_id: Its id; ``session/name`` when absent. With an id the same request again
                returns the thread that the first one made.

        Raises:
            CheckpointNotFound: There is no such checkpoint.
            NameTaken: The session has a thread of this name, or there is one of this id.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            branch = await engine.branch(first, "cheap")
            await engine.snapshot(branch.id, append=["hi, for less"])
            assert (await engine.get_latest(branch.id)).messages == ["hello", "hi, for less"]
            assert (await engine.get_latest("chat")).messages == ["hello"]
        """

        def make(tx: Tx, source: Source) -> ThreadRow:
            origin = source.checkpoint(from_checkpoint_id)
            return make_branch(tx, source, origin, name, thread_id, now_ms())

        row = await self._write(make)
        return (await self._read(lambda source: read.threads(source, [row])))[0]

    async def frontier_at(self, thread_id: str, step: int) -> tuple[str, ...]:
        """Return what was done on the thread's path up to ``step`` and nothing of it follows.

        On a straight line that is one checkpoint, in a parallel group several, in step order.

        Raises:
            InvalidRequest: That is no step.
            CheckpointNotFound: The path begins after that step.

        Example:
            first = await engine.snapshot("chat")
            assert await engine.frontier_at("chat", 0) == (first,)
        """
        check_count(step, "step", least=None)

        def find(source: Source) -> tuple[str, ...]:
            rows = frontier(source, source.thread(thread_id), step)
            return tuple(id_from_bytes(row.id) for row in rows)

        return await self._read(find)

    async def path(self, checkpoint_id: str, *, limit: int | None = None) -> list[CheckpointInfo]:
        """Return a checkpoint and all its ancestors, through every parent, oldest first.

        Args:
            checkpoint_id: Where the path ends.
            limit: Only so many of the newest.

        Example:
            ids = [await engine.snapshot("chat") for _ in range(3)]
            assert [info.id for info in await engine.path(ids[-1])] == ids
        """
        check_count(limit, "limit", optional=True)

        def find(source: Source) -> list[CheckpointInfo]:
            rows = ancestors(source, [source.checkpoint(checkpoint_id)], page=256)
            return read.infos(source, list(islice(rows, limit))[::-1])

        return await self._read(find)


def _page(rows: Iterator[CheckpointRow], limit: int | None) -> list[CheckpointRow]:
    """Return the first so many rows, and those after them that have the last one's step."""
    page = list(islice(rows, limit))
    if page:
        last = page[-1].step
        page += takewhile(lambda row: row.step == last, rows)
    return page


def head_of(source: Source, thread: ThreadRow) -> CheckpointRow:
    """Return a thread's head.

    Raises:
        CheckpointNotFound: It has none yet.
    """
    if thread.head is None:
        raise CheckpointNotFound(f"thread {thread.name!r} has no checkpoint yet")
    return source.by_cid(thread.head)


def _tagged(source: Source, thread: ThreadRow, name: str) -> set[int]:
    threads = [row.pk for row in source.tx.find(ThreadRow, session=thread.session)]
    return {t.checkpoint for t in source.tx.find(TagRow, thread=In(threads), name=name)}
