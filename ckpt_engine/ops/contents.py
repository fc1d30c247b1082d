"""Whole contents of the checkpoints used last, so that an agent's next step need not read them.

What is kept is never handed out: every reader gets containers of its own. A step's content is made
of its parent's and of what the step packed, so it is exactly what a read would give.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import codec
from ..store import CheckpointRow
from .place import Placed
from .prepare import Draft, LogDraft, log_lengths
from .read import unpack_state
from .source import MESSAGES, Caches, Source

__all__ = ["Content", "content_after", "content_of", "copied"]


class Content(NamedTuple):
    """A checkpoint's conversation and state, and about how many bytes they are."""

    messages: list[Any]
    state: dict[str, Any]
    packed: dict[str, bytes]
    size: int


NOTHING = Content([], {}, {}, 0)


def copied(value: Any) -> Any:
    """Return the value with containers of its own; what cannot be changed is shared."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    return value


def content_of(source: Source, caches: Caches, row: CheckpointRow | None) -> Content:
    """Return a checkpoint's content, read where it is not remembered.

    Raises:
        MissError: It is not, and there is no transaction.
    """
    if row is None:
        return NOTHING
    known: Content | None = caches.contents.get(row.id)
    if known is not None:
        return known
    logs = log_lengths(row)
    messages = source.values(row.lineage, MESSAGES, 0, row.length)
    packed = source.state(row.state).values
    state = unpack_state(source, packed, row, logs)
    content = Content(messages, state, packed, _weight(messages) + _weight(state))
    caches.contents.put(row.id, content, content.size)
    return content


def content_after(caches: Caches, draft: Draft, placed: Placed) -> Content | None:
    """Return the content of a step that was committed, if what it began with is remembered."""
    before = NOTHING
    if draft.prefix is not None:
        known: Content | None = caches.contents.get(draft.prefix.id)
        if known is None:
            return None
        before = known
    size = before.size
    lists: dict[str, list[Any]] = {}
    try:
        for name, log in draft.logs.items():
            if (old := _shown(before, name, log)) is not None:
                lists[name] = _after(old, log)
            size += sum(map(len, (*log.fresh, *log.items, *log.blobs.values())))
        state: dict[str, Any] = {}
        for key, packed in placed.state.values.items():
            if packed == codec.LOG_PLACE:
                state[key] = lists[key]
            elif before.packed.get(key) == packed:
                state[key] = before.state[key]
            else:
                state[key] = codec.unpack(packed, draft.state_blobs)
                size += len(packed)
    except KeyError:  # a large value that stands elsewhere, a log that was not shown
        return None
    return Content(lists[MESSAGES], state, placed.state.values, size)


def _shown(before: Content, name: str, log: LogDraft) -> list[Any] | None:
    """Return what a log held, or ``None``: it held something, and the state did not show it."""
    if name == MESSAGES:
        return before.messages
    if before.packed.get(name) == codec.LOG_PLACE:
        shown: list[Any] = before.state[name]
        return shown
    return None if log.base else []


def _after(old: list[Any], log: LogDraft) -> list[Any]:
    made = old[: log.keep]
    for run in log.runs:
        made += [codec.unpack(item, log.blobs) for item in run.fresh]
        made += old[run.start : run.stop]
    return made + [codec.unpack(item, log.blobs) for item in log.items]


def _weight(value: Any) -> int:
    """Return about how many bytes a value takes."""
    kind = type(value)
    if kind is dict:
        return sum(len(key) + _weight(item) for key, item in value.items())
    if kind is list:
        return sum(map(_weight, value))
    return len(value) if kind is str or kind is bytes else 8
