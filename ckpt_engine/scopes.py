"""Checkpoints around a piece of work: on entering, on leaving, and every so often in between."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from .checks import check_list, check_name, check_object, check_text, checked_tags
from .errors import InvalidRequest, TooLarge, Unstorable
from .model import SnapshotTrigger
from .triggers import interval_wait, parse_trigger

if TYPE_CHECKING:
    from .engine import CheckpointEngine

__all__ = ["Scope", "current_scope", "snapshot_scope"]

_log = logging.getLogger(__name__)
_order = count()  # of what is appended

Live = Sequence[Any] | Callable[[], Sequence[Any]] | None
"""A conversation, or a function that returns it, read anew for each checkpoint."""

LiveState = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None
"""A state, or a function that returns it, read anew for each checkpoint."""


class _Pending(NamedTuple):
    """A message that no checkpoint has yet, and the scope it was appended to."""

    scope: Scope
    message: Any


class Scope:
    """The work between an enter and an exit checkpoint.

    Attributes:
        thread_id: The thread that its checkpoints are taken on.
        name: What its checkpoints call their node.
        result: What the exit checkpoint stores as the step's result; set it inside.
        checkpoints: Ids of the checkpoints taken so far, oldest first.
        parent: The scope around this one, as long as that is open.
    """

    def __init__(
        self,
        engine: CheckpointEngine,
        thread_id: str,
        *,
        trigger: SnapshotTrigger,
        name: str | None,
        messages: Live,
        state: LiveState,
        tags: Sequence[str],
        metadata: Mapping[str, Any],
        parent: Scope | None,
    ) -> None:
        self.engine = engine
        self.thread_id = thread_id
        self.name = name
        self.result: Any = None
        self.checkpoints: list[str] = []
        self._around = parent
        self.interval: float | None = None
        self.newest = time.monotonic()
        self._trigger = trigger
        self._messages = messages
        self._state = state
        self._tags = tags
        self._metadata = metadata
        self._ended = False
        # scopes within each other on one thread take turns: what one commits is not the next one's
        outermost = self._line()[0]
        self._turn: asyncio.Lock = asyncio.Lock() if outermost is self else outermost._turn
        self._pending: dict[int, _Pending] = {} if outermost is self else outermost._pending
        self._open: list[Scope] = [] if outermost is self else outermost._open

    @property
    def parent(self) -> Scope | None:
        """The scope around this one, as long as that is open."""
        self._around = _still_open(self._around)  # what has ended is let go of
        return self._around

    @property
    def depth(self) -> int:
        """How many scopes are around this one."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def _called(self) -> str:
        return self.name or f"a scope of thread {self.thread_id!r}"

    def append(self, *messages: Any) -> None:
        """Add messages to the conversation with the next checkpoint of this scope's thread.

        Whichever scope takes it, of those within each other: what is appended first stands first.

        Raises:
            InvalidRequest: The scope was given ``messages``, which are read anew each time, or it
                has ended.
        """
        if self._messages is not None:
            raise InvalidRequest("this scope reads its messages= anew: append to those instead")
        if self._ended:
            raise InvalidRequest(f"{self._called} has ended: nothing would commit these messages")
        for message in messages:
            self._pending[next(_order)] = _Pending(self, message)

    async def snapshot(
        self, trigger: SnapshotTrigger | None = None, *, phase: str = "inside", **given: Any
    ) -> str | None:
        """Take a checkpoint now; return its id, or ``None`` when its trigger is not enabled.

        Args:
            trigger: Why; the scope's own trigger when absent.
            phase: Goes into ``metadata["phase"]``.
            given: Anything else that the engine's ``snapshot`` takes; ``append`` comes after what
                was appended so far, and ``messages`` leaves that to the next checkpoint.
        """
        if self._ended:
            raise InvalidRequest(f"{self._called} has ended: take its engine's snapshot instead")
        check_text(phase, "phase")
        trigger = self._trigger if trigger is None else parse_trigger(trigger)
        return await self._taken(trigger, phase, given)

    async def _taken(
        self, trigger: SnapshotTrigger, phase: str, given: dict[str, Any]
    ) -> str | None:
        """Take a checkpoint to its end, also where the caller is cancelled."""
        taking = asyncio.create_task(self._take(trigger, phase, given))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.wait({taking})  # else nobody knew which messages were committed
            if not taking.cancelled():
                taking.exception()
            raise

    async def _take(
        self, trigger: SnapshotTrigger, phase: str, given: dict[str, Any]
    ) -> str | None:
        own, more = given.pop("metadata", None), given.pop("append", None)
        check_object(own, "metadata", optional=True)
        check_list(more, "append", "messages", optional=True)
        metadata = {**self._metadata, "phase": phase, "depth": self.depth, **(own or {})}
        async with self._turn:
            content: dict[str, Any] = {"node": self.name, "state": _now(self._state), **given}
            pending: dict[int, _Pending] = {}
            if self._messages is not None:
                content.setdefault("messages", _now(self._messages))
            elif content.get("messages") is None:
                pending = dict(self._pending)
            if pending or more:
                content["append"] = [*(said.message for said in pending.values()), *(more or ())]
            checkpoint_id = await self.engine.snapshot(
                self.thread_id, trigger=trigger, **content, metadata=metadata
            )
            if checkpoint_id is not None:
                for key in pending:
                    self._pending.pop(key, None)
        if checkpoint_id is not None:
            self.checkpoints.append(checkpoint_id)
            for scope in self._line():
                scope.newest = time.monotonic()
        return checkpoint_id

    def _line(self) -> list[Scope]:
        """Return the scopes around this one on its thread, outermost first, and itself."""
        line, scope = [self], self.parent
        while scope is not None:
            if scope.engine is self.engine and scope.thread_id == self.thread_id:
                line.insert(0, scope)
            scope = scope.parent
        return line

    def _end(self) -> None:
        """Take nothing more and be nobody's current scope, in whichever context that is called."""
        self._ended = True
        self._open.remove(self)
        # lets go of it; no token is reset, as a generator may be closed in another context
        _scope.set(current_scope())

    async def _leave(self, **facts: Any) -> None:
        """Take the exit checkpoint; a result that cannot be stored is left out, with the reason."""
        try:
            try:
                await self._exit(tools_result=self.result, metadata=facts)
            except (Unstorable, TooLarge) as refusal:
                if self.result is None:
                    raise
                _log.warning("result of %s left out of its checkpoint: %s", self._called, refusal)
                await self._exit(metadata={**facts, "result_refused": str(refusal)})
        except Exception as trouble:
            self._forget_pending()
            trouble.add_note(f"{self._called} had done its work; only the checkpoint is missing")
            raise

    async def _fail(self, error: BaseException) -> None:
        """Record the error in the exit checkpoint; what stops that must not hide the error."""
        try:
            await self._exit(metadata={"exception": _described(error)})
        except Exception as trouble:  # noqa: BLE001 - the work's own error is the one to raise
            _log.warning("%s failed, and so did recording it: %s", self._called, trouble)
            error.add_note(f"not recorded in a checkpoint: {trouble}")
            self._forget_pending()

    async def _exit(self, **given: Any) -> None:
        await self._taken(self._trigger, "exit", {**given, "tags": self._tags})

    def _forget_pending(self) -> None:
        """Let go of what this scope could not commit, so that it does not stop those around it."""
        for key in [key for key, said in self._pending.items() if said.scope is self]:
            del self._pending[key]


def _now(live: Any) -> Any:
    return live() if callable(live) else live


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "message": _text_of(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (it is somebody else's method)
        return "(it cannot be shown)"


_scope: ContextVar[Scope | None] = ContextVar("ckpt_scope", default=None)


def current_scope() -> Scope | None:
    """Return the innermost open scope around the caller, or ``None``.

    So a function that ``snapshot_on`` decorates, or one that is called inside a scope, gets at it.

    Example:
        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="chat")
        async def search(query: str) -> str:
            current_scope().append({"role": "tool", "content": query.upper()})
            return query.upper()

        await search("weather")
        assert (await engine.get_latest("chat")).messages[0]["content"] == "WEATHER"
        assert current_scope() is None
    """
    return _still_open(_scope.get())


def _still_open(scope: Scope | None) -> Scope | None:
    """Return a scope or, if it has ended, the innermost open one of those around it."""
    while scope is not None and scope._ended:
        scope = scope._around
    return scope


def snapshot_scope(
    engine: CheckpointEngine,
    thread_id: str,
    *,
    trigger: SnapshotTrigger = SnapshotTrigger.MANUAL,
    name: str | None = None,
    messages: Live = None,
    state: LiveState = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    interval_seconds: float | None = None,
) -> AbstractAsyncContextManager[Scope]:
    """Take a checkpoint on entering and one on leaving; an exception is recorded and re-raised.

    While the body runs, a checkpoint with trigger ``INTERVAL`` is taken whenever that long has
    passed without one, if that trigger is enabled. Scopes nest: what is appended to one goes with
    the next checkpoint of any of them on the same thread, and an inner one that is given no
    interval leaves those to the outer one, which takes them of the innermost that is open.

    A message that cannot be stored stops the next checkpoint, and those appended with it; a result
    that cannot be stored, or makes the checkpoint too large, is left out of it, and
    ``metadata["result_refused"]`` says why.

    In an async generator that is left early the scope ends when the generator is closed: where it
    is left with ``contextlib.aclosing``, else soon after. The checkpoint on leaving then has
    ``metadata["left_early"]``; where it cannot be taken any more, as the engine was closed before,
    a warning is logged.

    Args:
        engine: Where the checkpoints go.
        thread_id: The thread; a new one is made for an unknown id.
        trigger: Why the enter and exit checkpoints are taken; nothing is, if it is not enabled.
        name: The checkpoints' node.
        messages: The conversation, read anew each time; else what ``append`` adds.
        state: The state, read anew each time; else it stays as it is.
        tags: Names for the exit checkpoint.
        metadata: Facts for every checkpoint; ``phase`` (``enter``, ``interval``, ``inside``,
            ``exit``), ``depth``, ``exception`` and ``left_early`` are added to them.
        interval_seconds: The interval; the configured one when absent.

    Raises:
        InvalidRequest: The interval is not greater than 0, or something else is of the wrong type.
        CheckpointError: A checkpoint cannot be taken; of the last one, the body is done by then.

    Example:
        async with engine.snapshot_scope("chat", name="research") as scope:
            scope.append("found something")
            scope.result = {"pages": 3}
        latest = await engine.get_latest("chat")
        assert (latest.messages, latest.tools_result) == (["found something"], {"pages": 3})
    """
    check_object(metadata, "metadata", optional=True)
    begin = partial(
        Scope,
        engine,
        check_name(thread_id, "a thread id"),
        trigger=parse_trigger(trigger),
        name=None if name is None else check_text(name, "name"),
        messages=messages,
        state=state,
        tags=checked_tags(tags),
        metadata=metadata or {},
    )
    return _Around(begin, interval_seconds)


class _Around:
    """Enters a scope and leaves it.

    No generator: a loop that ends would close that beside the one that the scope is used in.
    """

    def __init__(self, begin: Callable[..., Scope], interval_seconds: float | None) -> None:
        self._begin = begin
        self._interval_seconds = interval_seconds
        self._entered = False

    async def __aenter__(self) -> Scope:
        if self._entered:
            raise InvalidRequest("a scope is entered once: call snapshot_scope for each")
        self._entered = True
        scope = self._begin(parent=current_scope())
        scope.interval = _interval(scope, self._interval_seconds)
        await scope.snapshot(phase="enter")
        scope._open.append(scope)
        _scope.set(scope)
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        ticks = scope.interval is not None
        self._ticking = asyncio.create_task(_tick(scope, self._stop)) if ticks else None
        return scope

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        scope = self._scope
        scope._end()
        early = isinstance(error, GeneratorExit)
        if early and (hindrance := self._hindrance(trace)):
            _log.warning("%s was left early, without a checkpoint: %s", scope._called, hindrance)
            return
        try:
            await self._stop_ticking()
        except (Exception, asyncio.CancelledError) as stopped:
            await asyncio.shield(scope._fail(stopped))
            raise
        if error is None:
            await scope._leave()
        elif early:
            await scope._leave(left_early=True)
        else:
            await asyncio.shield(scope._fail(error))

    async def _stop_ticking(self) -> None:
        self._stop.set()
        if self._ticking:
            await asyncio.shield(self._ticking)

    def _hindrance(self, trace: TracebackType | None) -> str | None:
        """Say why no checkpoint can be taken on ``GeneratorExit``, if none can.

        What closes an async generator waits for it, in a task; nothing waits for a coroutine that
        is closed, nor for anything that is collected when its event loop does not run.
        """
        if self._scope.engine._closed:
            return "the engine was closed before"
        in_generator = trace and trace.tb_frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR
        try:
            in_task = asyncio.current_task() is not None
            waits = in_task and asyncio.get_running_loop() is self._loop
        except RuntimeError:  # no loop runs
            waits = False
        return None if in_generator and waits else "nothing waits for it any more"


def _interval(scope: Scope, given: float | None) -> float | None:
    """Return the interval at which this scope ticks, if it does."""
    enabled = SnapshotTrigger.INTERVAL in scope.engine.config.triggers
    if given is not None:
        interval_wait(0, 0, given)
        if not enabled:
            _log.warning("no interval checkpoints: the INTERVAL trigger is not enabled")
    if given is None and any(outer.interval for outer in scope._line()[:-1]):
        return None
    every = scope.engine.config.interval_seconds if given is None else given
    return every if enabled else None


async def _tick(scope: Scope, stop: asyncio.Event) -> None:
    """Take interval checkpoints until told to stop; one that fails is logged."""
    assert scope.interval is not None
    while not scope._ended:
        wait = interval_wait(scope.newest, time.monotonic(), scope.interval)
        try:
            await asyncio.wait_for(stop.wait(), timeout=wait)
        except TimeoutError:
            await _take_interval(scope)


async def _take_interval(scope: Scope) -> None:
    if scope._ended or interval_wait(scope.newest, time.monotonic(), scope.interval or 0) > 0:
        return  # something else was taken meanwhile
    within = (inner for inner in reversed(scope._open) if scope in inner._line())
    innermost = next(within, scope)
    try:
        await innermost.snapshot(SnapshotTrigger.INTERVAL, phase="interval")
    except Exception:  # noqa: BLE001 - the work goes on without it
        _log.warning("no interval checkpoint on %s", scope.thread_id, exc_info=True)
        scope.newest = time.monotonic()
