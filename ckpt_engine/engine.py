"""The checkpoint engine: every verb on one object."""

from __future__ import annotations

from types import TracebackType

from . import tree
from .capture import snapshot_on, snapshot_scope
from .model import CheckpointDiff, CheckpointTree
from .ops.merging import Merging
from .ops.registry import Registry
from .ops.travel import UNSET, Travel
from .ops.verifying import Verifying

__all__ = ["UNSET", "CheckpointEngine"]


class CheckpointEngine(Merging, Travel, Registry, Verifying):
    """Time travel for agents; open one with :func:`~ckpt_engine.create_checkpoint_engine`."""

    async def __aenter__(self) -> CheckpointEngine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what was begun and let go of the store; may be called twice."""
        if not self._closed:
            self._closed = True
            await self._end_upkeep()
            await self._store.close()

    async def get_checkpoint_tree(self, thread_id: str) -> CheckpointTree:
        """Return all checkpoints and links of a thread's whole session, ready to draw.

        Args:
            thread_id: The session, or any thread of it.
        """
        return await self._read(lambda source: tree.tree(source, thread_id))

    async def diff(self, a: str, b: str) -> CheckpointDiff:
        """Return how checkpoint ``b`` differs from ``a``."""
        return await self._read(lambda source: tree.diff(source, a, b))

    snapshot_on = snapshot_on
    snapshot_scope = snapshot_scope
