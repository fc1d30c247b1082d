"""What a step sees: the agent's messages and state, and where to put what it adds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from ..errors import InvalidRequest
from .contract import StepHeader

__all__ = ["NotAStep", "Step", "StepScope", "current_scope", "current_step"]


class NotAStep(InvalidRequest, LookupError):
    """The code asked for the step context where there is none."""

    kind = "not-a-step"


class Step:
    """The agent's memory as one step sees it; changes are committed with the step's result.

    Attributes:
        checkpoint_id: Id that this step's checkpoint will have.
        session_id: The session.
        thread_id: The thread.
        step: Its number.
        messages: The conversation so far; read it, and add to it with :meth:`append`.
        state: Everything else the agent knows. Keys that are set, changed or deleted here are
            committed.
        next_node: Set it to say what the agent does next.
        metadata: Small JSON facts to keep with the checkpoint; ``summary`` among them is the one
            line that lists show.
    """

    def __init__(self, header: StepHeader, messages: list[Any], state: dict[str, Any]) -> None:
        self.checkpoint_id = header.id
        self.session_id = header.session
        self.thread_id = header.thread
        self.step = header.step
        self.messages = messages
        self.state = state
        self.next_node: str | None = None
        self.metadata: dict[str, Any] = {}
        self.added: list[Any] = []
        self._before = copy.deepcopy(state)

    def append(self, *messages: Any) -> None:
        """Add messages to the conversation; this step sees them at once."""
        self.added.extend(messages)
        self.messages.extend(messages)

    def state_changes(self) -> tuple[dict[str, Any], list[str]]:
        """Return the keys set or changed, with their values, and the keys deleted."""
        before, after = self._before, self.state
        missing = object()
        changed = {k: v for k, v in after.items() if before.get(k, missing) != v}
        return changed, [k for k in before if k not in after]


class StepScope:
    """One attempt at a step; loads the agent's memory when it is first asked for."""

    def __init__(self, header: StepHeader, load: Callable[[], Awaitable[Step]]) -> None:
        self.header = header
        self.step: Step | None = None
        self.loop = asyncio.get_running_loop()
        self._load = load
        self._lock = asyncio.Lock()

    async def open(self) -> Step:
        """Return the step, the same one each time."""
        async with self._lock:
            if self.step is None:
                self.step = await self._load()
            return self.step


current_scope: ContextVar[StepScope | None] = ContextVar("ckpt_step", default=None)


class _CurrentStep:
    """Call and await it in an async activity; use ``from_thread`` in a sync one."""

    async def __call__(self) -> Step:
        """Return the context of the step that is running.

        Raises:
            NotAStep: This is not an activity of a workflow whose worker has the plugin.
        """
        return await _scope().open()

    def from_thread(self) -> Step:
        """Return the context of the step that is running, from a threaded sync activity.

        Raises:
            NotAStep: As above, or this is a process-pool activity, which has no step context.
        """
        scope = _scope()
        return asyncio.run_coroutine_threadsafe(scope.open(), scope.loop).result()


current_step = _CurrentStep()


def _scope() -> StepScope:
    scope = current_scope.get()
    if scope is None:
        raise NotAStep(
            "there is no step here: call this in an activity (async, or sync in a thread pool) of "
            "a workflow whose client was connected with plugins=[CheckpointPlugin(...)]"
        )
    return scope
