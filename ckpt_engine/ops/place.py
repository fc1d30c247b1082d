"""Placing a draft: everything that is decided inside the transaction.

A checkpoint goes behind its first parent in the same lineage where that is the end of a line that
nobody has left; otherwise a new lineage begins, which points into its ancestor's rows.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .. import codec
from ..errors import CheckpointNotFound, Conflict, InvalidRequest, NotInSession, ThreadNotFound
from ..model import id_from_bytes
from ..store import (
    Batch,
    Blob,
    BlobRef,
    CheckpointRow,
    Edge,
    HeadMoveRow,
    In,
    Lineage,
    StateRow,
    TagRow,
    ThreadRow,
    Tx,
)
from .compacting import beginning, compact
from .prepare import TRIGGERS, Draft, LogDraft
from .source import MESSAGES, LoadedState

__all__ = ["OWNER", "Placed", "StaleError", "place"]

OWNER = {"batch": 0, "state": 1, "checkpoint": 2}
"""Kinds of rows that hold references to blobs."""


_encode = msgspec.msgpack.Encoder().encode
_TRIGGER_NO = {trigger: number for number, trigger in enumerate(TRIGGERS)}


class StaleError(Conflict):
    """What the draft was prepared for has changed: prepare it again, ``late`` or not.

    ``forgotten``: what is remembered of it is out of date, since a part of it was erased.
    """

    def __init__(self, *, late: bool = False, forgotten: bool = False) -> None:
        super().__init__("another write was first")
        self.late = late
        self.forgotten = forgotten


class Placed(NamedTuple):
    """What a commit stored; ``batches`` are the keys of the rows of its logs."""

    row: CheckpointRow
    thread: ThreadRow
    state: LoadedState
    late: bool
    batches: list[int]


def place(tx: Tx, draft: Draft) -> Placed:
    """Store the draft.

    Raises:
        StaleError: The head has moved since it was prepared.
        ThreadNotFound: The thread is not there.
        CheckpointNotFound: A parent is not there any more.
        NotInSession: A parent belongs to another session.
    """
    thread = tx.thread(draft.thread)
    if thread is None:
        raise ThreadNotFound(f"there is no thread {draft.thread!r}")
    parent = draft.parents[0] if draft.parents else None
    if draft.kind == "head" and thread.head != (parent.cid if parent else None):
        raise StaleError
    if parent is None and thread.head is not None:
        raise InvalidRequest(f"thread {draft.thread!r} has begun: a further step needs parents")
    turn = draft.kind == "parent" and parent is not None and thread.head != parent.cid
    left = parent is not None and _check_parents(tx, draft, thread)
    late = draft.kind == "step" and (left or thread.superseded is not None)
    if late != draft.late:
        raise StaleError(late=late)
    lineage, new = _lineage(tx, draft, thread, fork=left or turn, left=left)
    state = _put_state(tx, draft)
    row = _checkpoint(tx, draft, lineage, state)
    batches = _put_logs(tx, draft, lineage)
    if draft.blobs:
        _put_blobs(tx, draft.blobs, OWNER["checkpoint"], row.cid)
    if new is not None:
        tx.insert(new)
    tx.insert(row)
    for place_no, other in enumerate(draft.parents[1:], 1):
        tx.insert(Edge(row.cid, place_no, other.cid))
    for name in draft.tags:
        tx.insert(TagRow(row.cid, name, thread.pk, draft.at))
    if turn:
        thread = _turned(tx, draft, thread, row, lineage)
    thread = _advanced(draft, thread, row, left=left)
    tx.update(thread)
    return Placed(row, thread, state, late, batches)


def _check_parents(tx: Tx, draft: Draft, thread: ThreadRow) -> bool:
    """Check that the parents exist in this session; return whether their line was left."""
    for number, parent in enumerate(draft.parents):
        if number == 0 and parent.cid == thread.open_tip:
            continue  # the end of this thread's own line: it is kept, and it is here
        stored = tx.checkpoint(parent.id)
        if stored is None:
            raise CheckpointNotFound(f"there is no checkpoint {id_from_bytes(parent.id)} any more")
        if stored.state != parent.state:
            raise StaleError(late=draft.late, forgotten=True)
        owner = _owner(tx, parent)
        if owner.session != thread.session:
            raise NotInSession(
                f"checkpoint {id_from_bytes(parent.id)} belongs to another session than thread "
                f"{thread.name!r}"
            )
    parent = draft.parents[0]
    if thread.turned is None or draft.kind != "step" or parent.cid == thread.open_tip:
        return False
    if parent.cid in (thread.turned, thread.head):
        return False
    lineage = _row(tx, parent.lineage)
    return lineage.thread != thread.pk or lineage.pk <= thread.closed or bool(lineage.late)


def _owner(tx: Tx, row: CheckpointRow) -> ThreadRow:
    thread = tx.one(ThreadRow, pk=_row(tx, row.lineage).thread)
    if thread is None:
        raise ThreadNotFound(f"the thread of checkpoint {id_from_bytes(row.id)} is missing")
    return thread


def _row(tx: Tx, pk: int) -> Lineage:
    lineage = tx.one(Lineage, pk=pk)
    if lineage is None:
        raise CheckpointNotFound(f"lineage {pk} is not there any more")
    return lineage


def _lineage(
    tx: Tx, draft: Draft, thread: ThreadRow, *, fork: bool, left: bool
) -> tuple[int, Lineage | None]:
    """Return the key of the lineage that the checkpoint goes to, and its row if that is new."""
    parent = draft.parents[0] if draft.parents else None
    whole = _same(draft.prefix, parent) and all(log.keep == log.base for log in draft.logs.values())
    if parent is not None and whole and draft.first and not fork:
        if parent.cid == thread.open_tip:
            return parent.lineage, None
        found = _row(tx, parent.lineage)
        if found.thread == thread.pk and found.pk > thread.closed and _is_tip(tx, parent):
            return found.pk, None
    pk = tx.next_pk(Lineage)
    if parent is None:
        return pk, Lineage(pk, thread.pk, None, None, 0, None)
    pieces = None
    if draft.prefix is not None:
        prefix = _row(tx, draft.prefix.lineage)
        compact(tx, prefix, draft.logs)
        pieces = _pieces(tx, prefix, draft.logs, thread)
    return pk, Lineage(pk, thread.pk, parent.lineage, parent.step, int(left), pieces)


def _is_tip(tx: Tx, row: CheckpointRow) -> bool:
    newest = tx.find(CheckpointRow, lineage=row.lineage, order="-step", limit=1)
    return bool(newest) and newest[0].cid == row.cid


def _pieces(tx: Tx, parent: Lineage, logs: dict[str, LogDraft], thread: ThreadRow) -> bytes | None:
    """Return what a lineage that leaves ``parent`` begins with, packed.

    New items that stand among old ones go to a lineage of their own, where no checkpoint is.
    """
    apart = 0
    if any(log.fresh for log in logs.values()):
        apart = tx.next_pk(Lineage)
        tx.insert(Lineage(apart, thread.pk, parent.pk, None, 0, None))
        for name, log in logs.items():
            _put_batch(tx, apart, name, 0, log.fresh, log.blobs)
    every = {name: beginning(parent, name, log, apart) for name, log in logs.items()}
    pieces = {name: found for name, found in every.items() if found}
    return _encode(pieces) if pieces else None


def _put_state(tx: Tx, draft: Draft) -> LoadedState:
    if draft.state_row is None:
        return draft.state
    base, body = draft.state_row
    pk = tx.next_pk(StateRow)
    code, packed = codec.compress(body)
    tx.insert(StateRow(pk, base, draft.state.depth, code, packed))
    if wanted := codec.references(body):
        _put_blobs(tx, draft.state_blobs, OWNER["state"], pk, wanted)
    return LoadedState(pk, *draft.state[1:])


def _put_logs(tx: Tx, draft: Draft, lineage: int) -> list[int]:
    put: list[int] = []
    for name, log in draft.logs.items():
        if log.items:
            begin = log.length - len(log.items)
            put += _put_batch(tx, lineage, name, begin, log.items, log.blobs)
    return put


def _put_batch(
    tx: Tx, lineage: int, name: str, pos: int, items: list[bytes], blobs: codec.Blobs
) -> list[int]:
    """Store items of a log, if there are any; return the key of their row."""
    if not items:
        return []
    pk = tx.next_pk(Batch)
    code, body = codec.compress_array(items)
    tx.insert(Batch(pk, lineage, name, pos, len(items), code, body))
    if wanted := codec.references(*items):
        _put_blobs(tx, blobs, OWNER["batch"], pk, wanted)
    return [pk]


def _put_blobs(
    tx: Tx, blobs: codec.Blobs, kind: int, owner: int, wanted: set[bytes] | None = None
) -> None:
    """Store the blobs that are new, and that ``owner`` holds those it names."""
    digests = list(blobs) if wanted is None else list(wanted)
    if not digests:
        return
    known = {row.digest: row.pk for row in tx.find(Blob, digest=In(digests))}
    for digest in digests:
        if digest not in known:
            if digest not in blobs:
                raise CheckpointNotFound("a large value of the parent is not there any more")
            known[digest] = tx.next_pk(Blob)
            code, body = codec.compress(blobs[digest])
            tx.insert(Blob(known[digest], digest, code, body))
    tx.insert(*(BlobRef(known[digest], kind, owner) for digest in digests))


def _checkpoint(tx: Tx, draft: Draft, lineage: int, state: LoadedState) -> CheckpointRow:
    log = draft.logs[MESSAGES]
    others = None
    if len(draft.logs) > 1:
        others = {
            name: (other.length, other.chain, other.own)
            for name, other in draft.logs.items()
            if name != MESSAGES
        }
    parents = draft.parents
    row = CheckpointRow(
        tx.next_pk(CheckpointRow),
        draft.id,
        lineage,
        draft.step,
        parents[0].cid if parents else None,
        len(parents),
        log.own,
        state.pk,
        log.length,
        _encode(others) if others else None,
        _TRIGGER_NO[draft.trigger],
        draft.at,
        draft.node,
        draft.meta,
        draft.result,
        codec.versioned(draft.fmt),
        log.chain,
        digest=b"",
    )
    edges = [other.cid for other in parents[1:]]
    return CheckpointRow._make((*row[:-1], digest_of_row(row, edges, state.digest)))


def digest_of_row(row: CheckpointRow, edges: list[int], state_digest: bytes) -> bytes:
    """Return the digest of a checkpoint: over its parents, content and metadata."""
    facts = (
        row.cid,
        row.id,
        row.lineage,
        row.state,
        row.step,
        row.parent,
        row.nparents,
        row.own,
        row.length,
        row.logs,
    )
    more = (row.trigger, row.at, row.node, row.meta, row.result, row.fmt, row.chain)
    return codec.digest_of(_encode((facts, more, edges, state_digest)))


def _turned(tx: Tx, draft: Draft, thread: ThreadRow, row: CheckpointRow, lineage: int) -> ThreadRow:
    """Record that a snapshot went on from another checkpoint than the head."""
    number = thread.n_move + 1
    tx.insert(HeadMoveRow(thread.pk, number, thread.head, row.cid, "snapshot", None, draft.at))
    return thread._replace(
        n_move=number, turned=row.parent, closed=lineage - 1, open_tip=None, head=None
    )


def _advanced(draft: Draft, thread: ThreadRow, row: CheckpointRow, *, left: bool) -> ThreadRow:
    """Return the thread after the commit: its head, and the tip that may be extended in place."""
    tip = thread.open_tip
    if not left and (tip is None or tip == row.parent):
        tip = row.cid
    newest = draft.kind != "step" or thread.head is None or row.step > thread.step
    ahead = newest and not left
    head, step = (row.cid, row.step) if ahead else (thread.head, thread.step)
    n_cp, n_tag = thread.n_cp + 1, thread.n_tag + len(draft.tags)
    # by place, since every commit passes here: a replacement by name takes three times as long
    return ThreadRow._make((*thread[:5], head, tip, step, *thread[8:13], n_cp, n_tag, *thread[15:]))


def _same(one: CheckpointRow | None, other: CheckpointRow | None) -> bool:
    return (one.cid if one else None) == (other.cid if other else None)
