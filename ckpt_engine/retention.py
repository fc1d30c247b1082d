"""Which checkpoints to keep: policies, and from a policy a plan. Nothing here does I/O.

A policy says what is wanted; :func:`plan_retention` adds what must stay whatever the policy says,
so that no policy can break a branch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Literal, NamedTuple

from .errors import InvalidRequest

__all__ = [
    "KEEP_AGE",
    "KEEP_ALL",
    "KEEP_LAST_N",
    "KEEP_MILESTONES",
    "Candidate",
    "KeepAge",
    "KeepAll",
    "KeepLastN",
    "KeepMilestones",
    "KeepReason",
    "RetentionPlan",
    "RetentionPolicy",
    "plan_retention",
]


class Candidate(NamedTuple):
    """What a plan looks at of a checkpoint; the parents are those that still exist."""

    id: str
    thread_id: str
    step: int
    parents: tuple[str, ...]
    created_at: datetime


class RetentionPolicy(ABC):
    """What to keep; ``a | b`` keeps what either keeps, ``a & b`` only what both keep."""

    @abstractmethod
    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        """Return the ids of those to keep, of one session's checkpoints, oldest first."""

    def __or__(self, other: RetentionPolicy) -> RetentionPolicy:
        return _Either(self, other)

    def __and__(self, other: RetentionPolicy) -> RetentionPolicy:
        return _Both(self, other)


@dataclass(frozen=True, slots=True)
class _Either(RetentionPolicy):
    left: RetentionPolicy
    right: RetentionPolicy

    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        return self.left.kept(checkpoints, now) | self.right.kept(checkpoints, now)


@dataclass(frozen=True, slots=True)
class _Both(RetentionPolicy):
    left: RetentionPolicy
    right: RetentionPolicy

    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        return self.left.kept(checkpoints, now) & self.right.kept(checkpoints, now)


@dataclass(frozen=True, slots=True)
class KeepAll(RetentionPolicy):
    """Keep everything."""

    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        """Return every id."""
        return {c.id for c in checkpoints}


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
            raise InvalidRequest(f"at least 1 checkpoint is to be kept, not {self.n!r}")
        if self.per not in ("thread", "session"):
            raise InvalidRequest(f"per is 'thread' or 'session', not {self.per!r}")

    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        """Return the ids chosen of each thread, or of all threads together."""
        if self.per == "session":
            return self._chosen(checkpoints)
        threads: dict[str, list[Candidate]] = defaultdict(list)
        for checkpoint in checkpoints:
            threads[checkpoint.thread_id].append(checkpoint)
        return set().union(*map(self._chosen, threads.values()))

    @abstractmethod
    def _chosen(self, checkpoints: Sequence[Candidate]) -> set[str]: ...


@dataclass(frozen=True, slots=True)
class KeepLastN(_Counted):
    """Keep the ``n`` newest."""

    def _chosen(self, checkpoints: Sequence[Candidate]) -> set[str]:
        return {c.id for c in checkpoints[-self.n :]}


@dataclass(frozen=True, slots=True)
class KeepMilestones(_Counted):
    """Keep ``n``: the first, the last, and between them those nearest to evenly spaced steps.

    Where steps are crowded, those farthest from the others make up the number. Applied again to
    what it kept, it keeps the same. A single milestone is the last one.
    """

    def _chosen(self, checkpoints: Sequence[Candidate]) -> set[str]:
        if len(checkpoints) <= self.n:
            return {c.id for c in checkpoints}
        line = sorted(checkpoints, key=lambda c: c.step)  # of equal steps the older one first
        steps = [c.step for c in line]
        chosen = {len(line) - 1}
        if self.n > 1:
            gap = (steps[-1] - steps[0]) / (self.n - 1)
            chosen |= {0, *(_nearest(steps, steps[0] + gap * k) for k in range(1, self.n - 1))}
        _fill(chosen, steps, self.n)
        return {line[at].id for at in chosen}


def _nearest(steps: Sequence[int], ideal: float) -> int:
    right = bisect_left(steps, ideal)
    if right == 0 or (right < len(steps) and steps[right] - ideal < ideal - steps[right - 1]):
        return right
    return bisect_left(steps, steps[right - 1])


def _fill(chosen: set[int], steps: Sequence[int], n: int) -> None:
    """Choose those farthest from the chosen ones until there are ``n``."""
    if len(chosen) >= n:
        return
    far = [min(abs(step - steps[at]) for at in chosen) for step in steps]
    while len(chosen) < n:
        new = max((at for at in range(len(steps)) if at not in chosen), key=far.__getitem__)
        chosen.add(new)
        far = [min(d, abs(step - steps[new])) for d, step in zip(far, steps, strict=True)]


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
            raise InvalidRequest(f"an age is a timedelta greater than 0, not {self.max_age!r}")

    def kept(self, checkpoints: Sequence[Candidate], now: datetime) -> set[str]:
        """Return the ids of those committed at or after ``now - max_age``."""
        since = now - self.max_age
        return {c.id for c in checkpoints if c.created_at >= since}


KEEP_ALL = KeepAll()
KEEP_LAST_N = KeepLastN
KEEP_AGE = KeepAge
KEEP_MILESTONES = KeepMilestones


class KeepReason(StrEnum):
    """Why a checkpoint stays; the first that holds."""

    HEAD = "head"
    LEAF = "leaf"
    BRANCH_POINT = "branch point"
    TAGGED = "tagged"
    PINNED = "pinned"
    NEEDED = "needed"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What a collection would drop and keep.

    Attributes:
        drop: Ids to drop, oldest first.
        kept: Id -> why it stays, oldest first.
    """

    drop: tuple[str, ...]
    kept: Mapping[str, KeepReason]

    @property
    def counts(self) -> dict[KeepReason, int]:
        """How many stay for each reason, in the order of the reasons, without zeros."""
        values = list(self.kept.values())
        return {reason: n for reason in KeepReason if (n := values.count(reason))}


def plan_retention(
    checkpoints: Iterable[Candidate],
    policy: RetentionPolicy,
    *,
    now: datetime,
    heads: Iterable[str] = (),
    origins: Iterable[str] = (),
    tagged: Iterable[str] = (),
    pinned: Iterable[str] = (),
    needed: Iterable[str] = (),
    only_threads: Collection[str] | None = None,
) -> RetentionPlan:
    """Return what the policy lets go of one session, less what must stay.

    Args:
        checkpoints: All of the session's, in any order.
        policy: What to keep.
        now: The present, as aware as the checkpoints' times.
        heads: Heads of threads.
        origins: Checkpoints that threads were branched from.
        tagged: Checkpoints with a tag.
        pinned: Seeds of running workflows.
        needed: Whatever else a survivor needs, such as a head that ``undo`` goes back to.
        only_threads: Drop from these threads alone; from all when absent.
    """
    ordered = sorted(checkpoints, key=lambda c: (c.created_at, c.step, c.id))
    leaves, forks = _shape(ordered)
    must = {
        KeepReason.POLICY: policy.kept(ordered, now),
        KeepReason.NEEDED: set(needed),
        KeepReason.PINNED: set(pinned),
        KeepReason.TAGGED: set(tagged),
        KeepReason.BRANCH_POINT: forks.union(origins),
        KeepReason.LEAF: leaves,
        KeepReason.HEAD: set(heads),
    }
    reasons = {i: reason for reason, ids in must.items() for i in ids}
    if only_threads is not None:
        for c in ordered:
            if c.thread_id not in only_threads:
                reasons.setdefault(c.id, KeepReason.NEEDED)
    return RetentionPlan(
        drop=tuple(c.id for c in ordered if c.id not in reasons),
        kept=MappingProxyType({c.id: reasons[c.id] for c in ordered if c.id in reasons}),
    )


def _shape(ordered: Sequence[Candidate]) -> tuple[set[str], set[str]]:
    """Return the leaves, and the checkpoints from which lines part for good.

    Parallel steps that are joined again reach the same leaves, so where they set out is no branch
    point; a branch of another thread always makes one.
    """
    children: dict[str, list[Candidate]] = defaultdict(list)
    reach: dict[str, int] = {}  # the leaves above a checkpoint, as bits
    leaves: set[str] = set()
    forks: set[str] = set()
    for c in sorted(ordered, key=lambda c: -c.step):
        above = children.get(c.id, ())
        masks = {reach[child.id] for child in above}
        if not above:
            masks = {1 << len(leaves)}
            leaves.add(c.id)
        whole = reach[c.id] = reduce(or_, masks)
        if whole not in masks or any(_branched(child, c) for child in above):
            forks.add(c.id)
        for parent in c.parents:
            children[parent].append(c)
    return leaves, forks


def _branched(child: Candidate, parent: Candidate) -> bool:
    return child.thread_id != parent.thread_id and child.parents[0] == parent.id
