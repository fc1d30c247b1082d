"""Rewind and branch from outside: running sessions are asked, closed ones are continued."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from typing import TYPE_CHECKING, Any

from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import (
    Priority,
    RawValue,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.converter import decode_typed_search_attributes
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from .. import errors
from ..errors import CheckpointError, Conflict, InvalidRequest, StoreUnavailable, ThreadNotFound
from ..model import SnapshotTrigger, Thread, WorkflowRun, new_checkpoint_id
from .again import decoded, how_it_started, send_again
from .checkpoints import prepare_child
from .children import arguments, pinned_to
from .contract import (
    SUPERSEDED,
    BranchRequest,
    PrepareChild,
    PreparedChild,
    RewindRequest,
    SessionStatus,
    StartedChild,
    parse,
)
from .headers import HEADER, SeedHeader, SessionHeader, header_payload
from .joining import line_of, newest_thread
from .points import session_start

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["Sessions"]

_PATIENCE = 10.0  # seconds for a child to end when a rewind takes its place

_BY_KIND: dict[str, type[CheckpointError]] = {
    cls.kind: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, CheckpointError)
}


class Sessions:
    """Rewinds, branches and looks at sessions by workflow id, running or closed.

    Args:
        client: A client of the namespace they run in.
        engine: The engine their checkpoints are in.
    """

    def __init__(self, client: Client, engine: CheckpointEngine) -> None:
        self._client = client
        self._engine = engine

    async def rewind(self, workflow_id: str, request: RewindRequest) -> StartedChild:
        """Go on from an older checkpoint instead of the head; answer when that has started.

        A running session starts a child and stays its address; a closed one is continued by a
        new run under the same workflow id.

        Raises:
            CheckpointError: The request was refused; its kind and message say why.
        """
        request = parse(RewindRequest, request)
        if await self._is_running(workflow_id):
            answer = await self._update(workflow_id, "rewind", request)
            if answer is not None:
                return answer
        return await self._revive(workflow_id, request)

    async def branch(self, workflow_id: str, request: BranchRequest) -> StartedChild:
        """Start another line from a checkpoint; answer when it has started.

        Raises:
            CheckpointError: The request was refused; its kind and message say why.
        """
        request = parse(BranchRequest, request)
        if await self._is_running(workflow_id):
            answer = await self._update(workflow_id, "branch", request)
            if answer is not None:
                return answer
        return await self._revive(workflow_id, request)

    async def status(self, workflow_id: str) -> SessionStatus:
        """Return how a session stands, as its workflow sees it.

        Raises:
            ThreadNotFound: Temporal has no such workflow.
            InvalidRequest: It is not rewindable.
        """
        try:
            answer = await self._handle(workflow_id).query("checkpoint_status")
        except RPCError as err:
            raise _translate(err, workflow_id) from None
        except Exception as err:
            raise InvalidRequest(f"{workflow_id!r} cannot be asked: {err}") from err
        return SessionStatus.model_validate(answer)

    def _handle(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(workflow_id)

    async def _is_running(self, workflow_id: str) -> bool:
        try:
            description = await self._handle(workflow_id).describe()
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise _translate(err, workflow_id) from None
            if await self._engine.find_run(workflow_id) is None:
                raise ThreadNotFound(
                    f"no session {workflow_id!r}; see what there is with: ckpt list"
                ) from None
            return False  # past the namespace's retention; the checkpoints are enough
        return description.status == WorkflowExecutionStatus.RUNNING

    async def _update(
        self, workflow_id: str, name: str, request: RewindRequest | BranchRequest
    ) -> StartedChild | None:
        """Ask the running workflow; ``None`` when it has closed meanwhile."""
        try:
            answer = await self._handle(workflow_id).execute_update(
                name, request.model_dump(mode="json"), id=request.request_id or str(uuid.uuid4())
            )
        except WorkflowUpdateFailedError as err:
            cause = err.cause
            if isinstance(cause, ApplicationError) and cause.type in _BY_KIND:
                raise _BY_KIND[cause.type](cause.message) from None
            if isinstance(cause, ApplicationError) and not await self._is_running(workflow_id):
                return None
            raise InvalidRequest(f"{workflow_id!r} refused the {name}: {cause}") from err
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND:
                return None
            raise _translate(err, workflow_id) from None
        return StartedChild.model_validate(answer)

    async def _revive(
        self, workflow_id: str, request: RewindRequest | BranchRequest
    ) -> StartedChild:
        engine = self._engine
        thread, run = await self._address(workflow_id)
        if request.request_id and (known := await self._answered(thread, request.request_id)):
            return known
        kind = "rewind" if isinstance(request, RewindRequest) else "branch"
        suffix = secrets.token_hex(3)
        name = "rewind" if isinstance(request, RewindRequest) else request.name
        new_thread = f"{run.workflow_id}/{name}-{suffix}"
        new_workflow = run.workflow_id if kind == "rewind" else new_thread
        head = await engine.get_info(thread.head) if thread.head else None
        sub = line_of(head) if head else None
        start = await (engine.get(sub) if sub else session_start(engine, thread.session_id))
        ask = PrepareChild.model_validate(
            {
                "kind": kind,
                kind: request,
                "resume": start.metadata.get("resume", "next_node"),
                "session": thread.session_id,
                "sub": sub,
                "active_thread": thread.id,
                "thread": new_thread,
                "checkpoint": new_checkpoint_id(),
                "run": {
                    "namespace": self._client.namespace,
                    "workflow_id": new_workflow,
                    "workflow_type": run.workflow_type,
                    "task_queue": run.task_queue,
                },
            }
        )
        prepared = await prepare_child(engine, self._client, ask)
        if kind == "rewind":
            await self._end_stand_in(thread, run)
        handle = await self._start(run, new_workflow, prepared)
        if prepared.again is not None:
            await send_again(self._client, prepared.again)
        if kind == "rewind":
            await engine.supersede(thread.id, new_thread)
        assert prepared.seed is not None
        return StartedChild.model_validate(
            {
                "kind": kind,
                "workflow_id": new_workflow,
                "run_id": handle.first_execution_run_id or "",
                "thread": new_thread,
                "branch": prepared.seed.branch,
                "seed": prepared.target,
                "request_id": request.request_id,
            }
        )

    async def _address(self, workflow_id: str) -> tuple[Thread, WorkflowRun]:
        """Return the thread a closed session would go on with, and its workflow."""
        found = await self._engine.find_run(workflow_id)
        if found is None:
            raise ThreadNotFound(
                f"the store knows no session {workflow_id!r}; see what there is with: ckpt list"
            )
        thread, run = found
        if run.supervisor:
            return await self._address(run.supervisor)
        return await newest_thread(self._engine, thread.id), run

    async def _answered(self, thread: Thread, request_id: str) -> StartedChild | None:
        """Return the child that a request of this id has started, whoever was asked."""
        runs = await self._engine.runs(thread.session_id)
        for made in await self._engine.list_threads(thread.session_id):
            if made.origin is None or made.id not in runs:
                continue
            points = await self._engine.list_time_travel_points(
                made.id, limit=None, trigger=SnapshotTrigger.MANUAL
            )
            for first in points:
                if first.thread_id == made.id and first.metadata.get("request_id") == request_id:
                    run = runs[made.id]
                    return StartedChild.model_validate(
                        {
                            "kind": first.node,
                            "workflow_id": run.workflow_id,
                            "run_id": run.run_id,
                            "thread": made.id,
                            "branch": made.branch,
                            "seed": list(first.parents),
                            "request_id": request_id,
                        }
                    )
        return None

    async def _end_stand_in(self, thread: Thread, address: WorkflowRun) -> None:
        """Cancel the child that still runs in the place of a root that was terminated."""
        runs = await self._engine.runs(thread.session_id)
        run = runs.get(thread.id)
        if run is None or run.workflow_id == address.workflow_id:
            return
        handle = self._handle(run.workflow_id)
        try:
            await handle.cancel(reason=SUPERSEDED)
            await asyncio.wait_for(handle.result(), timeout=_PATIENCE)
        except (RPCError, WorkflowFailureError, TimeoutError):
            return  # it has ended, or nobody runs it at the moment and it will be told

    async def _start(
        self, run: WorkflowRun, workflow_id: str, prepared: PreparedChild
    ) -> WorkflowHandle[Any, Any]:
        assert prepared.seed is not None
        config = self._client.config()
        config["interceptors"] = [*config["interceptors"], _Seeding(prepared.seed)]
        try:
            return await Client(**config).start_workflow(
                run.workflow_type,
                args=arguments(prepared),
                id=workflow_id,
                task_queue=run.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                versioning_override=pinned_to(prepared.version),
                **await self._inherited(run.workflow_id),
            )
        except WorkflowAlreadyStartedError:
            raise Conflict(
                f"{workflow_id!r} was started by somebody else meanwhile; look at it and ask again"
            ) from None
        except RPCError as err:
            raise _translate(err, workflow_id) from None

    async def _inherited(self, workflow_id: str) -> dict[str, Any]:
        """Return the options that the address was started with; none past retention."""
        started = await how_it_started(self._client, workflow_id, "")
        if started is None:
            return {}
        memo = {
            key: RawValue((await decoded(self._client, workflow_id, [payload]))[0])
            for key, payload in started.memo.fields.items()
        }
        return {
            "execution_timeout": started.workflow_execution_timeout.ToTimedelta() or None,
            "run_timeout": started.workflow_run_timeout.ToTimedelta() or None,
            "task_timeout": started.workflow_task_timeout.ToTimedelta() or None,
            "memo": memo or None,
            "search_attributes": decode_typed_search_attributes(started.search_attributes),
            "priority": Priority(priority_key=started.priority.priority_key or None),
        }


class _Seeding(Interceptor):
    """Adds the seed's header to the one workflow that its client starts."""

    def __init__(self, seed: SeedHeader) -> None:
        self._seed = seed

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        seed = self._seed

        class Outbound(OutboundInterceptor):
            async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
                ours = header_payload(SessionHeader(seed=seed))
                input.headers = {**input.headers, HEADER: ours}
                return await super().start_workflow(input)

        return Outbound(next)


def _translate(err: RPCError, workflow_id: str) -> CheckpointError:
    if err.status == RPCStatusCode.NOT_FOUND:
        return ThreadNotFound(f"Temporal has no workflow {workflow_id!r}")
    return StoreUnavailable(f"the Temporal server did not answer: {err.message}")
