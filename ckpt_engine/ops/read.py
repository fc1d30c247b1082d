"""From rows to what callers see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from types import NoneType
from typing import Any

from ..codec import LOG_PLACE, decompress, decompress_against, kind_of, unpack
from ..errors import CheckpointNotFound, Corrupted
from ..model import Checkpoint, CheckpointInfo, SnapshotTrigger, Thread, WorkflowRun, id_from_bytes
from ..store import CheckpointRow, In, RunRow, TagRow, ThreadRow
from ..summaries import labels_of
from .damaged import called
from .prepare import AGAINST, NO_RESULT, PART, STORED, TRIGGERS, dictionary_of, log_lengths
from .saying import changes, last_messages, summary
from .source import MESSAGES, Source

__all__ = ["checkpoint", "infos", "moment", "result_of", "run_of", "state_of", "threads"]


Known = dict[int, CheckpointRow]
"""Rows by cid."""


def moment(millis: int) -> datetime:
    """Return a stored time."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def _stored_moment(row: CheckpointRow | ThreadRow) -> datetime:
    try:
        return moment(row.at)
    except (ValueError, OverflowError, OSError) as err:
        raise Corrupted(f"the time of {called(row)} is damaged: {err}") from err


def _trigger(row: CheckpointRow) -> SnapshotTrigger:
    if not 0 <= row.trigger < len(TRIGGERS):
        raise Corrupted(f"{called(row)} has the unknown trigger {row.trigger}")
    return TRIGGERS[row.trigger]


def _meta(source: Source, row: CheckpointRow) -> list[Any]:
    """Return a checkpoint's metadata, next node and summary; each may be absent."""
    if row.meta is None:
        return [None, None, None]
    meta = unpack(row.meta, source.blobs)
    if type(meta) is not list or len(meta) != 3 or not isinstance(meta[0], (dict, NoneType)):
        raise Corrupted(f"the metadata of {called(row)} is damaged")
    return meta


def infos(
    source: Source, rows: Sequence[CheckpointRow], said: dict[int, Any] | None = None
) -> list[CheckpointInfo]:
    """Return what lists show of these checkpoints, in the same order.

    Args:
        source: With a transaction.
        rows: The checkpoints.
        said: Cid -> its last message, where that is known already.
    """
    tags = defaultdict(list)
    for tag in source.tx.find(TagRow, checkpoint=In([row.cid for row in rows])):
        tags[tag.checkpoint].append(tag.name)
    known = {row.cid: row for row in rows}
    wanted = [row.parent for row in rows if row.parent is not None and row.parent not in known]
    known.update({row.cid: row for row in source.tx.find(CheckpointRow, cid=In(wanted))})
    metas = {row.cid: _meta(source, row) for row in rows}
    untold = [row for row in rows if metas[row.cid][2] is None]
    if quiet := [row for row in untold if not row.own and row.result is None]:
        before = [known[row.parent] for row in quiet if row.parent in known]
        source.expect_states(row.state for row in (*quiet, *before))
    if said is None:
        said = last_messages(source, untold)
    return [
        CheckpointInfo(**_facts(source, row, known, sorted(tags[row.cid]), metas[row.cid], said))
        for row in rows
    ]


def _parents(source: Source, row: CheckpointRow, known: Known) -> list[CheckpointRow]:
    if row.nparents == 1 and row.parent in known:
        return [known[row.parent]]
    return source.parents(row)


def _facts(
    source: Source,
    row: CheckpointRow,
    known: Known,
    tags: list[str],
    meta: Any,
    said: dict[int, Any],
) -> dict[str, Any]:
    names = source.names(source.lineage(row.lineage).thread)
    parents = _parents(source, row, known)
    metadata, next_node, given = meta
    if given is None:
        changed = partial(changes, source, row, parents[0] if parents else None)
        given = summary(row, _trigger(row).value, said, metadata or {}, changed)
    edited = row.own < 0 and row.nparents == 1
    return {
        "id": id_from_bytes(row.id),
        "thread_id": names.thread,
        "session_id": names.session,
        "step": row.step,
        "parents": tuple(id_from_bytes(parent.id) for parent in parents),
        "trigger": _trigger(row),
        "created_at": _stored_moment(row),
        "node": row.node,
        "next_node": next_node,
        "message_count": row.length,
        "tags": tuple(tags),
        "labels": labels_of(metadata or {}, parents=len(parents), edited=edited),
        "metadata": metadata or {},
        "summary": given,
        "digest": row.digest.hex(),
    }


def checkpoint(source: Source, row: CheckpointRow) -> Checkpoint:
    """Return a whole checkpoint, its content made anew."""
    messages = source.values(row.lineage, MESSAGES, 0, row.length)
    said = {row.cid: messages[-1]} if row.own and messages else {}
    info = infos(source, [row], said)[0]
    facts = {name: getattr(info, name) for name in CheckpointInfo.__slots__}
    return Checkpoint(
        **facts,
        messages=messages,
        state=state_of(source, row),
        tools_result=result_of(source, row),
    )


def state_of(source: Source, row: CheckpointRow) -> dict[str, Any]:
    """Return a checkpoint's state, logs in it included."""
    logs = log_lengths(row)
    return unpack_state(source, source.state(row.state).values, row, logs)


def unpack_state(
    source: Source,
    packed: dict[str, bytes],
    row: CheckpointRow | None,
    logs: dict[str, tuple[int, bytes, int]],
) -> dict[str, Any]:
    """Return a packed state's values; its logs are read from the checkpoint's lineage."""
    state: dict[str, Any] = {}
    for value in packed.values():
        source.blobs.expect(value)
    for key, value in packed.items():
        if value == LOG_PLACE and row is not None:
            if key not in logs:
                raise Corrupted(f"{called(row)} does not say how long its log {key!r} is")
            state[key] = source.values(row.lineage, key, 0, logs[key][0])
        else:
            state[key] = unpack(value, source.blobs)
    return state


def result_of(source: Source, row: CheckpointRow) -> Any:
    """Return the stored result of a step."""
    fmt = kind_of(row.fmt)
    if fmt == NO_RESULT:
        return None
    if fmt not in (STORED, PART, AGAINST) or not row.result:
        raise Corrupted(f"the result of {called(row)} cannot be read")
    if fmt == STORED:
        packed = decompress(row.result[0], row.result[1:])
    else:
        own = source.items(row.lineage, MESSAGES, row.length - row.own, row.length)
        packed = _from_messages(source, fmt, row.result, own)
    return unpack(packed, source.blobs)


def _from_messages(source: Source, fmt: int, result: bytes, own: list[bytes]) -> bytes:
    if fmt == PART:
        try:
            start, size = unpack(result, {})
        except (TypeError, ValueError, KeyError) as err:
            raise Corrupted(f"where a result is cannot be read: {err!r}") from err
        return b"".join(own)[start : start + size]
    return decompress_against(result, dictionary_of(own, source.blobs))


def threads(source: Source, rows: Sequence[ThreadRow]) -> list[Thread]:
    """Return threads as callers see them, in the same order."""
    cids = {cid for row in rows for cid in (row.origin, row.head) if cid is not None}
    ids = {p.cid: id_from_bytes(p.id) for p in source.tx.find(CheckpointRow, cid=In(list(cids)))}
    return [
        Thread(
            id=row.name,
            session_id=source.names(row.pk).session,
            branch=row.branch,
            origin=_known(ids, row.origin),
            head=_known(ids, row.head),
            step=row.step,
            superseded_by=None if row.superseded is None else source.names(row.superseded).thread,
            created_at=_stored_moment(row),
        )
        for row in rows
    ]


def _known(ids: dict[int, str], cid: int | None) -> str | None:
    if cid is None:
        return None
    if cid not in ids:
        raise CheckpointNotFound(f"checkpoint {cid} that a thread names is missing")
    return ids[cid]


def run_of(row: RunRow) -> WorkflowRun:
    """Return a run as callers see it."""
    return WorkflowRun(
        namespace=row.namespace,
        workflow_id=row.workflow_id,
        run_id=row.run_id,
        workflow_type=row.workflow_type,
        task_queue=row.task_queue,
        supervisor=row.supervisor,
    )
