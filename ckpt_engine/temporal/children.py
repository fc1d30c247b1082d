"""Making the child of a rewind or branch: its thread in the engine, then its workflow."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import (
    PinnedVersioningOverride,
    RawValue,
    RetryPolicy,
    WorkerDeploymentVersion,
    WorkflowIDReusePolicy,
)

from ..errors import InvalidRequest
from .contract import (
    PIN_VERSION,
    PREPARE_CHILD,
    SEND_AGAIN,
    BranchRequest,
    PinVersion,
    PrepareChild,
    PreparedChild,
    RewindRequest,
)
from .rewindable import resume_of
from .session import Session

__all__ = ["QUICK", "Children", "Refused", "arguments"]

QUICK: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=60),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
    ),
}
"""How the engine's own activities are called: again and again, until they work."""


class Refused(InvalidRequest):
    """The engine refused a request; carries the kind that it gave."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind  # type: ignore[misc]


class Children:
    """Makes the children of one workflow.

    Args:
        session: Its bookkeeping.
        args: Its arguments, given again to every child.
    """

    def __init__(self, session: Session, args: Sequence[Any]) -> None:
        self._session = session
        self._args = args

    async def prepare(
        self, kind: str, request: RewindRequest | BranchRequest, child_id: str
    ) -> PreparedChild:
        """Reserve the child's name and make its thread and first checkpoint.

        Raises:
            Refused: The request cannot be carried out; nothing was stored.
        """
        session, info = self._session, workflow.info()
        session.settle()
        ask = PrepareChild.model_validate(
            {
                "kind": kind,
                kind: request,
                "session": session.session,
                "active_thread": session.active.thread if session.active else session.thread,
                "own_thread": session.thread,
                "thread": child_id,
                "checkpoint": session.draw_id(),
                "run": {
                    "namespace": info.namespace,
                    "workflow_id": child_id,
                    "workflow_type": info.workflow_type,
                    "task_queue": info.task_queue,
                    "supervisor": info.workflow_id if kind == "rewind" else None,
                },
                "resume": resume_of(workflow.instance()),
                "base": session.base,
                "sub": session.sub,
                "origin": session.origin if session.active is None else None,
                "reset": session.reset,
            }
        )
        answer = await workflow.execute_activity(
            PREPARE_CHILD, ask.model_dump(mode="json"), **QUICK
        )
        prepared = PreparedChild.model_validate(answer)
        if prepared.seed is None:
            raise Refused(prepared.refused_kind, prepared.refused)
        return prepared

    async def start(
        self, child_id: str, prepared: PreparedChild
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        """Start the child, and have it sent what was sent before its seed.

        It outlives this workflow, which may have to continue as new while the child runs.
        """
        info, seed = workflow.info(), prepared.seed
        assert seed is not None
        if seed.kind == "rewind":
            seed = seed.model_copy(update={"supervisor": info.workflow_id})
        if prepared.version:
            seed = seed.model_copy(update={"version": prepared.version})
        self._session.seeds[child_id] = seed
        handle = await workflow.start_child_workflow(
            info.workflow_type,
            args=list(self._args) if prepared.args is None else arguments(prepared),
            id=child_id,
            task_queue=info.task_queue,
            result_type=RawValue,
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            execution_timeout=info.execution_timeout,
            run_timeout=info.run_timeout,
            task_timeout=info.task_timeout,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo=workflow.memo() or None,
            search_attributes=info.typed_search_attributes or None,
            priority=info.priority,
            static_summary=f"{seed.kind} {seed.branch} of {seed.session}",
            versioning_override=pinned_to(prepared.version),
        )
        if prepared.version:
            # Servers up to 1.29 pay no heed to a child's override; its code waits for this.
            pin = PinVersion(child=child_id, version=prepared.version)
            await workflow.execute_activity(PIN_VERSION, pin.model_dump(mode="json"), **QUICK)
        if prepared.again is not None:
            ask = prepared.again.model_dump(mode="json")
            await workflow.execute_activity(SEND_AGAIN, ask, **QUICK)
        return handle


def pinned_to(version: str) -> PinnedVersioningOverride | None:
    """Return what keeps a workflow on a worker version, if one was asked for."""
    if not version:
        return None
    return PinnedVersioningOverride(WorkerDeploymentVersion.from_canonical_string(version))


def arguments(prepared: PreparedChild) -> list[RawValue]:
    """Return the arguments that a child is to be started with, as they were recorded."""
    return [
        RawValue(
            Payload(
                metadata={key: base64.b64decode(value) for key, value in metadata.items()},
                data=base64.b64decode(data),
            )
        )
        for metadata, data in prepared.args or ()
    ]
