"""Three-way merge of what two checkpoints hold, against what their common ancestor held.

Logs (the conversation, and state keys declared as logs) are joined in order; other state is merged
key by key. What both sides changed differently is a conflict, which is a value.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final, Literal, TypeAlias, cast

from .errors import InvalidRequest, shown
from .graph import Lookup, merge_bases

__all__ = [
    "MISSING",
    "Base",
    "Content",
    "JoinedBase",
    "MergeConflict",
    "Merged",
    "Missing",
    "Reducer",
    "Strategy",
    "base_ids",
    "find_base",
    "identity",
    "merge_content",
    "merge_logs",
    "merge_state",
    "resolve_base",
]


class Missing(Enum):
    """The type of :data:`MISSING`."""

    MISSING = "missing"
    _DISPUTED = "disputed"  # base of a criss-cross whose own sides disagree: equal to nothing

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Missing.MISSING
"""Stands where a key has no value at all; false in a test."""

Reducer = Callable[[Any, Any, Any], Any]
"""From the values of base, ours and theirs (``None`` where there is none) to the merged one.

Called for a key that both sides changed, also when both changed it alike, as a counter needs.
"""

Strategy = Literal["raise", "ours", "theirs"]


@dataclass(frozen=True, slots=True)
class Content:
    """What is merged of a checkpoint; never changed, shared freely.

    Attributes:
        messages: The conversation.
        state: The state.
        ordered: Whether the order of the logs means something; not so in the joined base of a
            criss-cross, whose sides have the same messages in two orders.
    """

    messages: Sequence[Any] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConflict:
    """What both sides changed in different ways.

    Attributes:
        kind: ``messages``, or ``state``.
        key: The state key; ``messages`` for the conversation.
        base: Its value in the common ancestor, or :data:`MISSING`.
        ours: Its value on the thread that is merged into, or :data:`MISSING`.
        theirs: Its value on the branch, or :data:`MISSING`.
    """

    kind: Literal["messages", "state"]
    key: str
    base: Any
    ours: Any
    theirs: Any


@dataclass(frozen=True, slots=True)
class Merged:
    """The outcome.

    Attributes:
        messages: The conversation.
        state: The state.
        conflicts: Those that nothing resolved; our value stands there meanwhile.
        resolved: Keys, of conflicts that the strategy decided.
    """

    messages: list[Any]
    state: dict[str, Any]
    conflicts: tuple[MergeConflict, ...] = ()
    resolved: tuple[str, ...] = ()


def merge_content(
    base: Content,
    ours: Content,
    theirs: Content,
    *,
    strategy: Strategy = "raise",
    reducers: Mapping[str, Reducer] | None = None,
    logs: Collection[str] = (),
) -> Merged:
    """Return our content with the changes that theirs made since the base.

    Args:
        base: The common ancestor's content.
        ours: The content merged into.
        theirs: The content merged.
        strategy: Whose value a conflict takes; ``raise`` leaves it in ``conflicts``.
        reducers: State key -> function that merges it.
        logs: State keys whose lists are joined as logs.

    Raises:
        InvalidRequest: The strategy is unknown.
    """
    if strategy not in ("raise", "ours", "theirs"):
        raise InvalidRequest(f"no strategy {shown(strategy)}: there are raise, ours and theirs")
    messages, disputed = merge_logs(
        base.messages, ours.messages, theirs.messages, ordered=base.ordered
    )
    conflicts = []
    if disputed:
        conflicts.append(
            MergeConflict(
                kind="messages",
                key="messages",
                base=_known(base.messages),
                ours=ours.messages,
                theirs=theirs.messages,
            )
        )
    state, state_conflicts = merge_state(
        base.state, ours.state, theirs.state, reducers, logs, ordered=base.ordered
    )
    conflicts.extend(state_conflicts)
    if strategy == "raise":
        return Merged(messages, state, tuple(conflicts))
    if strategy == "theirs":
        messages = list(theirs.messages) if disputed else messages
        for conflict in state_conflicts:
            _put(state, conflict.key, conflict.theirs)
    return Merged(messages, state, resolved=tuple(conflict.key for conflict in conflicts))


def merge_state(
    base: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    reducers: Mapping[str, Reducer] | None = None,
    logs: Collection[str] = (),
    *,
    ordered: bool = True,
) -> tuple[dict[str, Any], list[MergeConflict]]:
    """Return the merged state, in our order and then theirs, and the conflicts sorted by key."""
    reducers = reducers or {}
    merged: dict[str, Any] = {}
    conflicts: list[MergeConflict] = []
    for key in [*ours, *(k for k in theirs if k not in ours)]:
        b, o, t = (side.get(key, MISSING) for side in (base, ours, theirs))
        log = partial(merge_logs, ordered=ordered) if key in logs else None
        value, clear = _merge_key(b, o, t, reducers.get(key), log)
        _put(merged, key, value)
        if not clear:
            conflicts.append(MergeConflict(kind="state", key=key, base=_known(b), ours=o, theirs=t))
    return merged, sorted(conflicts, key=lambda c: c.key)


_Clear = tuple[Any, bool]  # a value, and whether it is undisputed
_Join = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], tuple[list[Any], bool]]


def _merge_key(b: Any, o: Any, t: Any, reducer: Reducer | None, join: _Join | None) -> _Clear:
    base, mine, other = identity(b), identity(o), identity(t)
    if base == other:
        return o, True
    if base == mine:
        return t, True
    if reducer is not None:
        return reducer(*(None if isinstance(v, Missing) else v for v in (_known(b), o, t))), True
    if mine == other:
        return o, True
    if join is None or not all(isinstance(v, list | Missing) for v in (b, o, t)):
        return o, False
    if b is not MISSING and (o is MISSING or t is MISSING):
        return o, False  # one side took the log out, the other changed it
    log, disputed = join(b or (), o or (), t or ())
    return (o, False) if disputed else (log, True)


def _put(state: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, Missing):
        state.pop(key, None)
    else:
        state[key] = value


def merge_logs(
    base: Sequence[Any], ours: Sequence[Any], theirs: Sequence[Any], *, ordered: bool = True
) -> tuple[list[Any], bool]:
    """Join two logs: ours, then what theirs added since the base.

    A run of equal messages with which both sides' additions begin is taken once. Where one side
    edited what the base held (left out, replaced or inserted something), its edit is kept and the
    other side's additions follow it.

    Args:
        base: The common ancestor's log.
        ours: The log joined into.
        theirs: The log joined.
        ordered: Whether another order of what the base held is an edit, too.

    Returns:
        The joined log, and whether both sides edited the base differently; then it is ours.
    """
    same = identity(base)
    if identity(theirs) in (same, identity(ours)):
        return list(ours), False
    if ordered and identity(ours) == same:
        return list(theirs), False
    mine, other = (_Side(log, base, ordered) for log in (ours, theirs))
    if not other.edited or (mine.edited and not (mine.lossy or other.lossy)):
        return [*ours, *_after_common(mine.new, other.new)], False
    if not mine.edited:
        return [*other.history, *mine.new, *_after_common(mine.new, other.tail)], False
    if identity(mine.history) == identity(other.history):
        return [*ours, *_after_common(mine.tail, other.tail)], False
    return list(ours), True


class _Side:
    """One side of a log merge, split into what became of the base and what follows it.

    Attributes:
        lossy: Whether something of the base is left out, replaced or moved.
        edited: Whether that, or something stands before what the base held.
        history: What became of the base.
        tail: What follows it.
        new: Everything that the base did not hold.
    """

    def __init__(self, log: Sequence[Any], base: Sequence[Any], ordered: bool) -> None:
        marks, held = list(_occurrences(log)), list(_occurrences(base))
        known = set(held)
        kept = [mark for mark in marks if mark in known]
        self.new = [v for v, mark in zip(log, marks, strict=True) if mark not in known]
        end = max((n + 1 for n, mark in enumerate(marks) if mark in known), default=0)
        self.lossy = kept != held if ordered else len(kept) < len(held)
        self.edited = self.lossy or len(log) - end < len(self.new)
        if self.lossy and not (end and identity(log[end - 1]) == identity(base[-1])):
            end = max(end, min(len(base), len(log)))  # a replaced end of the base is no addition
        self.history, self.tail = list(log[:end]), list(log[end:])


def _after_common(first: Sequence[Any], second: Sequence[Any]) -> Sequence[Any]:
    """Return ``second`` without the leading run that ``first`` has as well."""
    same = 0
    for a, b in zip(first, second, strict=False):
        if identity(a) != identity(b):
            break
        same += 1
    return second[same:]


def _occurrences(log: Sequence[Any]) -> Iterator[Hashable]:
    """Name each message by its value and by how often it stood before, so that repeats count."""
    counts: Counter[Hashable] = Counter()
    for value in log:
        mark = identity(value)
        yield mark, counts[mark]
        counts[mark] += 1


def identity(value: Any) -> Hashable:
    """Return a key that is equal for equal stored values: 1, 1.0 and True differ, NaN is itself."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return dict, frozenset((k, identity(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return (list, *map(identity, value))
    if isinstance(value, float):
        return float, struct.pack("<d", value)
    if value is Missing._DISPUTED:
        return object()
    return type(value), cast(Hashable, value)


@dataclass(frozen=True, slots=True)
class JoinedBase:
    """After criss-cross merges the base is itself a merge: of two bases, against theirs."""

    base: Base
    ours: Base
    theirs: Base


Base: TypeAlias = str | JoinedBase | None


def find_base(ours: Collection[str], theirs: Collection[str], lookup: Lookup[str]) -> Base:
    """Return what two sides are to be merged against; an id unless they criss-cross."""
    bases = merge_bases(ours, theirs, lookup)
    found: Base = bases[0] if bases else None
    for count, other in enumerate(bases[1:], start=1):
        found = JoinedBase(find_base(bases[:count], [other], lookup), found, other)
    return found


def base_ids(base: Base) -> frozenset[str]:
    """Return the checkpoints whose content :func:`resolve_base` needs."""
    if isinstance(base, JoinedBase):
        return base_ids(base.base) | base_ids(base.ours) | base_ids(base.theirs)
    return frozenset() if base is None else frozenset({base})


def resolve_base(
    base: Base, contents: Mapping[str, Content], logs: Collection[str] = ()
) -> Content:
    """Return the base's content, given that of its checkpoints.

    What the bases of a criss-cross disagree about equals neither side, so it conflicts again
    unless both sides have settled it alike.
    """
    if base is None:
        return Content()
    if not isinstance(base, JoinedBase):
        return contents[base]
    parts = (resolve_base(part, contents, logs) for part in (base.base, base.ours, base.theirs))
    merged = merge_content(*parts, logs=logs)
    messages = merged.messages
    for conflict in merged.conflicts:
        if conflict.kind == "messages":
            messages = _disputed(conflict)
        elif conflict.key in logs:
            merged.state[conflict.key] = _disputed(conflict)
        else:
            merged.state[conflict.key] = Missing._DISPUTED
    return Content(messages, merged.state, ordered=False)


def _disputed(conflict: MergeConflict) -> list[Any]:
    """Return a log that is no side's and as long as the longer: all they hold is against it."""
    sides = (side for side in (conflict.ours, conflict.theirs) if isinstance(side, Sequence))
    return [Missing._DISPUTED] * max(map(len, sides), default=1)


def _known(base: Any) -> Any:
    """Return a base's value, or that there is none, where its own sides disagree about it."""
    disputed = isinstance(base, Missing) or (
        isinstance(base, Sequence) and any(item is Missing._DISPUTED for item in base)
    )
    return MISSING if disputed else base
