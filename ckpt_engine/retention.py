"""Which checkpoints to keep: policies, and what they look at. Nothing here does I/O."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar, overload

from .errors import InvalidRequest, shown

__all__ = [
    "KEEP_AGE",
    "KEEP_ALL",
    "KEEP_LAST_N",
    "KEEP_MILESTONES",
    "Candidate",
    "Candidates",
    "KeepAge",
    "KeepAll",
    "KeepLastN",
    "KeepMilestones",
    "OnDemand",
    "RetentionPolicy",
    "check_policy",
]


T = TypeVar("T")


class OnDemand(Sequence[T]):
    """Values that are made when they are asked for."""

    __slots__ = ()

    @abstractmethod
    def made(self, n: int) -> T:
        """Return the value at a position from 0 on."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        positions = range(len(self))[index]
        return self.made(positions) if isinstance(positions, int) else [*map(self.made, positions)]


class Candidate(NamedTuple):
    """What a policy can look at of a checkpoint; the parents are those that still exist."""

    id: str
    thread_id: str
    step: int
    parents: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates(OnDemand[Candidate]):
    """One session's checkpoints, oldest first.

    They are kept by column, and a :class:`Candidate` is made when it is asked for: a policy that
    looks at steps alone costs no more than that. A checkpoint goes by its position.

    Attributes:
        ids: Their ids.
        threads: The threads they are on.
        steps: Their steps.
        times: When they were committed; in order.
        firsts: The position of each one's first parent, if it has one.
        further: Position -> the positions of its other parents, of those that have any.
    """

    ids: Sequence[str]
    threads: Sequence[str]
    steps: Sequence[int]
    times: Sequence[datetime]
    firsts: Sequence[int | None]
    further: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Candidates:
        """Return these, sorted."""
        ordered = sorted(candidates, key=lambda c: (c.created_at, c.step, c.id))
        at = {c.id: n for n, c in enumerate(ordered)}
        return cls(
            ids=[c.id for c in ordered],
            threads=[c.thread_id for c in ordered],
            steps=[c.step for c in ordered],
            times=[c.created_at for c in ordered],
            firsts=[at[c.parents[0]] if c.parents else None for c in ordered],
            further={
                n: tuple(map(at.__getitem__, c.parents[1:]))
                for n, c in enumerate(ordered)
                if len(c.parents) > 1
            },
        )

    def parents(self, n: int) -> tuple[int, ...]:
        """Return the positions of a checkpoint's parents."""
        first = self.firsts[n]
        return (*(() if first is None else (first,)), *self.further.get(n, ()))

    def __len__(self) -> int:
        return len(self.ids)

    def made(self, n: int) -> Candidate:
        """Return the checkpoint at a position."""
        parents = tuple(self.ids[parent] for parent in self.parents(n))
        return Candidate(self.ids[n], self.threads[n], self.steps[n], parents, self.times[n])


class RetentionPolicy(ABC):
    """What to keep; ``a | b`` keeps what either keeps, ``a & b`` only what both keep.

    Example:
        class KeepEveryTenth(RetentionPolicy):
            def kept(self, checkpoints, now):
                return {n for n, c in enumerate(checkpoints) if c.step % 10 == 0}
    """

    @abstractmethod
    def kept(self, checkpoints: Candidates, now: datetime) -> Collection[int]:
        """Return the positions of those to keep, of one session's checkpoints, oldest first.

        They can be looked at only during the call: some is read when it is asked for.
        """

    def __or__(self, other: RetentionPolicy) -> RetentionPolicy:
        return _Either(self, check_policy(other))

    def __and__(self, other: RetentionPolicy) -> RetentionPolicy:
        return _Both(self, check_policy(other))


def check_policy(policy: RetentionPolicy) -> RetentionPolicy:
    """Return a policy; refuse what is none.

    Raises:
        InvalidRequest: It is something else.
    """
    if not isinstance(policy, RetentionPolicy):
        raise InvalidRequest(
            f"a retention policy is one such as KEEP_LAST_N(100), not {shown(policy)}"
        )
    return policy


@dataclass(frozen=True, slots=True)
class _Either(RetentionPolicy):
    left: RetentionPolicy
    right: RetentionPolicy

    def kept(self, checkpoints: Candidates, now: datetime) -> set[int]:
        return {*self.left.kept(checkpoints, now), *self.right.kept(checkpoints, now)}


@dataclass(frozen=True, slots=True)
class _Both(RetentionPolicy):
    left: RetentionPolicy
    right: RetentionPolicy

    def kept(self, checkpoints: Candidates, now: datetime) -> set[int]:
        return set(self.left.kept(checkpoints, now)).intersection(self.right.kept(checkpoints, now))


@dataclass(frozen=True, slots=True)
class KeepAll(RetentionPolicy):
    """Keep everything."""

    def kept(self, checkpoints: Candidates, now: datetime) -> range:
        """Return every position."""
        return range(len(checkpoints))


@dataclass(frozen=True, slots=True)
class _Counted(RetentionPolicy):
    """Keep some number of checkpoints.

    Attributes:
        n: How many, at least 1.
        per: Whether each thread has that many, or the session as a whole.

    Raises:
        InvalidRequest: ``n`` is not a whole number from 1 up, or ``per`` is something else.
    """

    n: int
    per: Literal["thread", "session"] = "thread"

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise InvalidRequest(f"at least 1 checkpoint is to be kept, not {shown(self.n)}")
        if self.per not in ("thread", "session"):
            raise InvalidRequest(f"per is 'thread' or 'session', not {shown(self.per)}")

    def kept(self, checkpoints: Candidates, now: datetime) -> Collection[int]:
        """Return the positions chosen of each thread, or of all threads together."""
        if self.per == "session" or len(set(checkpoints.threads)) <= 1:
            return self._chosen(range(len(checkpoints)), checkpoints.steps)
        threads: dict[str, list[int]] = defaultdict(list)
        for n, thread in enumerate(checkpoints.threads):
            threads[thread].append(n)
        return {n for line in threads.values() for n in self._chosen(line, checkpoints.steps)}

    @abstractmethod
    def _chosen(self, line: Sequence[int], steps: Sequence[int]) -> Collection[int]:
        """Return which positions of some to keep, given the steps of all."""


@dataclass(frozen=True, slots=True)
class KeepLastN(_Counted):
    """Keep the ``n`` newest."""

    def _chosen(self, line: Sequence[int], steps: Sequence[int]) -> Sequence[int]:
        return line[-self.n :]


@dataclass(frozen=True, slots=True)
class KeepMilestones(_Counted):
    """Keep ``n``: the first, the last, and between them those nearest to evenly spaced steps.

    Where steps are crowded, those farthest from the others make up the number. Applied again to
    what it kept, it keeps the same. A single milestone is the last one.
    """

    def _chosen(self, line: Sequence[int], steps: Sequence[int]) -> Collection[int]:
        if len(line) <= self.n:
            return line
        line = sorted(line, key=steps.__getitem__)  # of equal steps the older one first
        if self.n == 1:
            return line[-1:]
        chosen = _spread([steps[n] for n in line], self.n)
        return {line[at] for at in chosen}


def _spread(steps: Sequence[int], n: int) -> set[int]:
    """Return the places of ``n``, at least 2, of more than ``n`` rising steps."""
    first, last = steps[0], steps[-1]
    gap = (last - first) / (n - 1)
    ideals = (first + gap * k for k in range(1, n - 1))
    if last - first == len(steps) - 1 == len(set(steps)) - 1:  # none is missing
        chosen = {math.ceil(ideal - 0.5) - first for ideal in ideals}
    else:
        chosen = {_nearest(steps, ideal) for ideal in ideals}
    chosen |= {0, len(steps) - 1}
    if len(chosen) < n:
        _fill(chosen, steps, n)
    return chosen


def _nearest(steps: Sequence[int], ideal: float) -> int:
    right = bisect_left(steps, ideal)
    if right == 0 or (right < len(steps) and steps[right] - ideal < ideal - steps[right - 1]):
        return right
    return bisect_left(steps, steps[right - 1])


def _fill(chosen: set[int], steps: Sequence[int], n: int) -> None:
    """Choose those farthest from the chosen ones, the first and the last, until there are ``n``."""
    ends = sorted(chosen)
    free = [_farthest(steps, *gap) for gap in pairwise(ends) if _open(*gap)]
    heapq.heapify(free)
    while len(chosen) < n:
        _, new, left, right = heapq.heappop(free)
        chosen.add(new)
        for gap in ((left, new), (new, right)):
            if _open(*gap):
                heapq.heappush(free, _farthest(steps, *gap))


def _open(left: int, right: int) -> bool:
    return right - left > 1


def _farthest(steps: Sequence[int], left: int, right: int) -> tuple[int, int, int, int]:
    """Return the place between two that is farthest from both: its distance below 0, itself."""
    middle = bisect_left(steps, (steps[left] + steps[right]) / 2, left + 1, right)
    best = (1, 0)
    for at in (middle - 1, middle):
        if left < at < right:
            at = bisect_left(steps, steps[at], left + 1, at)
            best = min(best, (-min(steps[at] - steps[left], steps[right] - steps[at]), at))
    return *best, left, right


@dataclass(frozen=True, slots=True)
class KeepAge(RetentionPolicy):
    """Keep what is at most this old.

    Attributes:
        max_age: The age, greater than 0.

    Raises:
        InvalidRequest: It is not a timedelta greater than 0.
    """

    max_age: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.max_age, timedelta) or self.max_age <= timedelta(0):
            raise InvalidRequest(f"an age is a timedelta greater than 0, not {shown(self.max_age)}")

    def kept(self, checkpoints: Candidates, now: datetime) -> range:
        """Return the positions of those committed at or after ``now - max_age``."""
        try:
            oldest = now - self.max_age
        except OverflowError:  # before the first day there is
            return range(len(checkpoints))
        return range(bisect_left(checkpoints.times, oldest), len(checkpoints))


KEEP_ALL = KeepAll()
KEEP_LAST_N = KeepLastN
KEEP_AGE = KeepAge
KEEP_MILESTONES = KeepMilestones
