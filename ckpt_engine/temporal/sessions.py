"""Rewind and branch from outside: running sessions are asked, closed ones are continued."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from .. import errors
from ..errors import CheckpointError, Conflict, InvalidRequest, StoreUnavailable, ThreadNotFound
from ..model import Checkpoint, Thread, WorkflowRun, new_checkpoint_id
from .checkpoints import newest_thread, prepare_child
from .contract import (
    HEADER,
    BranchRequest,
    PrepareChild,
    RewindRequest,
    SeedHeader,
    SessionHeader,
    SessionStatus,
    StartedChild,
    parse,
)
from .payloads import from_stored
from .rewindable import OWN_SIGNALS
from .session import HeardSignal, header_payload, read_header

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["Sessions"]

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
        kind = "rewind" if isinstance(request, RewindRequest) else "branch"
        suffix = secrets.token_hex(3)
        name = "rewind" if isinstance(request, RewindRequest) else request.name
        new_thread = f"{run.workflow_id}/{name}-{suffix}"
        new_workflow = run.workflow_id if kind == "rewind" else new_thread
        start = await engine.time_travel_to_step(thread.session_id, 0)
        ask = PrepareChild.model_validate(
            {
                "kind": kind,
                kind: request,
                "resume": start.metadata.get("resume", "next_node"),
                "session": thread.session_id,
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
        prepared = await prepare_child(engine, ask)
        assert prepared.seed is not None
        again = await self._heard_before(run.workflow_id, prepared.seed)
        seed = prepared.seed.with_signals(len(again))
        handle = await self._start(run, new_workflow, seed, start)
        for signal in again:
            await handle.signal(signal.name, args=list(signal.args))
        if kind == "rewind":
            await engine.supersede(thread.id, new_thread)
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

    async def _start(
        self, run: WorkflowRun, workflow_id: str, seed: SeedHeader, start: Checkpoint
    ) -> WorkflowHandle[Any, Any]:
        payloads = [p for p in map(from_stored, start.tools_result or ()) if p is not None]
        config = self._client.config()
        config["interceptors"] = [*config["interceptors"], _Seeding(seed)]
        try:
            return await Client(**config).start_workflow(
                run.workflow_type,
                args=await self._decoded(payloads, workflow_id),
                id=workflow_id,
                task_queue=run.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            raise Conflict(
                f"{workflow_id!r} was started by somebody else meanwhile; look at it and ask again"
            ) from None
        except RPCError as err:
            raise _translate(err, workflow_id) from None

    async def _heard_before(self, workflow_id: str, seed: SeedHeader) -> list[HeardSignal]:
        """Return the user's signals that a closed run had before the seed, as its history has them.

        Past the namespace's retention there is no history, and none are sent again.
        """
        if seed.prefix is None:
            return []
        heard: list[HeardSignal] = []
        step = 0
        try:
            async for event in self._handle(workflow_id).fetch_history_events():
                if event.HasField("activity_task_scheduled_event_attributes"):
                    headers = event.activity_task_scheduled_event_attributes.header.fields
                    fields = read_header(headers.get(HEADER)) or {}
                    step = max(step, int(fields.get("step", 0)))
                elif event.HasField("workflow_execution_signaled_event_attributes"):
                    signal = event.workflow_execution_signaled_event_attributes
                    if signal.signal_name not in OWN_SIGNALS and step < seed.prefix.upto:
                        args = await self._decoded(list(signal.input.payloads), workflow_id)
                        heard.append(HeardSignal(step, signal.signal_name, args))
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise _translate(err, workflow_id) from None
        return heard

    async def _decoded(self, payloads: list[Payload], workflow_id: str) -> list[RawValue]:
        context = WorkflowSerializationContext(
            namespace=self._client.namespace, workflow_id=workflow_id
        )
        codec = self._client.data_converter.with_context(context).payload_codec
        return [RawValue(p) for p in (await codec.decode(payloads) if codec else payloads)]


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
