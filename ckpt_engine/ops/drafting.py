"""Drafts: what callers hand over, made into all of a checkpoint but where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import codec
from ..checks import (
    check_count,
    check_flag,
    check_ids,
    check_list,
    check_text,
    checked_object,
    checked_tags,
)
from ..errors import InvalidRequest
from ..model import StepCommit, id_to_bytes
from ..store import CheckpointRow, In
from ..triggers import parse_trigger
from . import prepare
from .forgetting import Forgetting
from .join import Joined, join
from .prepare import Draft, Given, LogDraft
from .source import MESSAGES, Source
from .walk import own_rows

__all__ = ["Drafting", "check_step", "given_by", "metadata_of"]


class Drafting(Forgetting):
    """Makes drafts."""

    def _snapshot_draft(
        self, source: Source, thread_id: str, parent_id: str | None, given: Given
    ) -> Draft:
        thread = source.maybe_thread(thread_id)
        parent = None
        if parent_id is not None:
            parent = source.checkpoint(parent_id)
        elif thread is not None and thread.head is not None:
            parent = source.by_cid(thread.head)
        parents = [parent] if parent else []
        rewritten = given.messages is not None and given.state is not None
        if schema := self._schema(source, [] if rewritten else parents):
            given = replace(given, metadata={**(given.metadata or {}), "schema": schema})
        draft = self._draft(source, Joined(parent), parents, given)
        draft.thread, draft.step = thread_id, parent.step + 1 if parent else 0
        draft.kind = "head" if parent_id is None else "parent"
        return draft

    def _step_draft(
        self, source: Source, step: StepCommit, given: Given, stored_id: bytes, *, late: bool
    ) -> Draft:
        source.thread(step.thread_id)
        parents, missing = self._parents(source, step)
        if parents and step.step <= max(row.step for row in parents):
            raise InvalidRequest(
                f"step {step.step} must be greater than its parents' steps "
                f"({', '.join(str(row.step) for row in parents)})"
            )
        start = join(source, parents)
        metadata = dict(given.metadata or {})
        summary = metadata.pop("summary", None)
        if late:
            metadata["late"] = True
        if missing:
            metadata["gap"] = missing
        if start.disputed:
            metadata["disputed"] = list(start.disputed)
        rewritten = step.messages is not None and step.state is not None
        if schema := self._schema(source, [] if rewritten else parents):
            metadata["schema"] = schema
        summary = None if summary is None else str(summary)
        given = replace(given, metadata=metadata, summary=summary)
        draft = self._draft(source, start, parents, given)
        draft.id, draft.thread = stored_id, step.thread_id
        draft.trigger = parse_trigger(step.trigger)
        draft.step, draft.kind, draft.first, draft.late = step.step, "step", step.first, late
        return draft

    def _schema(self, source: Source, parents: Sequence[CheckpointRow]) -> int:
        """Return the schema version of content that goes on from these parents."""
        current = self.config.schema_version
        if not current or not parents:
            return current
        return min(int(metadata_of(source, row).get("schema", 0)) for row in parents)

    def _parents(self, source: Source, step: StepCommit) -> tuple[list[CheckpointRow], list[str]]:
        """Return the parents, and which of them were never committed."""
        parents = tuple(dict.fromkeys(step.parents))
        if not step.fallback_to_head:
            return [source.checkpoint(parent) for parent in parents], []
        rows = [source.maybe_checkpoint(id_to_bytes(parent)) for parent in parents]
        found = [row for row in rows if row is not None]
        missing = [p for p, row in zip(parents, rows, strict=True) if row is None]
        if not missing or found:
            return found, missing
        thread = source.thread(step.thread_id)
        below = own_rows(source, thread, step.step - 1)
        if below:
            return [max(below, key=lambda row: (row.step, row.id))], missing
        heads = [cid for cid in (thread.origin, thread.turned, thread.head) if cid is not None]
        left = source.tx.find(CheckpointRow, cid=In(heads))
        lower = [row for cid in heads for row in left if row.cid == cid and row.step < step.step]
        return lower[:1], missing

    def _draft(
        self, source: Source, start: Joined, parents: list[CheckpointRow], given: Given
    ) -> Draft:
        log = _messages(source, start, given)
        logs = {MESSAGES: log}
        before = source.state(parents[0].state if parents else None)
        values, whole, state_blobs = self._values(source, start, before.values, logs, given)
        after, row = prepare.next_state(
            source, before, values, whole, deltas=self.config.delta_snapshots
        )
        meta, result, fmt, blobs = prepare.finish(given, log)
        draft = Draft(
            parents=parents,
            prefix=start.prefix,
            logs=logs,
            state=after,
            state_row=row,
            state_blobs=state_blobs,
            at=prepare.now_ms(),
            meta=meta,
            result=result,
            fmt=fmt,
            blobs=blobs,
            node=given.node,
            tags=given.tags,
        )
        if self.config.max_snapshot_size_mb is not None:
            codec.check_size(_size(draft), self.config.max_snapshot_size_mb)
        return draft

    def _values(
        self,
        source: Source,
        start: Joined,
        before: dict[str, bytes],
        logs: dict[str, LogDraft],
        given: Given,
    ) -> tuple[dict[str, bytes], bytes | None, codec.Blobs]:
        """Return the packed state after the step by key, and as a whole where that is known.

        Lists that are logs go to ``logs``.
        """
        old = before if start.state is None else start.state
        state = given.state if given.state is not None else given.state_set
        changes = {} if state is None else dict(state)
        if names := self._log_names(start):
            self._move_logs(source, start, names, changes, logs)
        packed: dict[str, bytes] = {}
        whole: bytes | None = None
        blobs: codec.Blobs = {}
        if changes:
            packed, whole, blobs = prepare.packed_state(changes, old)
        if given.state is not None:
            if len(packed) == len(given.state):
                return packed, whole, blobs
            return {key: packed.get(key, codec.LOG_PLACE) for key in given.state}, None, blobs
        if not state and not given.state_delete:
            return old, None, blobs
        values = {**old, **packed}
        for name in logs:
            if name in (state or ()) and name not in packed:
                values[name] = codec.LOG_PLACE
        for key in given.state_delete:
            values.pop(key, None)
        return values, None, blobs

    @staticmethod
    def _move_logs(
        source: Source,
        start: Joined,
        names: Sequence[str],
        changes: dict[str, Any],
        logs: dict[str, LogDraft],
    ) -> None:
        """Move the lists that are logs from the changes of the state to the logs."""
        known = prepare.log_lengths(start.prefix)
        for name in names:
            if isinstance(changes.get(name), list):
                items = changes.pop(name)
                logs[name] = _replaced(source, start, name, items, f"state[{name!r}]")
            elif name in start.whole:
                whole = start.whole[name]
                logs[name] = prepare.rejoined(source, name, start.prefix, whole, (), "state")
            elif name in known or name in start.copied:
                copied = start.copied.get(name, [])
                logs[name] = prepare.appended(start.prefix, name, copied, (), "state")

    def _log_names(self, start: Joined) -> Sequence[str]:
        """Return which keys of the state are, or are to be, logs."""
        known = start.prefix is not None and start.prefix.logs is not None
        if not (self.config.logs or known or start.copied or start.whole):
            return ()
        joined = (*start.copied, *start.whole)
        names = (*self.config.logs, *prepare.log_lengths(start.prefix), *joined)
        return [name for name in dict.fromkeys(names) if name != MESSAGES]


def _messages(source: Source, start: Joined, given: Given) -> LogDraft:
    """Return the conversation after the step."""
    if given.messages is not None:
        return _replaced(source, start, MESSAGES, given.messages, "messages")
    if MESSAGES in start.whole:
        joined = start.whole[MESSAGES]
        return prepare.rejoined(source, MESSAGES, start.prefix, joined, given.append, "append")
    copied = start.copied.get(MESSAGES, ()) if start.copied else ()
    return prepare.appended(start.prefix, MESSAGES, copied, given.append, "append")


def _replaced(
    source: Source, start: Joined, name: str, items: Sequence[Any], where: str
) -> LogDraft:
    log = prepare.replaced(source, name, start.prefix, items, where)
    if start.copied.get(name) or name in start.whole:
        log.own = -1  # some of it is what other lines added
    return log


def _size(draft: Draft) -> int:
    """Return the bytes of a snapshot that are new."""
    size = len(draft.meta or b"") + prepare.result_size(draft.result, draft.fmt)
    size += sum(len(text.encode()) for text in (draft.node or "", *draft.tags))
    if draft.state_row is not None:
        size += len(draft.state_row[1])
    logs = draft.logs.values()
    size += sum(len(item) for log in logs for item in (*log.fresh, *log.items))
    apart = (draft.blobs, draft.state_blobs, *(log.blobs for log in logs))
    return size + sum(len(value) for blobs in apart for value in blobs.values())


def metadata_of(source: Source, row: CheckpointRow) -> dict[str, Any]:
    """Return a checkpoint's metadata."""
    found = codec.unpack(row.meta, source.blobs)[0] if row.meta is not None else None
    return found or {}


def check_step(step: StepCommit) -> StepCommit:
    """Return a step, with plain texts; refuse one that says what cannot be.

    What its draft checks is left to that.

    Raises:
        InvalidRequest: Something in it is of the wrong type, or contradicts something else.
    """
    if not isinstance(step, StepCommit):
        raise InvalidRequest(f"commit_step takes a StepCommit, not a {type(step).__name__}")
    check_count(step.step, "step")
    for name in ("first", "fallback_to_head"):
        check_flag(getattr(step, name), name)
    check_ids(step.parents, "parents")
    check_list(step.append, "append", "messages")
    check_list(step.state_delete, "state_delete", "keys")
    for key in step.state_delete:
        check_text(key, "a key in state_delete")
    if step.messages is not None and step.append:
        raise InvalidRequest("give messages (all) or append (the new ones), not both")
    texts = {"thread_id": step.thread_id, "node": step.node, "next_node": step.next_node}
    plain: dict[str, Any] = {
        name: check_text(text, name) for name, text in texts.items() if text is not None
    }
    return replace(step, **plain) if any(plain[name] is not texts[name] for name in plain) else step


def given_by(step: StepCommit) -> Given:
    """Return the content of a step.

    Raises:
        InvalidRequest: Something in it is of the wrong type, or contradicts something else.
        Unstorable: A model in place of an object has no JSON form.
    """
    given = Given(
        messages=step.messages,
        append=step.append,
        state=None if step.state is None else checked_object(step.state, "state"),
        state_set=checked_object(step.state_set, "state_set"),
        state_delete=step.state_delete,
        tools_result=step.tools_result,
        next_node=step.next_node,
        metadata=checked_object(step.metadata, "metadata"),
        node=step.node,
        tags=checked_tags(step.tags),
    )
    given.check()
    if given.state is not None and (given.state_set or given.state_delete):
        raise InvalidRequest("give state (all) or state_set and state_delete, not both")
    return given
