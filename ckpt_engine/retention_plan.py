"""What goes and what stays of a session, and why: from a policy a plan. Nothing here does I/O.

A policy says what is wanted; the plan adds what must stay whatever the policy says, so that no
policy can break a branch, and no merge of two survivors comes out differently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from itertools import chain, compress
from operator import index, or_
from types import MappingProxyType
from typing import Any, SupportsIndex

from .errors import InvalidRequest, shown
from .retention import Candidates, RetentionPolicy

__all__ = ["KeepReason", "RetentionPlan", "flipped", "plan_retention"]

_MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
_FLIPPED = bytes([True, False]).ljust(256, b"\0")


class KeepReason(StrEnum):
    """Why a checkpoint stays; the first that holds."""

    HEAD = "head"
    LEAF = "leaf"
    BRANCH_POINT = "branch point"
    TAGGED = "tagged"
    PINNED = "pinned"
    NEEDED = "needed"
    POLICY = "policy"
    MERGE_BASE = "merge base"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What a collection would drop and keep.

    Attributes:
        drop: Positions to drop, oldest first.
        stays: Reason -> positions that stay for it and for no stronger one, where there are any.
    """

    drop: tuple[int, ...]
    stays: Mapping[KeepReason, tuple[int, ...]]

    @property
    def kept(self) -> dict[int, KeepReason]:
        """Position -> why it stays."""
        return {n: reason for reason, positions in self.stays.items() for n in positions}

    @property
    def counts(self) -> dict[KeepReason, int]:
        """How many stay for each reason, in the order of the reasons, without zeros."""
        return {reason: len(self.stays[reason]) for reason in KeepReason if reason in self.stays}


def plan_retention(
    checkpoints: Candidates,
    policy: RetentionPolicy,
    *,
    now: datetime,
    heads: Iterable[int] = (),
    origins: Iterable[int] = (),
    tagged: Iterable[int] = (),
    pinned: Iterable[int] = (),
    needed: Iterable[int] = (),
    only_threads: Collection[str] | None = None,
) -> RetentionPlan:
    """Return what the policy lets go of one session, less what must stay.

    Args:
        checkpoints: All of the session's; they go by their positions here.
        policy: What to keep.
        now: The present, as aware as the checkpoints' times.
        heads: Heads of threads.
        origins: Checkpoints that threads were branched from.
        tagged: Checkpoints with a tag.
        pinned: Seeds of running workflows.
        needed: Whatever else a survivor needs, such as a head that ``undo`` goes back to.
        only_threads: Drop from these threads alone; from all when absent.

    Raises:
        InvalidRequest: The policy failed, or returned something that is not the position of a
            checkpoint.
    """
    leaves, forks = _shape(checkpoints)
    must: list[tuple[KeepReason, Iterable[int]]] = [
        (KeepReason.HEAD, heads),
        (KeepReason.LEAF, leaves),
        (KeepReason.BRANCH_POINT, chain(forks, origins)),
        (KeepReason.TAGGED, tagged),
        (KeepReason.PINNED, pinned),
        (KeepReason.NEEDED, needed),
        (KeepReason.POLICY, _chosen(policy, checkpoints, now)),
        (KeepReason.NEEDED, _of_others(checkpoints.threads, only_threads)),
    ]
    kept = bytearray(len(checkpoints))
    stays: dict[KeepReason, list[int]] = defaultdict(list)
    for reason, wanted in must:
        for n in _checked(wanted, len(checkpoints)):
            if not kept[n]:
                kept[n] = True
                stays[reason].append(n)
    if checkpoints.further and (bases := _merge_bases(checkpoints, kept)):
        stays[KeepReason.MERGE_BASE] = bases
    return RetentionPlan(
        drop=tuple(compress(range(len(kept)), flipped(kept))),
        stays=MappingProxyType({why: tuple(found) for why, found in stays.items()}),
    )


def _chosen(policy: RetentionPolicy, checkpoints: Candidates, now: datetime) -> list[Any]:
    """Return what a policy keeps; whatever goes wrong in it has its name."""
    try:
        kept = list(policy.kept(checkpoints, now))
    except _MISTAKES as err:
        raise InvalidRequest(
            f"the retention policy {shown(policy)} failed: {type(err).__name__}: {err}"
        ) from err
    if kept and isinstance(kept[0], bool):
        raise InvalidRequest(
            f"the retention policy {shown(policy)} must return positions, not a flag for each"
        )
    return kept


def flipped(flags: bytearray) -> bytearray:
    """Return flags, a byte each, that are set where these are not."""
    return flags.translate(_FLIPPED)


def _checked(positions: Iterable[SupportsIndex], count: int) -> list[int]:
    """Return these positions, of so many, as integers.

    Raises:
        InvalidRequest: One of them is something else.
    """
    given = list(positions)
    try:
        found = list(map(index, given))
    except TypeError:
        strange = next(n for n in given if not isinstance(n, SupportsIndex))
    else:
        if not found or 0 <= min(found) <= max(found) < count:
            return found
        strange = next(n for n in found if not 0 <= n < count)
    raise InvalidRequest(f"what stays are positions from 0 to {count - 1}, not {strange!r}")


def _of_others(threads: Sequence[str], only: Collection[str] | None) -> list[int]:
    """Return the positions on threads that nothing is to be dropped from."""
    others = set() if only is None else set(threads).difference(only)
    return [n for n, thread in enumerate(threads) if thread in others] if others else []


def _shape(checkpoints: Candidates) -> tuple[set[int], set[int]]:
    """Return the leaves, and the checkpoints from which lines part for good.

    Parallel steps that are joined again reach the same leaves, so where they set out is no branch
    point; a branch of another thread always makes one.
    """
    threads, firsts = checkpoints.threads, checkpoints.firsts
    newest = len(checkpoints) - 1
    if checkpoints.further:
        leaves, forks = _shape_of_joined(checkpoints)
    elif firsts == [None, *range(newest)]:  # a straight line, as mostly
        leaves, forks = {newest}, set()
    else:  # lines that part never meet again
        children = Counter(firsts)
        leaves = set(range(len(checkpoints))).difference(children)
        forks = {parent for parent, count in children.items() if count > 1 and parent is not None}
    if len(set(threads)) > 1:
        forks |= {p for n, p in enumerate(firsts) if p is not None and threads[n] != threads[p]}
    return leaves, forks


def _shape_of_joined(checkpoints: Candidates) -> tuple[set[int], set[int]]:
    above: dict[int, set[int]] = defaultdict(set)  # what each of a checkpoint's children reaches
    leaves: set[int] = set()
    forks: set[int] = set()
    for n in sorted(range(len(checkpoints)), key=checkpoints.steps.__getitem__, reverse=True):
        masks = above.pop(n, None)
        if masks is None:
            masks = {1 << len(leaves)}
            leaves.add(n)
        whole = reduce(or_, masks)
        if whole not in masks:
            forks.add(n)
        for parent in checkpoints.parents(n):
            above[parent].add(whole)
    return leaves, forks


def _merge_bases(checkpoints: Candidates, kept: bytearray) -> list[int]:
    """Keep each best common ancestor of two that stay, and of those again; return what that adds.

    A checkpoint is none, and may go, where one of the survivors that follow it is followed by all
    others of them. So the newest are decided first, and one pass is enough. What stays is closed
    under :func:`~ckpt_engine.graph.merge_bases`: no merge of survivors, or of what will follow
    them, gets another base, not even after a criss-cross, whose base is made of bases of bases.

    Branch points aside, only a checkpoint that was merged, or after which lines met again, can be
    one. Threads of which each branched once and was merged need none but their branch points; two
    that are merged into each other again and again, no more than there are other survivors. Only
    below a criss-cross stays all that it is made of.

    Args:
        checkpoints: A session's, with joins; without them its branch points are all the bases.
        kept: A flag for each that stays, leaves among them; it gets those of what is added.
    """
    above: dict[int, set[int]] = defaultdict(set)  # survivors from each child on, as bits
    found: list[int] = []
    bit = 1
    for n in sorted(range(len(kept)), key=checkpoints.steps.__getitem__, reverse=True):
        masks = above.pop(n, {0})
        whole = reduce(or_, masks)
        if not kept[n] and whole not in masks:
            kept[n] = True
            found.append(n)
        parents = checkpoints.parents(n)
        if kept[n] and not all(map(kept.__getitem__, parents)):  # else no dropped one's next
            whole |= bit
            bit <<= 1
        for parent in parents:
            above[parent].add(whole)
    return found[::-1]
