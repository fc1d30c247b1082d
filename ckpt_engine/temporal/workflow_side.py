"""The interceptors inside a workflow: every activity gets its header, every child its seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, NoReturn, TypeVar

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from ..errors import InvalidRequest
from .beginning import begin_session
from .calls import SUB_WORKFLOWS, call_sub_workflow, never_asked_for
from .children import QUICK
from .contract import ENGINE_ACTIVITIES, FORWARD_UPDATE, OUTCOME_FAILED
from .headers import HEADER, SessionHeader, header_payload, is_sent_again
from .policy import Policies, StepPolicy
from .replay_clock import ReplayClock
from .rewindable import OWN_SIGNALS, OWN_UPDATES, Rewindable, resume_of
from .search_attributes import show
from .session import Session
from .stand_in import tell_supervisor
from .supervisor import Supervisor
from .way import StepOnWay

__all__ = ["CheckpointWorkflowInbound"]

_Activity = TypeVar("_Activity", StartActivityInput, StartLocalActivityInput)


class CheckpointWorkflowInbound(WorkflowInboundInterceptor):
    """Owns the session's bookkeeping and runs the supervisor around a rewindable workflow.

    Attributes:
        policies: Which activities are steps; set on the class that the plugin makes.
        search_attributes: Whether sessions can be searched for in Temporal; likewise.
    """

    policies: ClassVar[Policies] = Policies()
    search_attributes: ClassVar[bool] = False

    def __init__(self, next: WorkflowInboundInterceptor) -> None:
        super().__init__(next)
        self._session: Session | None = None
        self.continuing: ContinueAsNewInput | None = None
        self._in_order = asyncio.Lock()

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Put our outbound interceptor into the chain."""
        self.next.init(_Outbound(outbound, self))

    @property
    def session(self) -> Session:
        """The bookkeeping of this run, made when it is first needed."""
        if self._session is None:
            self._session = begin_session(resume_of(workflow.instance()))
        return self._session

    def _bind(self) -> None:
        instance = workflow.instance()
        if instance is not None and not hasattr(instance, "__ckpt_session__"):
            instance.__ckpt_session__ = self.session

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        """Run the workflow, under a supervisor if it can be rewound."""
        self._bind()
        if not issubclass(input.type, Rewindable):
            return await self.next.execute_workflow(input)
        self.session.args = input.args
        if self.search_attributes:
            show(self.session)
        supervisor = Supervisor(self.session, lambda: self._body(input), input.args)
        try:
            result = await supervisor.run()
        except workflow.ContinueAsNewError:
            # Requests may have been carried out since ``run`` asked for it.
            if self.continuing is not None:
                self.continuing.headers = self.carried(self.continuing.headers)
            raise
        except (FailureError, asyncio.CancelledError):
            await tell_supervisor(self.session)
            raise
        await tell_supervisor(self.session)
        return result

    async def _body(self, input: ExecuteWorkflowInput) -> Any:
        session = self.session
        if session.seed and session.seed.version and not workflow.info().continued_run_id:
            await self._on_version(session.seed.version)
        way = session.way
        if way is None or not way.left:
            return await self.next.execute_workflow(input)
        await self._sent_again()
        way.clock = ReplayClock(
            asyncio.get_running_loop(), lambda: way.left, lambda: session.in_flight == 0
        )
        result = await self.next.execute_workflow(input)
        if (step := await way.missing()) is not None:
            await never_asked_for(session, step)
        return result

    async def _on_version(self, version: str) -> None:
        """Wait until the worker version that was asked for runs this; the first tasks may not."""
        await workflow.wait_condition(lambda: self.session.pinned)
        while True:
            current = workflow.info().get_current_deployment_version()
            if current is not None and current.to_canonical_string() == version:
                return
            await workflow.sleep(0.1)

    async def _sent_again(self) -> None:
        """Wait for the messages from before the seed, so that the code finds what they set."""
        session = self.session
        assert session.seed is not None
        assert session.seed.prefix is not None
        awaited = session.seed.prefix.signals
        if session.heard_again >= awaited:
            return
        try:
            await workflow.wait_condition(
                lambda: session.heard_again >= awaited, timeout=timedelta(minutes=5)
            )
        except TimeoutError:
            workflow.logger.warning(
                "%d of %d earlier messages came again", session.heard_again, awaited
            )
            session.heard_again = awaited

    async def _in_turn(self, headers: Mapping[str, Payload]) -> None:
        """Let a new message wait until those from before the seed have come again."""
        session = self.session
        if is_sent_again(headers.get(HEADER)):
            session.heard_again += 1
            return
        prefix = session.seed.prefix if session.seed else None
        if prefix is not None and session.heard_again < prefix.signals:
            await workflow.wait_condition(lambda: session.heard_again >= prefix.signals)

    def carried(self, headers: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the headers of the next run after continue-as-new."""
        return _with(headers, header_payload(self.session.carry()))

    async def handle_signal(self, input: HandleSignalInput) -> None:
        """Hand our signals to the mixin, and the user's to whoever runs now."""
        self._bind()
        session = self.session
        if input.signal in OWN_SIGNALS and isinstance(workflow.instance(), Rewindable):
            input.args = list(input.args[:1])
            if input.signal == "rewind" and session.seed and session.seed.supervisor:
                await self._pass_up(input, session.seed.supervisor)
                return
        elif session.stopped:
            await self._pass_down(input)
            return
        else:
            await self._in_turn(input.headers)
        await self.next.handle_signal(input)

    async def _pass_up(self, input: HandleSignalInput, supervisor: str) -> None:
        with self.session.handler():
            await self._send_on(input, supervisor)

    async def _pass_down(self, input: HandleSignalInput) -> None:
        try:
            async with self._forwarding() as active:
                await self._send_on(input, active)
        except InvalidRequest as err:
            self.session.refuse(input.signal, "", err)

    async def _send_on(self, input: HandleSignalInput, to: str) -> None:
        try:
            handle = workflow.get_external_workflow_handle(to)
            await handle.signal(input.signal, args=list(input.args))
        except (FailureError, asyncio.CancelledError) as err:
            self.session.refuse(input.signal, "", err)

    async def _forward_update(self, input: HandleUpdateInput) -> Any:
        with self.session.handler():
            async with self._forwarding() as active:
                pass  # signals before it have arrived; those after it need not wait for its answer
            try:
                return await workflow.execute_activity(
                    FORWARD_UPDATE, args=[active, input.update, input.id, *input.args], **QUICK
                )
            except ActivityError as err:
                told = err.cause
                if isinstance(told, ApplicationError) and told.type == OUTCOME_FAILED:
                    raise (told.cause or told) from None
                raise

    @asynccontextmanager
    async def _forwarding(self) -> AsyncIterator[str]:
        """Yield the workflow that runs now; what is passed on to it keeps its order."""
        session = self.session
        with session.handler():
            async with self._in_order:
                await workflow.wait_condition(
                    lambda: session.active is not None or session.phase == "closing"
                )
                if session.active is None:
                    raise InvalidRequest("this workflow was replaced by a rewind and is ending")
                yield session.active.workflow_id

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        """Leave the checking of the user's updates to whoever runs now."""
        self._bind()
        if input.update in OWN_UPDATES and isinstance(workflow.instance(), Rewindable):
            input.args = list(input.args[:1])
        if not self.session.stopped or input.update in OWN_UPDATES:
            self.next.handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        """Hand our updates to the mixin, and the user's to whoever runs now."""
        self._bind()
        if input.update in OWN_UPDATES and isinstance(workflow.instance(), Rewindable):
            input.args = list(input.args[:1])
        elif self.session.stopped:
            return await self._forward_update(input)
        else:
            await self._in_turn(input.headers)
        return await self.next.handle_update_handler(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        """Make the bookkeeping visible to the mixin's queries."""
        self._bind()
        return await self.next.handle_query(input)


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(
        self,
        next: WorkflowOutboundInterceptor,
        inbound: CheckpointWorkflowInbound,
    ) -> None:
        super().__init__(next)
        self._inbound = inbound
        self._queue = cache(lambda: workflow.info().task_queue)

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        if input.activity in ENGINE_ACTIVITIES:
            return self.next.start_activity(input)
        policy = self._inbound.policies.of(input.activity, input.task_queue or self._queue())
        return self._step(input, policy, self.next.start_activity, local=False)

    def start_local_activity(
        self,
        input: StartLocalActivityInput,
    ) -> workflow.ActivityHandle[Any]:
        policy = self._inbound.policies.of(input.activity, self._queue())
        return self._step(input, policy, self.next.start_local_activity, local=True)

    def _step(
        self,
        input: _Activity,
        policy: StepPolicy,
        start: Callable[[_Activity], workflow.ActivityHandle[Any]],
        *,
        local: bool,
    ) -> workflow.ActivityHandle[Any]:
        """Schedule an activity as a step, now or as soon as it is known which one it is."""
        session, args = self._inbound.session, policy.identity(input.args)

        def scheduled() -> tuple[workflow.ActivityHandle[Any], int | None]:
            step = session.schedule(input.activity, args, record=policy.record, local=local)
            if policy.memory:
                input.headers = _with(input.headers, header_payload(step.header))
            handle = start(input)
            handle.add_done_callback(step.ended)
            return handle, step.header.step if step.header.replay else None

        way = session.way
        if way is None or not way.left or not policy.record:
            return scheduled()[0]
        waits = session.must_wait(input.activity, args) is not None
        return StepOnWay(way, scheduled, waits=waits) if waits or way.in_order else scheduled()[0]

    async def start_child_workflow(
        self,
        input: StartChildWorkflowInput,
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        seed = self._inbound.session.seeds.pop(input.id, None)
        if seed is not None:
            input.headers = _with(input.headers, header_payload(SessionHeader(seed=seed)))
        elif self._inbound.session.stopped:
            raise asyncio.CancelledError("this line was left by a rewind")
        elif workflow.patched(SUB_WORKFLOWS):
            session = self._inbound.session
            return await call_sub_workflow(session, input, self.next.start_child_workflow)
        return await self.next.start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        input.headers = self._inbound.carried(input.headers)
        self._inbound.continuing = input
        self.next.continue_as_new(input)


def _with(headers: Mapping[str, Payload], ours: Payload) -> dict[str, Payload]:
    return {**headers, HEADER: ours}
