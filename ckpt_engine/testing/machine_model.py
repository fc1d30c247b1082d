"""What the state machine holds to be true: plain dicts, and what lines side by side come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ..merge import MISSING
from .strategies import messages, state_values, states

__all__ = [
    "HOW",
    "LOG",
    "Added",
    "Kept",
    "Line",
    "Step",
    "draw_lines",
    "draw_state",
    "few",
    "joined",
]

LOG = "events"
"""The key of the state that the machine's engines keep as a log."""

HOW = ("append", "full", "edit", "shorten", "neither")
"""How a snapshot gives its conversation."""

few = st.lists(messages, max_size=3)


@dataclass
class Kept:
    """What the model knows of a checkpoint.

    ``logged``: the log was there before, if only once. ``number``: as the how many-th it came.
    """

    thread: str
    step: int
    parents: tuple[str, ...]
    messages: list[Any]
    state: dict[str, Any]
    result: Any = None
    next_node: str | None = None
    tags: set[str] = field(default_factory=set)
    logged: bool = False
    number: int = 0


@dataclass
class Line:
    """What the model knows of a thread; ``undoable`` are the heads that ``undo`` goes back to."""

    session: str
    origin: str | None
    head: str | None
    undoable: list[str] = field(default_factory=list)


@dataclass
class Added:
    """What a step does to a log.

    Attributes:
        whole: All of it, after the step.
        items: What the step appends, or all of it, if it replaced what it had seen.
        replaces: Whether it did.
    """

    whole: list[Any]
    items: list[Any]
    replaces: bool

    @classmethod
    def to(cls, seen: list[Any], whole: list[Any]) -> Added:
        """Return what leads from one log to the other."""
        if repr(whole[: len(seen)]) == repr(seen):
            return cls(whole, whole[len(seen) :], replaces=False)
        return cls(whole, whole, replaces=True)


@dataclass
class Step:
    """What one step of a line does to what it began with.

    Attributes:
        line: Which line it is on; they are counted as they set out.
        step: Its number.
        said: What it does to the conversation.
        logged: What it does to the log; ``None`` where it leaves the log alone.
        state_set: The keys that it sets.
        state_delete: The keys that it removes.
        before: The state that it began with.
    """

    line: int
    step: int
    said: Added
    logged: Added | None
    state_set: dict[str, Any]
    state_delete: set[str]
    before: dict[str, Any]

    @property
    def after(self) -> dict[str, Any]:
        """The state that it left."""
        state = {**self.before, **self.state_set}
        return {key: value for key, value in state.items() if key not in self.state_delete}


def _drawn(data: st.DataObject, seen: list[Any]) -> Added:
    """Draw what a step does to a log: mostly it appends."""
    edit = data.draw(st.sampled_from(["append", "append", "edit"]), label="how") == "edit"
    keep = data.draw(st.integers(0, len(seen)), label="keep") if edit else len(seen)
    return Added.to(seen, [*seen[:keep], *data.draw(few)])


def draw_state(data: st.DataObject, old: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a whole state that comes after ``old``, mostly with more in its log."""
    state = data.draw(states, label="state")
    known = old[LOG] if isinstance(old.get(LOG), list) else []
    how = data.draw(st.sampled_from(["list", "list", "value", "without"]), label="log")
    if how == "list":
        state[LOG] = _drawn(data, known).whole
    elif how == "value":
        state[LOG] = data.draw(state_values)
    return state


def draw_lines(data: st.DataObject, start: Kept) -> list[Step]:
    """Draw two or three lines of one or two steps that set out from ``start``, by number."""
    lengths = data.draw(st.lists(st.integers(1, 2), min_size=2, max_size=3), label="lines")
    turns = [line for line, length in enumerate(lengths) for _ in range(length)]
    turns = data.draw(st.permutations(turns), label="turns")
    number = {line: at for at, line in enumerate(dict.fromkeys(turns))}
    tips = dict.fromkeys(number.values(), start.state)
    said = dict.fromkeys(number.values(), start.messages)
    steps = []
    for step, turn in enumerate(turns, start.step + 1):
        line = number[turn]
        before = tips[line]
        given = data.draw(st.dictionaries(st.sampled_from(["plan", "notes"]), state_values))
        known = before.get(LOG, None if start.logged else [])
        logged = None
        if isinstance(known, list) and data.draw(st.booleans(), label="log"):
            logged = _drawn(data, known)
            given[LOG] = logged.whole
        removed = data.draw(st.sets(st.sampled_from(["plan", "todo"])), label="removed")
        spoken = _drawn(data, said[line])
        steps.append(Step(line, step, spoken, logged, given, removed, before))
        tips[line], said[line] = steps[-1].after, spoken.whole
    return steps


def joined(start: Kept, steps: Sequence[Step]) -> tuple[list[Any], dict[str, Any], tuple[str, ...]]:
    """Return messages and state of the lines together, and the keys that they disagree about."""
    state = dict(start.state)
    changed: dict[str, set[int]] = {}
    for step in steps:
        for key in dict.fromkeys((*step.after, *step.before)):
            new = step.after.get(key, MISSING)
            if repr(new) == repr(step.before.get(key, MISSING)):
                continue
            if key != LOG or (step.logged and step.logged.replaces):
                changed.setdefault(key, set()).add(step.line)
            if new is MISSING:
                state.pop(key, None)
            else:
                state[key] = new
    if LOG in state and isinstance(state[LOG], list):
        state[LOG] = _together(start.state.get(LOG, []), [(s.line, s.logged) for s in steps])
    said = _together(start.messages, [(step.line, step.said) for step in steps])
    disputed = {key for key, lines in changed.items() if len(lines) > 1}
    return said, state, tuple(sorted(disputed))


def _together(start: list[Any], steps: Sequence[tuple[int, Added | None]]) -> list[Any]:
    """Return a log of all lines: a step that replaces it leaves what it has not seen."""
    items: list[tuple[Any, int | None]] = [(item, None) for item in start]
    for line, added in steps:
        if added is None:
            continue
        if added.replaces:
            unseen = [(item, by) for item, by in items if by not in (None, line)]
            items = [*((item, None) for item in added.items), *unseen]
        else:
            items += [(item, line) for item in added.items]
    return [item for item, _ in items]
