"""Start branches from any checkpoint, out of any workflow whose worker has the plugin.

A :class:`~ckpt_engine.temporal.rewindable.Rewindable` branches itself when it is asked to. This is
for workflows that start the branches of others, such as experiments: the children are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, WorkflowIDReusePolicy

from ..errors import InvalidRequest
from .children import QUICK, Refused, arguments
from .contract import (
    BRANCH_POINT,
    PREPARE_CHILD,
    SEND_AGAIN,
    BranchPoint,
    BranchRequest,
    FindPoint,
    PrepareChild,
    PreparedChild,
    Target,
)
from .session import Session

__all__ = ["find_branch_point", "prepare_branch", "start_branch"]

_NOT_MINE = -1  # no base is like that, so the recorded arguments are always sent along


async def find_branch_point(at: Target, *, session: str | None = None) -> BranchPoint:
    """Return a checkpoint of any session, running or finished, to start branches from.

    Args:
        at: The checkpoint.
        session: Workflow id, thread or session it belongs to; not needed with a checkpoint's id.

    Raises:
        ActivityError: There is none; its cause is an ``ApplicationError`` that says why.
    """
    ask = FindPoint(at=at, session=session).model_dump(mode="json")
    answer = await workflow.execute_activity(BRANCH_POINT, ask, **QUICK)
    return BranchPoint.model_validate(answer)


async def prepare_branch(
    point: BranchPoint, request: BranchRequest, *, workflow_id: str
) -> PreparedChild:
    """Make the branch's thread and first checkpoint, before its workflow is started.

    Args:
        point: Where from; it takes the place of ``request.at``.
        request: The name, which is unique in the session, and what to change.
        workflow_id: The id that its workflow will have.

    Raises:
        InvalidRequest: The name is taken, or an override cannot be stored.
    """
    ask = PrepareChild.model_validate(
        {
            "kind": "branch",
            "branch": request.model_copy(update={"at": Target(checkpoint=point.checkpoint)}),
            "session": point.session,
            "active_thread": point.thread,
            "thread": workflow_id,
            "checkpoint": _session().draw_id(),
            "run": {
                "namespace": workflow.info().namespace,
                "workflow_id": workflow_id,
                "workflow_type": point.workflow_type,
                "task_queue": point.task_queue,
            },
            "resume": point.resume,
            "base": _NOT_MINE,
        }
    )
    answer = await workflow.execute_activity(PREPARE_CHILD, ask.model_dump(mode="json"), **QUICK)
    prepared = PreparedChild.model_validate(answer)
    if prepared.seed is None:
        raise Refused(prepared.refused_kind, prepared.refused)
    return prepared


async def start_branch(
    point: BranchPoint,
    prepared: PreparedChild,
    *,
    memo: Mapping[str, Any] | None = None,
    execution_timeout: timedelta | None = None,
) -> workflow.ChildWorkflowHandle[Any, Any]:
    """Start the workflow of a prepared branch as a child, and return its handle.

    It is started with the arguments that the session was started with, and is sent what the
    session was sent before the seed where its code runs again up to there. When the calling
    workflow closes, a branch that still runs is asked to cancel.
    """
    seed = prepared.seed
    assert seed is not None
    _session().seeds[seed.thread] = seed
    handle = await workflow.start_child_workflow(
        point.workflow_type,
        args=arguments(prepared),
        id=seed.thread,
        task_queue=point.task_queue,
        result_type=RawValue,
        cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        execution_timeout=execution_timeout,
        memo=memo,
        static_summary=f"branch {seed.branch} of {seed.session}",
    )
    if prepared.again is not None:
        ask = prepared.again.model_dump(mode="json")
        await workflow.execute_activity(SEND_AGAIN, ask, **QUICK)
    return handle


def _session() -> Session:
    session = getattr(workflow.instance(), "__ckpt_session__", None)
    if not isinstance(session, Session):
        raise InvalidRequest(
            "the worker has no checkpoints: connect its client with plugins=[CheckpointPlugin(...)]"
        )
    return session
