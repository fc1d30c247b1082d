"""Checkpoints inside a long step: where it was, at every interval, while its body runs.

The step itself keeps its one checkpoint, taken when it ends. What is taken before goes to a thread
of its own, branched from where the step began, so that the step's thread never holds half a step;
a session can be rewound to such a checkpoint or branched from it, and then the step begins again
with what it had added by then.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..model import SnapshotTrigger, StepCommit, new_checkpoint_id

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from ..model import CheckpointInfo, Thread
    from .context import Step, StepChanges, StepScope
    from .headers import StepHeader
    from .policy import StepPolicy

__all__ = ["Progress"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Progress:
    """Takes the ``INTERVAL`` checkpoints of one attempt at a step.

    Args:
        engine: Where they go; its configuration says whether, and how often.
        header: Of the step.
        policy: Of the step: its redaction holds here as well.
        facts: Metadata of the step's own checkpoint, to be kept with these.
    """

    def __init__(
        self,
        engine: CheckpointEngine,
        header: StepHeader,
        policy: StepPolicy,
        facts: dict[str, Any],
    ) -> None:
        self._engine = engine
        self._header = header
        self._policy = policy
        self._facts = facts
        self._began = time.monotonic()
        self._starts: list[CheckpointInfo] = []
        self._thread: Thread | None = None

    async def during(self, scope: StepScope, body: Awaitable[_T]) -> _T:
        """Wait for the body of the step, and take a checkpoint whenever the interval has passed."""
        ticking = asyncio.create_task(self._tick(scope))
        try:
            return await body
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])

    async def _tick(self, scope: StepScope) -> None:
        while True:
            await asyncio.sleep(self._engine.config.interval_seconds)
            try:
                await self._take(scope)
            except Exception:  # noqa: BLE001 - the step goes on without it
                _log.warning("no interval checkpoint of %s", self._header.thread, exc_info=True)

    async def _take(self, scope: StepScope) -> None:
        engine, header = self._engine, self._header
        if self._thread is None:
            self._starts = [await engine.get_info(parent) for parent in header.parents]
            name = f"inside-step-{header.step}-{header.id[:8]}"
            thread_id = f"{header.session}/{name}"
            self._thread = await engine.branch(self._starts[0].id, name, thread_id=thread_id)
        start, thread, step = self._starts[0], self._thread, scope.opened
        about: dict[str, Any] = {
            "trigger": SnapshotTrigger.INTERVAL,
            "node": start.next_node or "inside a step",
            "next_node": start.next_node,
            "metadata": {
                **self._facts,
                "phase": "interval",
                "inside": header.id,
                "seconds": round(time.monotonic() - self._began, 3),
            },
        }
        # Content is copied before the store is asked: the body may go on meanwhile.
        if thread.head != start.id:
            content = {} if step is None else self._content(step)
            await engine.snapshot(thread.id, **content, **about)
            return
        first = StepCommit(  # of all that the step began with: a replay has done those
            checkpoint_id=new_checkpoint_id(),
            thread_id=thread.id,
            step=max(start.step for start in self._starts) + 1,
            parents=tuple(header.parents),
            **({} if step is None else self._changed(step)),
            **about,
        )
        await engine.commit_step(first)
        self._thread = replace(thread, head=first.checkpoint_id)

    def _content(self, step: Step) -> dict[str, Any]:
        changes = step.changes()
        return {"messages": self._messages(step, changes), "state": copy.deepcopy(step.state)}

    def _changed(self, step: Step) -> dict[str, Any]:
        """Return what is the step's own of the content, as a step's commit has it."""
        changes = step.changes()
        messages = self._messages(step, changes)
        old = len(messages) - len(changes.added)
        return {
            "append": [] if changes.messages is not None else messages[old:],
            "messages": messages if changes.messages is not None else None,
            "state_set": copy.deepcopy(changes.state_set),
            "state_delete": changes.state_delete,
        }

    def _messages(self, step: Step, changes: StepChanges) -> list[Any]:
        """Return the conversation so far, what is new in it redacted."""
        messages = list(step.messages)
        if self._policy.redact is not None:
            new = 0 if changes.messages is not None else len(messages) - len(changes.added)
            messages[new:] = [self._policy.redact(message) for message in messages[new:]]
        return messages
