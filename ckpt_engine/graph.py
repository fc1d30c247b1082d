"""Ancestry over a graph of checkpoints: pure functions over a lookup of one node.

Every parent has a smaller step than its child. So visiting by falling step reaches a checkpoint
only after everything that follows it, and one pass answers each question here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from .errors import InvalidRequest

__all__ = [
    "GraphNode",
    "Lookup",
    "ancestors",
    "frontier",
    "is_ancestor",
    "line",
    "merge_base",
    "merge_bases",
    "missing_from",
    "nearest_kept",
    "nearest_step",
]


K = TypeVar("K", str, int)
"""What names a checkpoint."""


class GraphNode(NamedTuple, Generic[K]):
    """What the graph knows of a checkpoint.

    Attributes:
        step: Its number, greater than every parent's.
        parents: Their names; the first one is the line it extends.
        number: Which of those of the same step is named first, since names are random.
    """

    step: int
    parents: tuple[K, ...]
    number: int = 0


Lookup = Callable[[K], GraphNode[K]]
"""From a name to its node; whatever it raises for an unknown id passes through."""


def ancestors(starts: Iterable[str], lookup: Lookup[str]) -> Iterator[str]:
    """Yield the starts and all their ancestors, newest step first, each once.

    Checkpoints of equal step come in the order of their ids, so that the order never depends on
    who asks.
    """
    for _, checkpoint_id in _newest_first(starts, lookup):
        yield checkpoint_id


def _newest_first(starts: Iterable[K], lookup: Lookup[K]) -> Iterator[tuple[GraphNode[K], K]]:
    seen = set(starts)
    queue = [(-lookup(i).step, i) for i in seen]
    heapq.heapify(queue)
    while queue:
        _, checkpoint_id = heapq.heappop(queue)
        node = lookup(checkpoint_id)
        yield node, checkpoint_id
        for parent in node.parents:
            if parent not in seen:
                seen.add(parent)
                heapq.heappush(queue, (-_older(node, parent, lookup).step, parent))


def _older(child: GraphNode[K], parent: K, lookup: Lookup[K]) -> GraphNode[K]:
    node = lookup(parent)
    if node.step >= child.step:
        raise InvalidRequest(
            f"step {child.step} cannot follow checkpoint {parent}, whose step is {node.step}"
        )
    return node


def line(head: str, lookup: Lookup[str]) -> Iterator[str]:
    """Yield the head and its first parents, newest first: the line that it extends."""
    current: str | None = head
    while current is not None:
        yield current
        parents = lookup(current).parents
        current = parents[0] if parents else None


def nearest_step(head: str, step: int, lookup: Lookup[str]) -> str | None:
    """Return the newest checkpoint at or before ``step`` on the head's line; ``None`` if none."""
    return next((i for i in line(head, lookup) if lookup(i).step <= step), None)


def is_ancestor(ancestor: K, of: K, lookup: Lookup[K]) -> bool:
    """Tell whether ``ancestor`` is ``of`` itself or one of its ancestors."""
    floor = lookup(ancestor).step
    for node, checkpoint_id in _newest_first([of], lookup):
        if checkpoint_id == ancestor:
            return True
        if node.step < floor:
            break
    return False


def frontier(starts: Iterable[str], step: int, lookup: Lookup[str]) -> tuple[str, ...]:
    """Return what is done at ``step`` and followed by nothing that is done at it, in step order.

    Args:
        starts: The tips to look back from.
        step: The newest step that counts as done.
        lookup: From an id to its node.
    """
    followed: set[str] = set()
    found: list[str] = []
    for node, checkpoint_id in _newest_first(starts, lookup):
        if node.step > step:
            continue
        if checkpoint_id not in followed:
            found.append(checkpoint_id)
        followed.update(node.parents)
    return tuple(sorted(found, key=lambda i: (lookup(i).step, i)))


_OURS, _THEIRS, _STALE = 1, 2, 4


def merge_bases(ours: Iterable[str], theirs: Iterable[str], lookup: Lookup[str]) -> tuple[str, ...]:
    """Return the best common ancestors of two sides, newest first.

    Best means that no other common ancestor descends from it. There is one, or none, or after
    criss-cross merges several. A side may be several checkpoints, which stands for their join.
    Those of the same step come by number, so that no collection changes their order; of equal
    number, what our side leads to comes first.
    """
    flags: dict[str, int] = {}
    for side, starts in ((_OURS, ours), (_THEIRS, theirs)):
        for start in starts:
            flags[start] = flags.get(start, 0) | side
    queue = [(-lookup(i).step, place, i) for place, i in enumerate(flags)]
    heapq.heapify(queue)
    undecided = len(queue)  # queued checkpoints that are not yet known to be below a base
    bases: list[str] = []
    while queue and undecided:
        _, _, checkpoint_id = heapq.heappop(queue)
        flag = flags[checkpoint_id]
        undecided -= not flag & _STALE
        if flag == _OURS | _THEIRS:
            bases.append(checkpoint_id)
            flag |= _STALE
        node = lookup(checkpoint_id)
        for parent in node.parents:
            before = flags.get(parent)
            after = flags[parent] = (before or 0) | flag
            if before is None:
                heapq.heappush(queue, (-_older(node, parent, lookup).step, len(flags), parent))
                undecided += not after & _STALE
            elif after & _STALE and not before & _STALE:
                undecided -= 1
    return tuple(sorted(bases, key=lambda i: (-lookup(i).step, lookup(i).number)))


def merge_base(ours: str, theirs: str, lookup: Lookup[str]) -> str | None:
    """Return the newest of the best common ancestors, or ``None`` when nothing is shared."""
    return next(iter(merge_bases([ours], [theirs], lookup)), None)


def missing_from(tip: str, others: Iterable[str], lookup: Lookup[str]) -> tuple[str, ...]:
    """Return the ancestors of ``tip``, itself included, that no other side has, oldest first.

    In this order their additions can be appended to what the others have.
    """
    have = set(ancestors(others, lookup))
    return tuple(i for i in ancestors([tip], lookup) if i not in have)[::-1]


def nearest_kept(parents: Iterable[K], dropped: Collection[K], lookup: Lookup[K]) -> tuple[K, ...]:
    """Return the parents that a checkpoint has once ``dropped`` ones are skipped.

    Each dropped parent gives place to its own nearest kept ancestors; one that another of the
    results descends from is left out. The first line stays first.
    """
    waiting = list(parents)[::-1]
    seen = _below_kept(waiting, dropped, lookup)
    found: list[K] = []
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in dropped:
            waiting.extend(reversed(lookup(current).parents))
        else:
            found.append(current)
    return tuple(found)


def _below_kept(starts: Iterable[K], dropped: Collection[K], lookup: Lookup[K]) -> set[K]:
    """Return what is met on the way to the nearest kept ancestors but is below one of them."""
    below: set[K] = set()
    met = set(starts)
    queue = [(-lookup(i).step, i) for i in met]
    heapq.heapify(queue)
    undecided = len(queue)  # queued checkpoints that are not yet known to be below one
    while undecided:
        _, current = heapq.heappop(queue)
        covered = current in below
        undecided -= not covered
        node = lookup(current)
        for parent in node.parents:
            if new := parent not in met:
                met.add(parent)
                heapq.heappush(queue, (-_older(node, parent, lookup).step, parent))
            if parent in below:
                continue
            if covered or current not in dropped:
                below.add(parent)
                undecided -= not new
            else:
                undecided += new
    return below
