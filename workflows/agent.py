"""The agent loop: model call, tool calls in parallel, model call, and so on to an answer.

It decides from ids and small models only; the conversation is in the checkpoints, where its
steps find it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from ckpt_engine.temporal.rewindable import Rewindable

with workflow.unsafe.imports_passed_through():
    from ckpt_engine.experiments.budget import Lease

    from .messages import AgentInput, AgentResult, ModelTurn, ResumePoint, ToolCall, ToolOutcome
    from .overrides import check_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt_engine.temporal.contract import Overrides

__all__ = ["AgentWorkflow"]

_LOST_WORKER = timedelta(seconds=20)
"""How long nothing is heard of a step before another worker takes it over."""
_MODEL: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    "heartbeat_timeout": _LOST_WORKER,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(minutes=1), maximum_attempts=10),
}
_TOOL: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=5),
    "heartbeat_timeout": _LOST_WORKER,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=5),
}
_LARGEST_ANSWER = 64 * 1024


@workflow.defn
class AgentWorkflow(Rewindable, resume="next_node"):
    """A durable agent; every model call and every tool call is a checkpoint to go back to."""

    def __init__(self) -> None:
        self._max_steps = 0
        self._lease: Lease | None = None

    @workflow.run
    async def run(self, input: AgentInput) -> AgentResult:
        """Work until the model answers, from the start or from the seed.

        Raises:
            ApplicationError: The limit on steps is reached (``step-limit``), or what a trial of
                an experiment may spend is spent (``budget``).
        """
        self._max_steps = input.max_steps
        self._lease = self._own_lease()
        point = await self._enter(input)
        answer, calls = point.answer, point.tool_calls
        if point.node == "tools":
            await self._call_tools(calls)
        while point.node != "end":
            paid = () if self._lease is None else (self._lease,)
            turn: ModelTurn = await self._step("call_model", paid, ModelTurn, _MODEL)
            if not turn.tool_calls:
                answer = turn.answer
                break
            await self._call_tools(turn.tool_calls)
            if turn.crowded:
                await self._step("compact", paid, None, _MODEL)
            self.continue_if_suggested("model")
        session = self.checkpoint_session
        return AgentResult(
            answer=answer if answer is None or len(answer) <= _LARGEST_ANSWER else None,
            thread=session.thread,
            checkpoint=session.main.parents()[-1],
            steps=session.step,
        )

    def _own_lease(self) -> Lease | None:
        """Return what this line may spend; what people branch from a trial has no lease."""
        lease = workflow.memo_value("lease", default=None, type_hint=Lease)
        return lease if lease and lease.owner == self.checkpoint_session.thread else None

    def check_overrides(self, overrides: Overrides) -> None:
        """Refuse what the agent could not go on with."""
        check_overrides(overrides)

    async def _enter(self, start: AgentInput) -> ResumePoint:
        """Begin, or find where a seeded conversation goes on."""
        if self.seed is None or self.seed.next_node is None:
            await self._step("begin", (start,), None, _TOOL)
            return ResumePoint(node="model")
        point: ResumePoint = await self._step("resume_point", (), ResumePoint, _TOOL)
        if point.max_steps is not None:
            self._max_steps = point.max_steps
        if point.node == "end" and self.seed.next_node == "model":
            return ResumePoint(node="model")  # asked for, since the conversation has its answer
        return point

    async def _call_tools(self, calls: Sequence[ToolCall]) -> None:
        """Run the calls of one turn side by side; each is a step of its own."""
        await asyncio.gather(
            *(self._step("call_tool", (call,), ToolOutcome, _TOOL) for call in calls)
        )

    async def _step(
        self, activity: str, args: Sequence[Any], result: type | None, options: dict[str, Any]
    ) -> Any:
        if self.checkpoint_session.step >= self._max_steps:
            raise ApplicationError(
                f"no answer after {self._max_steps} steps; rewind with the state key "
                "'max_steps' set higher to let it go on",
                type="step-limit",
                non_retryable=True,
            )
        self._check_lease(activity)
        return await workflow.execute_activity(activity, args=args, result_type=result, **options)

    def _check_lease(self, activity: str) -> None:
        lease, seed = self._lease, self.seed
        if lease is None or lease.steps is None or seed is None or activity == "resume_point":
            return
        if self.checkpoint_session.step - seed.step >= lease.steps:
            raise ApplicationError(
                f"the budget is used up: {lease.steps} steps", type="budget", non_retryable=True
            )
