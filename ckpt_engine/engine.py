"""The checkpoint engine: every verb on one object."""

from __future__ import annotations

import time
from types import TracebackType

from . import tree
from .decorator import snapshot_on
from .model import CheckpointDiff, CheckpointTree
from .ops.merging import Merging
from .ops.registry import Registry
from .ops.travel import UNSET, Travel
from .ops.verifying import Verifying
from .scopes import snapshot_scope

__all__ = ["UNSET", "CheckpointEngine"]

_CLOSING = 0.5
"""Seconds after which closing begins nothing more of what can wait for the next time."""


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
        """Finish what was begun and let go of the store; may be called twice.

        Example:
            await engine.close()
        """
        if not self._closed:
            self._closed = True
            await self._end_upkeep(time.monotonic() + _CLOSING)
            await self._store.close()

    async def get_checkpoint_tree(self, thread_id: str) -> CheckpointTree:
        """Return all checkpoints and links of a thread's whole session, ready to draw.

        Args:
            thread_id: The session, or any thread of it.

        Example:
            first = await engine.snapshot("chat")
            branch = await engine.branch(first, "cheap")
            await engine.snapshot(branch.id)
            tree = await engine.get_checkpoint_tree("chat")
            assert [(edge.parent, edge.kind) for edge in tree.edges] == [(first, "fork")]
        """
        return await self._read(lambda source: tree.tree(source, thread_id))

    async def diff(self, a: str, b: str) -> CheckpointDiff:
        """Return how checkpoint ``b`` differs from ``a``.

        Example:
            a = await engine.snapshot("chat", append=["hello"], state={"n": 1})
            b = await engine.snapshot("chat", append=["hi"], state={"n": 2})
            diff = await engine.diff(a, b)
            assert (diff.messages_added, diff.state[0].key) == (("hi",), "n")
        """
        return await self._read(lambda source: tree.diff(source, a, b))

    snapshot_on = snapshot_on
    snapshot_scope = snapshot_scope
