"""Find a checkpoint of any session to start branches from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CheckpointNotFound, InvalidRequest, ThreadNotFound
from ..model import Checkpoint, CheckpointInfo
from .checkpoints import find_target
from .contract import BranchPoint, FindPoint

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["branch_point", "session_start"]


async def branch_point(engine: CheckpointEngine, ask: FindPoint) -> BranchPoint:
    """Return a checkpoint of any thread, and which workflow runs its session.

    Raises:
        CheckpointNotFound: There is no such checkpoint.
        ThreadNotFound: There is no such session.
        InvalidRequest: The session is not run by a Temporal workflow, or the target means several
            checkpoints at once.
    """
    info = await _the_one(engine, ask)
    root = await engine.get_thread(info.session_id)
    run = (await engine.runs(info.session_id)).get(root.id)
    start = await session_start(engine, root.id)
    if run is None or start.step != 0 or "workflow_type" not in start.metadata:
        raise InvalidRequest(
            f"checkpoint {info.id[:8]} was not taken by a Temporal workflow: no workflow can go on "
            "from it"
        )
    return BranchPoint(
        session=info.session_id,
        workflow_id=run.workflow_id,
        thread=info.thread_id,
        checkpoint=info.id,
        step=info.step,
        digest=info.digest,
        workflow_type=run.workflow_type,
        task_queue=run.task_queue,
        resume=start.metadata.get("resume", "next_node"),
    )


async def session_start(engine: CheckpointEngine, session_id: str) -> Checkpoint:
    """Return the checkpoint that says what a session's workflow was started with.

    Raises:
        CheckpointNotFound: It was collected, as earlier releases did.
    """
    try:
        return await engine.time_travel_to_step(session_id, 0)
    except CheckpointNotFound as err:
        raise CheckpointNotFound(
            f"{err}: it was collected, so what the workflow was started with is not known and no "
            "other run can go on; a workflow that still runs can be rewound"
        ) from None


async def _the_one(engine: CheckpointEngine, ask: FindPoint) -> CheckpointInfo:
    if ask.session is None:
        if ask.at.checkpoint is None:
            raise InvalidRequest("a step, a number of steps back or a tag needs a session")
        return await engine.resolve(ask.at.checkpoint)
    found = await engine.find_run(ask.session)
    try:
        session = (found[0] if found else await engine.get_thread(ask.session)).session_id
    except ThreadNotFound:
        raise ThreadNotFound(f"there is no session {ask.session!r}") from None
    active = await engine.active_thread(session)
    infos = await find_target(engine, session, active.id, ask.at)
    if len(infos) != 1:
        ids = ", ".join(info.id[:8] for info in infos)
        raise InvalidRequest(f"that is a group of parallel steps ({ids}): name one checkpoint")
    return infos[0]
