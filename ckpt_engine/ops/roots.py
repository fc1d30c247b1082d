"""Making threads."""

from __future__ import annotations

from ..checks import check_name
from ..errors import NameTaken
from ..model import id_from_bytes
from ..store import CheckpointRow, ThreadRow, Tx
from .called import session_called
from .source import Source
from .tombstones import check_unerased, thread_key, unbury

__all__ = ["MAIN", "make_branch", "make_root"]

MAIN = "main"
"""Branch name of a root thread."""


def make_root(tx: Tx, name: str, at: int, *, anew: bool = False) -> ThreadRow:
    """Make a root thread, or return the one there is.

    Args:
        tx: The transaction.
        name: Its id.
        at: The time.
        anew: Whether the name of an erased thread may be used again.

    Raises:
        Erased: A thread of this name was erased (unless ``anew``).
    """
    name = check_name(name, "a thread id")
    known = tx.thread(name)
    if known is not None:
        return known
    if not anew:
        what = f"thread {name!r} (create_thread takes the name into use again)"
        check_unerased(tx, thread_key(name), what)
    pk = tx.next_pk(ThreadRow)
    return _insert(tx, _new(pk, name, pk, MAIN, at))


def make_branch(
    tx: Tx, source: Source, origin: CheckpointRow, branch: str, name: str | None, at: int
) -> ThreadRow:
    """Make a thread that begins at a checkpoint; the same request again returns the same thread.

    Raises:
        NameTaken: The session has a thread of this name, or there is a thread of this id.
    """
    branch = check_name(branch, "a branch name")
    if name is not None:
        name = check_name(name, "a thread id")
    owner = source.thread_by_pk(source.lineage(origin.lineage).thread)
    known = tx.thread(name) if name is not None else None
    if known is not None:
        same = (known.branch, known.origin, known.session) == (branch, origin.cid, owner.session)
        if same:
            return known
        raise NameTaken(f"there is a thread {name!r} already, and it is another branch")
    if tx.one(ThreadRow, session=owner.session, branch=branch) is not None:
        whose = session_called(source, source.thread_by_pk(owner.session))
        raise NameTaken(f"{whose} has a branch {branch!r} already")
    if name is None:
        name = f"{source.names(owner.pk).session}/{branch}"
        if tx.thread(name) is not None:
            name = f"{name}-{id_from_bytes(origin.id)[:8]}"
            if tx.thread(name) is not None:
                raise NameTaken(f"there is a thread {name!r} already: give a thread_id")
    check_name(name, "a thread id")
    pk = tx.next_pk(ThreadRow)
    row = _new(pk, name, owner.session, branch, at)
    return _insert(tx, row._replace(origin=origin.cid, head=origin.cid, step=origin.step))


def _new(pk: int, name: str, session: int, branch: str, at: int) -> ThreadRow:
    return ThreadRow(
        pk=pk,
        name=name,
        session=session,
        branch=branch,
        origin=None,
        head=None,
        open_tip=None,
        step=-1,
        superseded=None,
        active=None,
        turned=None,
        closed=0,
        at=at,
        n_cp=0,
        n_tag=0,
        n_move=0,
        n_run=0,
        n_pin=0,
    )


def _insert(tx: Tx, row: ThreadRow) -> ThreadRow:
    unbury(tx, row.name)
    tx.insert(row)
    return row
