"""Read-only views: the tree of a session, and how two checkpoints differ."""

from __future__ import annotations

from typing import Any

from . import codec
from .graph import merge_base
from .model import (
    CheckpointDiff,
    CheckpointTree,
    KeyChange,
    TreeEdge,
    TreeNode,
)
from .ops import heads, read
from .ops.merging import node
from .ops.prepare import log_lengths
from .ops.registry import session_runs, session_threads
from .ops.source import MESSAGES, Source
from .ops.walk import session_lineages
from .store import CheckpointRow, In

__all__ = ["diff", "tree"]


def tree(source: Source, thread_id: str) -> CheckpointTree:
    """Return the whole session of a thread."""
    threads = session_threads(source, thread_id)
    root = threads[0]
    lineages = session_lineages(source, root.pk)
    rows = source.tx.find(CheckpointRow, lineage=In(list(lineages)))
    rows.sort(key=lambda row: (row.step, row.cid))
    infos = read.infos(source, rows)
    heads_ = {row.head for row in threads}
    owner = {info.id: info.thread_id for info in infos}
    edges = [
        TreeEdge(parent=parent, child=info.id, kind=_kind(owner, info.thread_id, parent, place))
        for info in infos
        for place, parent in enumerate(info.parents)
    ]
    return CheckpointTree(
        session_id=root.name,
        active_thread=heads.active(source, root.name).name,
        threads=tuple(read.threads(source, threads)),
        runs=session_runs(source, threads),
        nodes=tuple(
            TreeNode(info=info, is_head=row.cid in heads_)
            for info, row in zip(infos, rows, strict=True)
        ),
        edges=tuple(edges),
    )


def _kind(owner: dict[str, str], thread: str, parent: str, place: int) -> Any:
    if place:
        return "merge"
    return "step" if owner.get(parent) == thread else "fork"


def diff(source: Source, a: str, b: str) -> CheckpointDiff:
    """Return how checkpoint ``b`` differs from ``a``."""
    left, right = source.checkpoint(a), source.checkpoint(b)
    common = _common_messages(source, left, right)
    before, after = read.state_of(source, left), read.state_of(source, right)
    packed = [_packed_state(source, row) for row in (left, right)]
    changes = []
    for key in sorted({*before, *after}):
        if key not in before:
            changes.append(KeyChange(key=key, kind="added", after=after[key]))
        elif key not in after:
            changes.append(KeyChange(key=key, kind="removed", before=before[key]))
        elif packed[0][key] != packed[1][key] and _differ(before[key], after[key]):
            changes.append(KeyChange(key=key, kind="changed", before=before[key], after=after[key]))
    return CheckpointDiff(
        a=a,
        b=b,
        merge_base=merge_base(a, b, lambda i: node(source, i)),
        common_messages=common,
        messages_removed=tuple(source.values(left.lineage, MESSAGES, common, left.length)),
        messages_added=tuple(source.values(right.lineage, MESSAGES, common, right.length)),
        state=tuple(changes),
    )


def _differ(before: Any, after: Any) -> bool:
    """Compare values exactly: one of them may be kept apart and the other not."""
    return codec.pack(before, None) != codec.pack(after, None)


def _common_messages(source: Source, left: CheckpointRow, right: CheckpointRow) -> int:
    first = source.items(left.lineage, MESSAGES, 0, left.length)
    second = source.items(right.lineage, MESSAGES, 0, right.length)
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(first), len(second)))


def _packed_state(source: Source, row: CheckpointRow) -> dict[str, Any]:
    """Return the state so that equal values, and only those, are equal."""
    packed: dict[str, Any] = dict(source.state(row.state).values)
    for name, (length, chain, _) in log_lengths(row).items():
        if name in packed and name != MESSAGES:
            packed[name] = (packed[name], length, chain)
    return packed
