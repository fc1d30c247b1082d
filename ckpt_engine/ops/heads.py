"""Moving heads: rewind, undo, supersede, promote."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Conflict, Erased, InvalidRequest, NotInSession, ThreadNotFound
from ..model import id_from_bytes
from ..store import CheckpointRow, HeadMoveRow, Lineage, ThreadRow, Tx
from .called import thread_called
from .source import Source

__all__ = ["Moved", "active", "moved_on", "promote", "rewind", "supersede", "undo"]


class Moved(NamedTuple):
    """A head before and after a move."""

    thread: ThreadRow
    target: CheckpointRow
    depth: int
    old_head: int | None


def rewind(
    tx: Tx,
    source: Source,
    target: CheckpointRow,
    thread_name: str | None,
    expected: str | None,
    now: int,
    *,
    check: bool,
) -> Moved:
    """Move a thread's head to a checkpoint of its session.

    Raises:
        Conflict: The head is another one than ``expected`` (where ``check``).
        NotInSession: The checkpoint belongs to another session.
    """
    owner = source.thread_by_pk(source.lineage(target.lineage).thread)
    thread = owner if thread_name is None else source.thread(thread_name)
    if owner.session != thread.session:
        raise NotInSession(
            f"checkpoint {id_from_bytes(target.id)} belongs to another session than "
            f"{thread_called(source, thread)}"
        )
    if check:
        head = id_from_bytes(source.by_cid(thread.head).id) if thread.head is not None else None
        if head != expected:
            raise moved_on(thread.name, head, expected)
    return _move(tx, source, thread, target, "rewind", None, now)


def moved_on(thread: str, head: str | None, expected: str | None) -> Conflict:
    """Return the error that says that somebody else was first."""
    return Conflict(f"the head of thread {thread!r} is {head}, not {expected}: read it again")


def undo(tx: Tx, source: Source, thread_name: str, now: int) -> Moved:
    """Take back the newest move that was not taken back.

    Raises:
        InvalidRequest: There is none.
        Erased: The checkpoint to go back to was erased.
    """
    thread = source.thread(thread_name)
    moves = tx.find(HeadMoveRow, thread=thread.pk, order="-no")
    undone = {move.undoes for move in moves}
    for move in moves:
        if move.why == "rewind" and move.no not in undone and move.from_id is not None:
            target = tx.one(CheckpointRow, cid=move.from_id)
            if target is None:
                raise Erased(f"what the last rewind of thread {thread_name!r} left was erased")
            return _move(tx, source, thread, target, "undo", move.no, now)
    raise InvalidRequest(f"thread {thread_name!r} has no rewind to undo")


def _move(
    tx: Tx,
    source: Source,
    thread: ThreadRow,
    target: CheckpointRow,
    why: str,
    undoes: int | None,
    now: int,
) -> Moved:
    if thread.head == target.cid and undoes is None:
        return Moved(thread, target, 0, thread.head)
    number = thread.n_move + 1
    tx.insert(HeadMoveRow(thread.pk, number, thread.head, target.cid, why, undoes, now))
    lineages = tx.find(Lineage, thread=thread.pk, order="-pk", limit=1)
    moved = thread._replace(
        head=target.cid,
        step=target.step,
        open_tip=None,
        turned=target.cid,
        closed=lineages[0].pk if lineages else thread.closed,
        n_move=number,
    )
    tx.update(moved)
    return Moved(moved, target, max(0, thread.step - target.step), thread.head)


def supersede(tx: Tx, source: Source, thread_name: str, by: str) -> None:
    """Record that a rewind started ``by`` in place of a thread; it becomes the active one.

    Raises:
        NotInSession: They belong to different sessions.
    """
    thread, other = source.thread(thread_name), source.thread(by)
    if thread.session != other.session:
        raise NotInSession(f"threads {thread_name!r} and {by!r} belong to different sessions")
    if thread.pk == other.pk:
        raise InvalidRequest(f"thread {thread_name!r} cannot supersede itself")
    if thread.superseded == other.pk:
        return
    tx.update(thread._replace(superseded=other.pk))
    _activate(tx, source, other)


def promote(tx: Tx, source: Source, thread_name: str) -> ThreadRow:
    """Make a thread the one that its session goes on with."""
    thread = source.thread(thread_name)
    _activate(tx, source, thread)
    return thread


def _activate(tx: Tx, source: Source, thread: ThreadRow) -> None:
    name = source.names(thread.pk).session
    root = source.thread(name)
    if root.active != thread.pk:
        tx.update(root._replace(active=thread.pk))


def active(source: Source, session: str) -> ThreadRow:
    """Return the thread that a session goes on with.

    Raises:
        ThreadNotFound: There is no such session.
    """
    root = source.thread(session)
    if root.session != root.pk:
        raise ThreadNotFound(f"{session!r} is a thread, not a session (its root thread's id)")
    return root if root.active is None else source.thread_by_pk(root.active)
