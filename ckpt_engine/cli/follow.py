"""Follow a session live: each new checkpoint once, in the order of its commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from ..model import CheckpointInfo, Thread

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["Follower"]

_T = TypeVar("_T")


class Follower:
    """Shows the checkpoints of a session as they are committed, by whatever process.

    Args:
        engine: The checkpoints.
        workflow_id: The session's address; it may not have begun yet.
        show: Called once for each checkpoint, with its thread.
    """

    def __init__(
        self,
        engine: CheckpointEngine,
        workflow_id: str,
        show: Callable[[CheckpointInfo, Thread], None],
    ) -> None:
        self._engine = engine
        self._workflow_id = workflow_id
        self._show = show
        self._seen: dict[str, CheckpointInfo] = {}
        self._pause = 0.1
        self._past: str | None = None

    @property
    def seen(self) -> list[CheckpointInfo]:
        """Everything shown so far, in order."""
        return list(self._seen.values())

    async def await_another(self) -> None:
        """Leave out the session that the workflow id has now: another one is about to begin."""
        found = await self._engine.find_run(self._workflow_id)
        self._past = found and found[0].session_id

    async def skip(self) -> None:
        """Show nothing of what is there already."""
        show, self._show = self._show, lambda info, thread: None
        await self.poll()
        self._show = show

    async def poll(self) -> None:
        """Show what is new."""
        began = time.monotonic()
        found = await self._engine.find_run(self._workflow_id)
        if found is not None and found[0].session_id != self._past:
            tree = await self._engine.get_checkpoint_tree(found[0].id)
            threads = {thread.id: thread for thread in tree.threads}
            for node in tree.nodes:
                if node.info.id not in self._seen:
                    self._seen[node.info.id] = node.info
                    self._show(node.info, threads[node.info.thread_id])
        # A long session takes longer to read: look less often, so that following stays cheap.
        self._pause = max(0.1, 10 * (time.monotonic() - began))

    async def until(self, done: Awaitable[_T]) -> _T:
        """Show what is new until ``done`` is, and return its result."""
        task = asyncio.ensure_future(done)
        try:
            while not task.done():
                await self.poll()
                await asyncio.wait({task}, timeout=self._pause)
        finally:
            if not task.done():
                task.cancel()
        await self.poll()
        return await task
