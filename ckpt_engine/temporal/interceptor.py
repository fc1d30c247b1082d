"""Around every activity: load what the step needs, run it, commit its checkpoint, then report.

Temporal hears of a result only after it is in the store, so that the history and the store
agree; the checkpoint id is the key that makes a repeated attempt find what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from ..errors import CheckpointError, CheckpointNotFound, Retryable
from ..model import CheckpointInfo, StepCommit, WorkflowRun
from .context import Step, StepScope, current_scope
from .contract import HEADER, StepHeader
from .failures import to_failure
from .origin import ensure_origin
from .payloads import from_stored, to_stored
from .policy import Policies
from .session import read_header

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["CheckpointActivityInbound", "Runtime"]

_T = TypeVar("_T")
_NO_LIMIT = timedelta(minutes=10)
_BLOB_LIMIT = 2 * 1024 * 1024 - 16 * 1024  # the server refuses payloads of 2 MiB


@dataclass
class Runtime:
    """What the activities of one worker share.

    Attributes:
        engine: The open engine.
        client: The worker's client.
        policies: Which activities are steps.
        max_result_bytes: Largest encoded result of a step.
        known: Threads (with run ids) that this process has seen in the store.
    """

    engine: CheckpointEngine
    client: Client
    policies: Policies
    max_result_bytes: int = _BLOB_LIMIT
    known: set[tuple[str, str]] = field(default_factory=set)


class _Heartbeats(ActivityOutboundInterceptor):
    """Remembers the user's last heartbeat details, so that ours can send them again."""

    def __init__(self, next: ActivityOutboundInterceptor) -> None:
        super().__init__(next)
        self.details: tuple[Any, ...] = tuple(next.info().heartbeat_details)

    def heartbeat(self, *details: Any) -> None:
        self.details = details
        self.next.heartbeat(*details)

    def repeat(self) -> None:
        self.next.heartbeat(*self.details)


class CheckpointActivityInbound(ActivityInboundInterceptor):
    """Makes an activity that carries our header a step with exactly one checkpoint."""

    def __init__(
        self,
        next: ActivityInboundInterceptor,
        runtime: Callable[[], Runtime],
    ) -> None:
        super().__init__(next)
        self._runtime = runtime
        self._heartbeats: _Heartbeats | None = None

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        """Put our heartbeat recorder into the chain."""
        self._heartbeats = _Heartbeats(outbound)
        self.next.init(self._heartbeats)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Run the step unless its result is stored already; commit before returning."""
        fields = read_header(input.headers.get(HEADER))
        if fields is None:
            return await self.next.execute_activity(input)
        header = StepHeader.model_validate(fields)
        attempt = _Attempt(self._runtime(), header, activity.info(), self._heartbeats)
        try:
            stored = await attempt.earlier()
            if stored is not None:
                return stored
            scope = StepScope(header, attempt.load)
            token = current_scope.set(scope)
            try:
                result = await self.next.execute_activity(input)
            finally:
                current_scope.reset(token)
            return await attempt.commit(scope, result)
        except CheckpointError as err:
            raise to_failure(err) from err


class _Attempt:
    """One attempt at one step."""

    def __init__(
        self,
        runtime: Runtime,
        header: StepHeader,
        info: activity.Info,
        heartbeats: _Heartbeats | None,
    ) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        self._header = header
        self._info = info
        self._heartbeats = heartbeats
        self._policy = runtime.policies.of(info.activity_type, info.task_queue)

    async def earlier(self) -> RawValue | None:
        """Make sure the thread exists, and return the stored result of an earlier attempt."""
        await self._persistently(self._introduce)
        if self._header.replay and self._header.record:
            return await self._replayed()
        first = self._info.attempt == 1 and not self._info.is_local
        if first or not self._header.record:
            return None
        done = await self._persistently(lambda: self._engine.find_committed(self._header.id))
        payload = from_stored(done.tools_result) if done else None
        return await self._raw(payload) if payload is not None else None

    async def _replayed(self) -> RawValue:
        """Return the stored result of a step before the seed, if it is the same step."""
        info = await self._persistently(self._on_path)
        done = await self._persistently(lambda: self._engine.find_committed(info.id))
        same_type = info.node == self._info.activity_type
        if not same_type or info.metadata.get("fingerprint") != self._header.fingerprint:
            asked = "with other arguments" if same_type else repr(self._info.activity_type)
            raise ApplicationError(
                f"step {info.step} was {info.node!r} ({info.id[:8]}), and now the code asks for "
                f"{asked}: it no longer leads to the seed. Rewind to before step {info.step}, or "
                "run the code that the session was started with.",
                type="diverged",
                non_retryable=True,
            )
        payload = from_stored(done.tools_result) if done else None
        if payload is None:
            raise ApplicationError(
                f"the result of step {info.step} ({info.node}) was not kept (policy or retention),"
                " so the steps after it cannot be replayed; rewind to before it",
                type="result-not-kept",
                non_retryable=True,
            )
        return await self._raw(payload)

    async def _on_path(self) -> CheckpointInfo:
        header = self._header
        tips = await self._engine.frontier_at(header.thread, header.step)
        for info in [await self._engine.get_info(tip) for tip in tips]:
            mine = info.step == header.step and info.metadata.get("sub") == header.sub
            if mine and "call" not in info.metadata:
                return info
        raise ApplicationError(
            f"step {header.step} was the call of a sub-workflow, and now the code asks for "
            f"{self._info.activity_type!r}: it no longer leads to the seed. Rewind to before step "
            f"{header.step}, or run the code that the session was started with.",
            type="diverged",
            non_retryable=True,
        )

    async def _introduce(self) -> None:
        header, info = self._header, self._info
        key = (header.thread, info.workflow_run_id or "")
        if key in self._runtime.known:
            return
        run = WorkflowRun(
            namespace=info.namespace,
            workflow_id=info.workflow_id or "",
            run_id=info.workflow_run_id or "",
            workflow_type=info.workflow_type or "",
            task_queue=info.task_queue,
        )
        if header.origin is not None:
            await ensure_origin(
                self._engine, self._runtime.client, header.thread, header.origin, run
            )
        await self._engine.register_run(header.thread, run)
        self._runtime.known.add(key)

    async def load(self) -> Step:
        """Return the step with the agent's memory, joined from its parents."""

        async def joined() -> Step:
            try:
                content = await self._engine.join(self._header.parents)
            except CheckpointNotFound:
                below = await self._engine.frontier_at(self._header.thread, self._header.step - 1)
                content = await self._engine.join(below)
            return Step(self._header, content.messages, content.state)

        return await self._persistently(joined)

    async def commit(self, scope: StepScope, result: Any) -> Any:
        """Commit the step's checkpoint and return the result that is stored for it."""
        if not self._header.record:
            return result
        raw = activity.payload_converter().to_payloads([result])[0]
        encoded = (await self._converter().encode([RawValue(raw)]))[0]
        if encoded.ByteSize() > self._runtime.max_result_bytes:
            raise ApplicationError(
                f"the result of step {self._header.step} ({self._info.activity_type}) is "
                f"{encoded.ByteSize():,} bytes; the limit is {self._runtime.max_result_bytes:,}. "
                "Keep large values in step.state or step.append() and return a reference. "
                "Nothing was stored.",
                type="too-large",
                non_retryable=True,
            )
        commit = self._step_commit(scope.step, encoded)
        done = await _finish(self._persistently(lambda: self._engine.commit_step(commit)))
        if done.created:
            return RawValue(raw)
        stored = from_stored(done.tools_result)
        return await self._raw(stored) if stored is not None else RawValue(raw)

    def _step_commit(self, step: Step | None, encoded: Payload) -> StepCommit:
        header, info, policy = self._header, self._info, self._policy
        changed, deleted = step.state_changes() if step else ({}, [])
        added = step.added if step else []
        if policy.redact is not None:
            added = [policy.redact(message) for message in added]
        return StepCommit(
            checkpoint_id=header.id,
            thread_id=header.thread,
            step=header.step,
            parents=tuple(header.parents),
            first=header.first,
            append=added,
            state_set=changed,
            state_delete=deleted,
            tools_result=to_stored(encoded, policy.keep),
            trigger=policy.trigger,
            node=info.activity_type,
            next_node=step.next_node if step else None,
            metadata={
                **(step.metadata if step else {}),
                "fingerprint": header.fingerprint,
                **({"sub": header.sub} if header.sub else {}),
                "attempt": info.attempt,
                "workflow_id": info.workflow_id,
                "run_id": info.workflow_run_id,
                **({"base": header.base} if header.base else {}),
            },
            fallback_to_head=True,
        )

    def _converter(self) -> DataConverter:
        info = self._info
        return self._runtime.client.data_converter.with_context(
            ActivitySerializationContext(
                namespace=info.namespace,
                workflow_id=info.workflow_id or "",
                workflow_type=info.workflow_type or "",
                activity_type=info.activity_type,
                activity_id=info.activity_id,
                activity_task_queue=info.task_queue,
                is_local=info.is_local,
            )
        )

    async def _raw(self, stored: Payload) -> RawValue:
        codec = self._converter().payload_codec
        return RawValue((await codec.decode([stored]))[0] if codec else stored)

    async def _persistently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Try a store operation until it works or the attempt's time is nearly up."""
        limit = self._info.start_to_close_timeout or _NO_LIMIT
        left = limit - (datetime.now(UTC) - self._info.started_time)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_exponential(multiplier=0.05, max=2),
            stop=stop_after_delay(max(0.0, left.total_seconds() * 0.9)),
            reraise=True,
        )
        async with self._beating():
            async for attempt in retrying:
                with attempt:
                    return await call()
        raise AssertionError("tenacity raises the last error")

    @contextlib.asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Heartbeat with the user's last details while the store keeps the step waiting."""
        timeout, beats = self._info.heartbeat_timeout, self._heartbeats
        if timeout is None or beats is None or self._info.is_local:
            yield
            return

        async def beat() -> None:
            while True:
                await asyncio.sleep(timeout.total_seconds() / 3)
                beats.repeat()

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()


async def _finish(work: Awaitable[_T]) -> _T:
    """Wait for ``work`` to its end, whatever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
