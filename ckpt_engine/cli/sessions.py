"""What the commands ask about sessions: a list of them, how they stand, a checkpoint by a name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointNotFound
from ..model import CheckpointInfo, CheckpointTree, Thread
from .errors import CliError, Exit
from .opening import SessionRef, connect, find_session
from .server.connection import choose

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = [
    "current_thread",
    "find_checkpoint",
    "find_thread",
    "rows_of",
    "statuses",
    "statuses_of_threads",
]

_GONE, _UNKNOWN = "gone", "unknown"
_STATUS_SECONDS = 4.0
_PREFIX = re.compile(r"[0-9a-f]{4,32}")


async def rows_of(engine: CheckpointEngine, limit: int) -> list[dict[str, Any]]:
    """Return what a list shows of each session, newest first."""
    rows = []
    for root in await engine.list_sessions(limit=limit):
        threads = await engine.list_threads(root.id)
        active = await engine.active_thread(root.id)
        run = (await engine.runs(root.id)).get(root.id)
        rows.append(
            {
                "session": root.id,
                "workflow_id": run.workflow_id if run else None,
                "workflow_type": run.workflow_type if run else None,
                "task_queue": run.task_queue if run else None,
                "created_at": root.created_at.isoformat(),
                "threads": len(threads),
                "active_thread": active.id,
                "active_branch": active.branch,
                "head": active.head,
                "step": active.step,
                "about": await _about(engine, root),
            }
        )
    return rows


async def statuses(
    home: Path,
    address: str | None,
    namespace: str | None,
    runs: Mapping[str, tuple[str, str]],
) -> dict[str, str] | None:
    """Return how workflows stand, in words; ``None`` where no server answers soon.

    Args:
        home: Where our own server leaves its address.
        address: Another server.
        namespace: Its namespace.
        runs: By any key, a workflow id and a run id (empty for the newest run).
    """
    try:
        async with asyncio.timeout(_STATUS_SECONDS):
            client = await connect(await choose(home, address, namespace))
            found = await asyncio.gather(*(_status(client, *run) for run in runs.values()))
    except (CliError, TimeoutError):
        return None
    return dict(zip(runs, found, strict=True))


async def statuses_of_threads(
    tree: CheckpointTree, home: Path, address: str | None, namespace: str | None
) -> dict[str, str]:
    """Return how the workflow of each thread stands; nothing of those Temporal cannot tell."""
    runs = {
        thread.id: (run.workflow_id, run.run_id)
        for thread in tree.threads
        if (run := tree.runs.get(thread.id)) is not None and thread.superseded_by is None
    }
    found = await statuses(home, address, namespace, runs) if runs else None
    return {k: v for k, v in (found or {}).items() if v not in {_GONE, _UNKNOWN}}


async def find_checkpoint(engine: CheckpointEngine, name: str | None) -> CheckpointInfo:
    """Return the checkpoint of an id (or the start of one), or the head of a session.

    Raises:
        CheckpointError: There is none, or several.
    """
    if name is not None and _PREFIX.fullmatch(name) and await engine.find_run(name) is None:
        return await engine.resolve(name)
    try:
        session = await find_session(engine, name)
    except CliError as err:
        if name is None or err.code is not Exit.NOT_FOUND:
            raise
        raise CliError(
            f"no checkpoint or session {name!r}",
            "ids have four digits or more; see what there is: ckpt list",
            Exit.NOT_FOUND,
        ) from None
    thread = await current_thread(engine, session)
    if thread.head is None:
        raise CliError(f"{session.name} has no checkpoint yet", "")
    return await engine.get_info(thread.head)


async def current_thread(engine: CheckpointEngine, session: SessionRef) -> Thread:
    """Return the thread that a session, or the branch that was named, goes on with."""
    if session.line is None:
        return await engine.active_thread(session.id)
    threads = {thread.id: thread for thread in await engine.list_threads(session.id)}
    thread = threads[session.line.id]
    if session.line_run is not None and session.line_run.supervisor is not None:
        return thread  # the stand-in itself, even after another took its place
    while thread.superseded_by in threads:
        thread = threads[thread.superseded_by]
    return thread


async def find_thread(engine: CheckpointEngine, session_id: str, name: str) -> Thread:
    """Return the thread of a session with this branch name or id.

    Raises:
        CliError: There is none.
    """
    threads = await engine.list_threads(session_id)
    for thread in threads:
        if name in (thread.branch, thread.id):
            return thread
    known = ", ".join(thread.branch for thread in threads)
    raise CliError(f"no thread {name!r}", f"the session has {known}", Exit.NOT_FOUND)


async def _about(engine: CheckpointEngine, root: Thread) -> str:
    """Return what the session's first step says of itself, such as the question."""
    if root.step < 1:
        return ""
    try:
        return (await engine.time_travel_to_step(root.id, 1)).summary
    except CheckpointNotFound:  # it was collected
        return (await engine.get_latest(root.id)).summary


async def _status(client: Client, workflow_id: str, run_id: str) -> str:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id or None)
        description = await handle.describe()
    except RPCError as err:
        return _GONE if err.status == RPCStatusCode.NOT_FOUND else _UNKNOWN
    return description.status.name.lower() if description.status else _UNKNOWN
