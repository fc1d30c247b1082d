"""What the commands ask about sessions: a list of them, how they stand, a checkpoint by a name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model import CheckpointInfo
from .errors import CliError
from .opening import connect, find_session
from .server.connection import choose

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["find_checkpoint", "rows_of", "statuses"]

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
            }
        )
    return rows


async def statuses(
    home: Path, address: str | None, namespace: str | None, workflow_ids: Iterable[str]
) -> dict[str, str] | None:
    """Return each workflow's status in words; ``None`` where no server answers."""
    try:
        client = await connect(await choose(home, address, namespace))
    except CliError:
        return None
    names = list(workflow_ids)
    found = await asyncio.gather(*(_status(client, name) for name in names))
    return dict(zip(names, found, strict=True))


async def find_checkpoint(engine: CheckpointEngine, name: str) -> CheckpointInfo:
    """Return the checkpoint of an id (or the start of one), or the newest of a session.

    Raises:
        CheckpointError: There is none, or several.
    """
    if _PREFIX.fullmatch(name) and await engine.find_run(name) is None:
        return await engine.resolve(name)
    session = await find_session(engine, name)
    active = await engine.active_thread(session.id)
    if active.head is None:
        raise CliError(f"{session.name} has no checkpoint yet", "")
    return await engine.get_info(active.head)


async def _status(client: Client, workflow_id: str) -> str:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as err:
        return "gone" if err.status == RPCStatusCode.NOT_FOUND else "unknown"
    return description.status.name.lower() if description.status else "unknown"
