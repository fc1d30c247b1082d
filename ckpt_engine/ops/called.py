"""What threads are called in messages: by the names that people know and commands accept."""

from __future__ import annotations

from ..store import RunRow, ThreadRow
from .source import Source

__all__ = ["session_called", "thread_called"]


def session_called(source: Source, root: ThreadRow) -> str:
    """Return ``session 'x'``: its workflow's id where one runs it, else its own."""
    return f"session {_address(source, root) or repr(root.name)}"


def thread_called(source: Source, thread: ThreadRow) -> str:
    """Return ``thread 'x'``, or the branch and the session that a workflow runs."""
    root = source.thread_by_pk(thread.session)
    address = _address(source, root)
    if address is None:
        return f"thread {thread.name!r}"
    return f"branch {thread.branch!r} of session {address}"


def _address(source: Source, root: ThreadRow) -> str | None:
    """Return the id of a session's workflow, unless a newer session has it."""
    run = source.tx.find(RunRow, thread=root.pk, order="-no", limit=1)
    if not run:
        return None
    named = source.tx.find(RunRow, workflow_id=run[0].workflow_id)
    newest = max(named, key=lambda row: (row.at, row.thread, row.no))
    owner = source.thread_by_pk(newest.thread)
    return repr(run[0].workflow_id) if owner.session == root.session else None
