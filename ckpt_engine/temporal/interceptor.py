"""Around every activity: load what the step needs, run it, commit its checkpoint, then report.

Temporal hears of a result only after it is in the store, so that the history and the store
agree; the checkpoint id is the key that makes a repeated attempt find what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
)

from ..errors import CheckpointError
from .attempt import Attempt, Runtime
from .context import StepScope, current_scope
from .failures import to_failure
from .headers import HEADER, read_step_header
from .patience import Heartbeats
from .policy import StepAdapter
from .process_pool import InOtherProcess, runs_elsewhere

__all__ = ["CheckpointActivityInbound"]


class CheckpointActivityInbound(ActivityInboundInterceptor):
    """Makes an activity that carries our header a step with exactly one checkpoint."""

    def __init__(
        self,
        next: ActivityInboundInterceptor,
        runtime: Callable[[], Runtime],
    ) -> None:
        super().__init__(next)
        self._runtime = runtime
        self._heartbeats: Heartbeats | None = None

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        """Put our heartbeat recorder into the chain."""
        self._heartbeats = Heartbeats(outbound)
        self.next.init(self._heartbeats)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Run the step unless its result is stored already; commit before returning."""
        header = read_step_header(input.headers.get(HEADER))
        if header is None:
            return await self.next.execute_activity(input)
        try:
            attempt = Attempt(self._runtime(), header, self._heartbeats)
            done = await attempt.earlier()
            if done is not None:
                self._runtime().telemetry.step("answered")
                return done.value
            scope = StepScope(header, attempt.load)
            body = self._body(scope, input, attempt.adapter)
            progress = attempt.progress()
            result = await (body if progress is None else progress.during(scope, body))
            return await attempt.commit(scope.changes, result)
        except CheckpointError as err:
            raise to_failure(err) from err

    async def _body(
        self, scope: StepScope, input: ExecuteActivityInput, adapter: StepAdapter | None
    ) -> Any:
        if runs_elsewhere(input):
            input.fn = InOtherProcess(input.fn, await scope.open())
            returned = await self.next.execute_activity(input)
            scope.changes = returned.changes
            return returned.result
        token = current_scope.set(scope)
        try:
            if adapter is None:
                return await self.next.execute_activity(input)
            step = await scope.open()
            input.args = list(adapter.before(step, input.args))
            result = await self.next.execute_activity(input)
            adapter.after(step, input.args, result)
            return result
        finally:
            current_scope.reset(token)
