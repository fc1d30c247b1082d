"""The engine's own activities, registered on every worker with the plugin; they are no steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
)
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from ..errors import CheckpointError, Retryable
from .again import send_again
from .calls import JoinCall, Recall
from .checkpoints import prepare_child, run_of
from .collect import CollectRequest
from .contract import (
    BRANCH_POINT,
    CANCELED,
    COLLECT,
    FORWARD_UPDATE,
    HAS_ENDED,
    JOIN_CALL,
    OUTCOME,
    OUTCOME_FAILED,
    PIN_VERSION,
    PREPARE_CHILD,
    RECALL,
    SEND_AGAIN,
    SUPERSEDE,
    FindPoint,
    PinVersion,
    PrepareChild,
    PreparedChild,
    SendAgain,
    Supersede,
    parse,
)
from .failures import to_failure
from .joining import join_call, recall
from .origin import ensure_thread
from .points import branch_point
from .versions import pin_version

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from .attempt import Runtime

__all__ = ["EngineActivities"]


class EngineActivities:
    """What supervisors ask of the engine and of the server.

    Args:
        runtime: Returns what the worker's activities share.
    """

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def all(self) -> Sequence[Callable[..., Any]]:
        """Return the activities to register."""
        return [
            self.find_point,
            self.prepare,
            self.supersede,
            self.send_again,
            self.forward_update,
            self.has_ended,
            self.outcome,
            self.join,
            self.recall,
            self.collect,
            self.pin_version,
        ]

    @activity.defn(name=COLLECT)
    async def collect(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Carry out a retention policy, session by session; a retry goes on where it stopped."""
        from ckpt_engine import parse_retention

        engine = self._runtime().engine
        try:
            request = parse(CollectRequest, ask)
            policy = parse_retention(request.keep) if request.keep else None
            if request.session is not None:
                sessions = [request.session]
            else:
                sessions = await _every_session(engine)
            total: Counter[str] = Counter()
            for session in sessions:
                activity.heartbeat(session)
                report = await engine.collect(policy, session_id=session, dry_run=request.dry_run)
                total["dropped"] += len(report.dropped)
                total["kept"] += sum(report.kept.values())
                total["bytes_freed"] += report.bytes_freed
            if request.optimize and not request.dry_run:
                optimized = await engine.optimize()
                total["bytes_freed"] += max(0, optimized.size_before - optimized.size_after)
        except CheckpointError as err:
            raise to_failure(err) from err
        return {"sessions": len(sessions), "dry_run": request.dry_run, **total}

    @activity.defn(name=BRANCH_POINT)
    async def find_point(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Find a checkpoint to branch from."""
        try:
            point = await branch_point(self._runtime().engine, parse(FindPoint, ask))
        except CheckpointError as err:
            raise to_failure(err) from None
        return point.model_dump(mode="json")

    @activity.defn(name=PREPARE_CHILD)
    async def prepare(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Make the thread and first checkpoint of a child, or say why not."""
        engine, client = self._runtime().engine, self._runtime().client
        try:
            request = parse(PrepareChild, ask)
            if request.origin is not None or request.reset is not None:
                run = replace(
                    run_of(request),
                    workflow_id=activity.info().workflow_id or "",
                    run_id=activity.info().workflow_run_id or "",
                    supervisor=None,
                )
                await ensure_thread(
                    engine, client, request.own_thread, request.origin, request.reset, run
                )
            prepared = await prepare_child(engine, client, request)
        except Retryable as err:
            raise to_failure(err) from err
        except CheckpointError as err:
            prepared = PreparedChild(refused_kind=err.kind, refused=str(err))
        return prepared.model_dump(mode="json")

    @activity.defn(name=SUPERSEDE)
    async def supersede(self, ask: dict[str, Any]) -> None:
        """Put the thread of a rewind in the place of the one it leaves."""
        request = parse(Supersede, ask)
        try:
            await self._runtime().engine.supersede(request.thread, request.by)
        except CheckpointError as err:
            raise to_failure(err) from err

    @activity.defn(name=SEND_AGAIN)
    async def send_again(self, ask: dict[str, Any]) -> None:
        """Send the messages from before a seed to its child."""
        try:
            await send_again(self._runtime().client, parse(SendAgain, ask))
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise  # where the child has ended already, nobody waits for them

    @activity.defn(name=PIN_VERSION)
    async def pin_version(self, ask: dict[str, Any]) -> None:
        """Have a child run by a worker version, and let its code begin."""
        request = parse(PinVersion, ask)
        await pin_version(self._runtime().client, request.child, request.version)

    @activity.defn(name=FORWARD_UPDATE)
    async def forward_update(
        self, workflow_id: str, update: str, update_id: str, *args: Any
    ) -> Any:
        """Send a user's update on to the workflow that runs now, and return its answer."""
        handle = self._runtime().client.get_workflow_handle(workflow_id)
        try:
            return await handle.execute_update(update, args=list(args), id=update_id)
        except WorkflowUpdateFailedError as err:
            raise _told(err.cause) from err.cause
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            raise ApplicationError(
                f"{workflow_id!r} has ended before it heard of the update {update!r}; send it to "
                "the session's address again",
                type="ended",
                non_retryable=True,
            ) from None

    @activity.defn(name=HAS_ENDED)
    async def has_ended(self, workflow_id: str) -> bool:
        """Say whether a workflow has closed."""
        try:
            description = await self._runtime().client.get_workflow_handle(workflow_id).describe()
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return True
        return description.status != WorkflowExecutionStatus.RUNNING

    @activity.defn(name=OUTCOME)
    async def outcome(self, workflow_id: str) -> Any:
        """Return the result of a workflow that has ended, or is about to."""
        client = self._runtime().client
        handle = client.get_workflow_handle(workflow_id, result_type=RawValue)
        try:
            return await handle.result()
        except WorkflowFailureError as err:
            if isinstance(err.cause, CancelledError):
                raise ApplicationError("cancelled", type=CANCELED, non_retryable=True) from None
            raise _told(err.cause) from err.cause
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            raise _told(err) from err

    @activity.defn(name=JOIN_CALL)
    async def join(self, ask: dict[str, Any]) -> int:
        """Join a sub-workflow that has ended into its caller's line; return the join's number."""
        runtime = self._runtime()
        try:
            return await join_call(runtime.engine, runtime.client, parse(JoinCall, ask))
        except CheckpointError as err:
            raise to_failure(err) from err

    @activity.defn(name=RECALL)
    async def recall(self, ask: dict[str, Any]) -> Any:
        """Return the stored result of a sub-workflow that was called before the seed."""
        runtime = self._runtime()
        try:
            return await recall(runtime.engine, runtime.client, parse(Recall, ask))
        except CheckpointError as err:
            raise to_failure(err) from err


def _told(cause: BaseException) -> ApplicationError:
    """Return a failure that the activity is not retried for, whatever it passes on."""
    return ApplicationError(str(cause), type=OUTCOME_FAILED, non_retryable=True)


async def _every_session(engine: CheckpointEngine) -> list[str]:
    """Return the ids of all sessions."""
    return [thread.session_id for thread in await engine.list_sessions(limit=1_000_000)]
