"""Merging a branch into another thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..checks import check_object, checked_object
from ..errors import InvalidRequest, MergeConflictError, NotInSession, shown
from ..graph import GraphNode, is_ancestor
from ..merge import Content, Reducer, Strategy, base_ids, find_base, merge_content, resolve_base
from ..model import ModelOrMapping, SnapshotTrigger, id_from_bytes, id_to_bytes, new_checkpoint_id
from ..reports import MergeResult
from ..store import CheckpointRow
from .called import thread_called
from .join import Joined
from .place import Placed
from .prepare import Draft, Given
from .read import state_of
from .source import MESSAGES, Source
from .travel import head_of
from .writing import Writing

__all__ = ["Merging", "node"]


class _NothingNewError(Exception):
    def __init__(self, head: CheckpointRow) -> None:
        super().__init__()
        self.head = head


class Merging(Writing):
    """The verb that joins two threads."""

    async def merge_branch(
        self,
        branch_thread_id: str,
        into_thread_id: str,
        *,
        strategy: Strategy = "raise",
        reducers: Mapping[str, Reducer] | None = None,
        metadata: ModelOrMapping | None = None,
    ) -> MergeResult:
        """Bring a branch's work into another thread, as a checkpoint with both heads as parents.

        Merging again what was merged does nothing.

        Args:
            branch_thread_id: The thread to merge.
            into_thread_id: The thread whose head moves.
            strategy: Whose value a conflict takes: ``ours`` is the thread merged into; ``raise``
                refuses conflicts.
            reducers: State key -> function of base, ours and theirs that merges it.
            metadata: Small facts to keep with the merge, such as who wanted it.

        Raises:
            MergeConflictError: Both sides changed something; ``conflicts`` lists what.
            InvalidRequest: ``strategy``, ``reducers`` or ``metadata`` is none.
            NotInSession: The threads belong to different sessions.
            Exception: What a reducer raises; nothing is merged.
            CheckpointNotFound: One of them has no checkpoint.

        Example:
            first = await engine.snapshot("chat", append=["hello"], state={"cost": 1})
            branch = await engine.branch(first, "cheap")
            await engine.snapshot(branch.id, append=["theirs"], state={"cost": 3})
            await engine.snapshot("chat", append=["ours"], state={"cost": 2})
            add = {"cost": lambda base, ours, theirs: ours + theirs - base}
            await engine.merge_branch(branch.id, "chat", reducers=add)
            merged = await engine.get_latest("chat")
            assert (merged.messages, merged.state) == (["hello", "ours", "theirs"], {"cost": 4})
        """
        facts = {} if metadata is None else checked_object(metadata, "metadata")
        check_object(reducers, "reducers", optional=True)
        for key, reducer in (reducers or {}).items():
            if not callable(reducer):
                raise InvalidRequest(
                    f"reducers[{shown(key)}] is no function of base, ours and theirs"
                )
        checkpoint_id = new_checkpoint_id()
        resolved: list[str] = []

        def build(_: bool, source: Source) -> Draft:
            resolved.clear()
            return self._merge_draft(
                source,
                id_to_bytes(checkpoint_id),
                (branch_thread_id, into_thread_id),
                strategy,
                reducers,
                resolved,
                facts,
            )

        try:
            placed = await self._commit(into_thread_id, build)
        except _NothingNewError as nothing:
            return MergeResult(checkpoint_id=id_from_bytes(nothing.head.id), created=False)
        assert isinstance(placed, Placed)
        return MergeResult(
            checkpoint_id=checkpoint_id, created=True, resolved=tuple(sorted(resolved))
        )

    def _merge_draft(
        self,
        source: Source,
        stored_id: bytes,
        names: tuple[str, str],
        strategy: Strategy,
        reducers: Mapping[str, Reducer] | None,
        resolved: list[str],
        metadata: Mapping[str, Any],
    ) -> Draft:
        _ = source.tx  # heads must be read, not remembered
        branch, into = (source.thread(name) for name in names)
        if branch.session != into.session:
            both = f"{thread_called(source, branch)} and {thread_called(source, into)}"
            raise NotInSession(f"{both} are of different sessions")
        if strategy not in ("raise", "ours", "theirs"):
            raise InvalidRequest(f"no strategy {shown(strategy)}: there are raise, ours and theirs")
        ours, theirs = head_of(source, into), head_of(source, branch)
        lookup = partial(node, source)
        mine, other = id_from_bytes(ours.id), id_from_bytes(theirs.id)
        if is_ancestor(other, mine, lookup):
            raise _NothingNewError(ours)
        base = find_base([mine], [other], lookup)
        contents = {
            i: _content(source, source.checkpoint(i)) for i in {*base_ids(base), mine, other}
        }
        three = (
            resolve_base(base, contents, self.config.logs),
            contents[mine],
            contents[other],
        )
        logs = self.config.logs
        merged = merge_content(*three, strategy=strategy, reducers=reducers, logs=logs)
        if merged.conflicts:
            keys = ", ".join(conflict.key for conflict in merged.conflicts)
            state = any(conflict.kind == "state" for conflict in merged.conflicts)
            more = ", or give reducers" if state else ""
            raise MergeConflictError(
                f"{thread_called(source, branch)} and {thread_called(source, into)} both changed "
                f'{keys}; choose strategy="ours" or "theirs"{more}',
                merged.conflicts,
            )
        resolved += merged.resolved
        schema = self._schema(source, [ours, theirs])
        draft = self._draft(
            source,
            Joined(ours),
            [ours, theirs],
            Given(
                messages=merged.messages,
                state=merged.state,
                summary=f"merge of {branch.branch}",
                node="merge",
                metadata={**metadata, "merged": names[0], **({"schema": schema} if schema else {})},
            ),
        )
        # what it adds belongs to the branch's own steps: a join must not count it twice
        for log in draft.logs.values():
            log.own = -1
        draft.id, draft.thread = stored_id, into.name
        draft.step = max(ours.step, theirs.step) + 1
        draft.trigger = SnapshotTrigger.MANUAL
        return draft


def node(source: Source, checkpoint_id: str) -> GraphNode[str]:
    """Return what the graph knows of a checkpoint."""
    row = source.checkpoint(checkpoint_id)
    parents = tuple(id_from_bytes(p.id) for p in source.parents(row))
    return GraphNode(row.step, parents, row.cid)


def _content(source: Source, row: CheckpointRow) -> Content:
    messages = source.values(row.lineage, MESSAGES, 0, row.length)
    return Content(messages, state_of(source, row))
