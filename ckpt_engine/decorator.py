"""A decorator that opens a scope for each call of a function."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from .checks import check_name, checked_tags
from .errors import InvalidRequest, shown
from .model import SnapshotTrigger
from .scopes import current_scope, snapshot_scope
from .triggers import interval_wait, parse_trigger

if TYPE_CHECKING:
    from .engine import CheckpointEngine

__all__ = ["snapshot_on"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Decorator(Protocol):
    """What :func:`snapshot_on` returns: the decorated function is async, whatever it was."""

    @overload
    def __call__(
        self, work: Callable[_P, Awaitable[_R]]
    ) -> Callable[_P, Coroutine[Any, Any, _R]]: ...
    @overload
    def __call__(self, work: Callable[_P, _R]) -> Callable[_P, Coroutine[Any, Any, _R]]: ...


def snapshot_on(
    engine: CheckpointEngine,
    trigger: SnapshotTrigger,
    *,
    thread_id: str | Callable[..., str] | None = None,
    messages: Callable[..., Sequence[Any]] | None = None,
    state: Callable[..., Mapping[str, Any]] | None = None,
    tags: Sequence[str] = (),
    interval_seconds: float | None = None,
) -> Decorator:
    """Take a checkpoint before and after each call of a function, also when it raises.

    The one after holds what the function returned, whole, or in ``metadata["result_refused"]`` why
    that cannot be stored; the caller has it all the same. A plain function is run in a thread and
    awaited, so that intervals pass while it works.

    Args:
        engine: Where the checkpoints go.
        trigger: Why.
        thread_id: The thread, or a function of the call's arguments that returns it. When absent,
            the call's own argument ``thread_id``, else the thread of the scope around the call.
        messages: From the call's arguments to the conversation; else it stays as it is.
        state: From the call's arguments to the state; else it stays as it is.
        tags: Names for the checkpoint after.
        interval_seconds: As in :func:`snapshot_scope`.

    Raises:
        InvalidRequest: What is decorated is no function or a generator, a call names no thread, or
            something else is of the wrong type.
        CheckpointError: A checkpoint cannot be taken; of the one after, the function has done its
            work by then, which a note on the error says.

    Example:
        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="chat")
        async def search(query: str) -> list[str]:
            return [query.upper()]

        assert await search("weather") == ["WEATHER"]
        assert (await engine.get_latest("chat")).tools_result == ["WEATHER"]
    """
    trigger, tags = parse_trigger(trigger), checked_tags(tags)
    for what, given in (("messages", messages), ("state", state)):
        if given is not None and not callable(given):
            raise InvalidRequest(f"{what} must be a function of the call's arguments")
    if thread_id is not None and not callable(thread_id):
        thread_id = check_name(thread_id, "a thread id")
    if interval_seconds is not None:
        interval_wait(0, 0, interval_seconds)

    def decorate(work: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        called = _checked_name(work)
        try:
            signature = inspect.signature(work)
        except ValueError:  # a builtin function that does not say
            signature = None

        @functools.wraps(work)
        async def captured(*args: Any, **kwargs: Any) -> Any:
            async with snapshot_scope(
                engine,
                _thread_of(engine, thread_id, signature, args, kwargs),
                trigger=trigger,
                name=called,
                messages=messages and functools.partial(messages, *args, **kwargs),
                state=state and functools.partial(state, *args, **kwargs),
                tags=tags,
                interval_seconds=interval_seconds,
            ) as scope:
                if inspect.iscoroutinefunction(work):
                    scope.result = await work(*args, **kwargs)
                else:
                    scope.result = await _in_thread(work, *args, **kwargs)
                return scope.result

        return captured

    return cast(Decorator, decorate)


def _checked_name(work: Any) -> str:
    """Return what a function is called.

    Raises:
        InvalidRequest: It is no function, or a generator.
    """
    if not callable(work) or inspect.isclass(work):
        raise InvalidRequest(f"snapshot_on decorates a function, not {shown(work)}")
    called = str(getattr(work, "__name__", type(work).__name__))
    if inspect.isasyncgenfunction(work) or inspect.isgeneratorfunction(work):
        raise InvalidRequest(f"{called} is a generator: use snapshot_scope inside it")
    return called


async def _in_thread(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    def call() -> Any:
        try:
            return work(*args, **kwargs)
        except StopIteration as stop:  # which no future can carry
            raise RuntimeError("the function raised StopIteration") from stop

    result = await asyncio.to_thread(call)
    return await result if inspect.isawaitable(result) else result


def _thread_of(
    engine: CheckpointEngine,
    named: str | Callable[..., str] | None,
    signature: inspect.Signature | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str:
    if callable(named):
        return named(*args, **kwargs)
    own = kwargs.get("thread_id")
    if own is None and signature is not None:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        own = call.arguments.get("thread_id")
    scope = current_scope()
    around = scope.thread_id if scope is not None and scope.engine is engine else None
    for found in (named, own, around):
        if found is not None:
            return found
    raise InvalidRequest(
        "no thread: give snapshot_on a thread_id, or call this inside a snapshot_scope"
    )
