"""What a step sees: the agent's messages and state, and where to put what it adds."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest
from .headers import StepHeader

__all__ = [
    "NotAStep",
    "SentScope",
    "Step",
    "StepChanges",
    "StepScope",
    "current_scope",
    "current_step",
]


class NotAStep(InvalidRequest, LookupError):
    """The code asked for the step context where there is none."""

    kind = "not-a-step"


@dataclass(frozen=True)
class StepChanges:
    """What a step has added and changed, to be committed with its result.

    Attributes:
        added: New messages.
        messages: The whole conversation instead, where the step has rewritten it.
        state_set: Keys set or changed, with their values.
        state_delete: Keys deleted.
        next_node: What comes next.
        metadata: Small facts.
    """

    added: list[Any] = field(default_factory=list)
    messages: list[Any] | None = None
    state_set: dict[str, Any] = field(default_factory=dict)
    state_delete: list[str] = field(default_factory=list)
    next_node: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


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
        self._rewritten = False
        self._before = copy.deepcopy(state)

    def append(self, *messages: Any) -> None:
        """Add messages to the conversation; this step sees them at once."""
        self.added.extend(messages)
        self.messages.extend(messages)

    def replace(self, messages: Iterable[Any]) -> None:
        """Put another conversation in the place of this one, such as a shorter one.

        What both begin with is stored once; the old one stays in the checkpoints before.
        """
        self.messages = list(messages)
        self._rewritten = True

    def changes(self) -> StepChanges:
        """Return what has been added and changed so far."""
        before, after = self._before, self.state
        missing = object()
        return StepChanges(
            added=self.added,
            messages=self.messages if self._rewritten else None,
            state_set={k: v for k, v in after.items() if before.get(k, missing) != v},
            state_delete=[k for k in before if k not in after],
            next_node=self.next_node,
            metadata=self.metadata,
        )


class StepScope:
    """One attempt at a step; loads the agent's memory when it is first asked for."""

    def __init__(self, header: StepHeader, load: Callable[[], Awaitable[Step]]) -> None:
        self.header = header
        self._step: Step | None = None
        self._changes: StepChanges | None = None
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether it was made in this process: a fork inherits what was current before it."""
        return self._pid == os.getpid()

    @property
    def opened(self) -> Step | None:
        """The step, if the body has asked for it."""
        return self._step

    @property
    def changes(self) -> StepChanges:
        """What the body added and changed; nothing if it never asked for the step."""
        if self._changes is not None:
            return self._changes
        return self._step.changes() if self._step else StepChanges()

    @changes.setter
    def changes(self, changes: StepChanges) -> None:
        self._changes = changes

    async def open(self) -> Step:
        """Return the step, the same one each time."""
        async with self._lock:
            if self._step is None:
                self._step = await self._load()
            return self._step

    def open_from_thread(self) -> Step:
        """Return the step to code that runs in no event loop."""
        return asyncio.run_coroutine_threadsafe(self.open(), self._loop).result()


@dataclass(frozen=True)
class SentScope:
    """A step that was loaded in the worker and sent to another process with its body."""

    step: Step
    here = True

    async def open(self) -> Step:
        """Return the step."""
        return self.step

    def open_from_thread(self) -> Step:
        """Return the step."""
        return self.step


current_scope: ContextVar[StepScope | SentScope | None] = ContextVar("ckpt_step", default=None)


class _CurrentStep:
    """Call and await it in an async activity; use ``from_thread`` in a sync one."""

    async def __call__(self) -> Step:
        """Return the context of the step that is running.

        Raises:
            NotAStep: This is not an activity of a workflow whose worker has the plugin.
        """
        return await _scope().open()

    def from_thread(self) -> Step:
        """Return the context of the step that is running, from a sync activity.

        In a thread pool it is loaded when it is first asked for; in a process pool it came with
        the activity, and goes back with its result.

        Raises:
            NotAStep: As above.
        """
        return _scope().open_from_thread()


current_step = _CurrentStep()


def _scope() -> StepScope | SentScope:
    scope = current_scope.get()
    if scope is None or not scope.here:
        raise NotAStep(
            "there is no step here: call this in an activity, async or sync, of a workflow whose "
            "client was connected with plugins=[CheckpointPlugin(...)]"
        )
    return scope
