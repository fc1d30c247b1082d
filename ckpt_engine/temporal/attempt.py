"""One attempt at one step: is it done already, what does it start from, and its checkpoint."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import (
    ActivitySerializationContext,
    CompositePayloadConverter,
    DataConverter,
)
from temporalio.exceptions import ApplicationError

from ..errors import CheckpointNotFound, IdReused
from ..model import CheckpointInfo, CommittedStep, SnapshotTrigger, StepCommit, WorkflowRun
from .context import Step, StepChanges
from .diverged import diverged
from .headers import StepHeader
from .origin import ensure_thread
from .patience import Heartbeats, Patience, to_the_end
from .payloads import from_stored, to_stored
from .policy import Policies, StepAdapter
from .progress import Progress

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

    from .telemetry import Telemetry

__all__ = ["BLOB_LIMIT", "Answer", "Attempt", "Known", "Runtime"]

BLOB_LIMIT = 2 * 1024 * 1024 - 16 * 1024
"""Bytes of a result that the server takes; it refuses payloads of 2 MiB."""

_GRACE = 2.0  # seconds that a cancelled attempt still waits for an earlier one's result


class Known(OrderedDict[tuple[str, str], None]):
    """The threads, with run ids, that this process has seen in the store; the newest of them."""

    def note(self, key: tuple[str, str]) -> None:
        """Remember one."""
        self[key] = None
        if len(self) > 10_000:
            self.popitem(last=False)


@dataclass
class Runtime:
    """What the activities of one worker share.

    Attributes:
        engine: The open engine.
        client: The worker's client.
        policies: Which activities are steps.
        telemetry: What is measured.
        max_result_bytes: Largest encoded result of a step.
        build: The worker's version, ``deployment.build``, where it has one.
        known: Threads that have been introduced to the store.
    """

    engine: CheckpointEngine
    client: Client
    policies: Policies
    telemetry: Telemetry
    max_result_bytes: int = BLOB_LIMIT
    build: str = ""
    known: Known = field(default_factory=Known)


@dataclass(frozen=True)
class Answer:
    """The result of a step whose body need not run; it may be ``None``."""

    value: Any


class Attempt:
    """One attempt at one step."""

    def __init__(self, runtime: Runtime, header: StepHeader, heartbeats: Heartbeats | None) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        self._header = header
        self._info = info = activity.info()
        self._patience = Patience(info, heartbeats)
        self._telemetry = runtime.telemetry
        self._policy = runtime.policies.of(info.activity_type, info.task_queue)

    @property
    def adapter(self) -> StepAdapter | None:
        """What connects the step with the agent's memory."""
        return self._policy.adapter

    # Before the body

    async def earlier(self) -> Answer | None:
        """Make sure the thread exists, and return the stored result of an earlier attempt."""
        key = (self._header.thread, self._info.workflow_run_id or "")
        if key not in self._runtime.known:
            await self._patience.insist(self._introduce)
            self._runtime.known.note(key)
        if self._header.replay and self._header.record:
            return await self._replayed()
        if not self._header.record or not self._may_be_done():
            return None
        found = asyncio.ensure_future(self._stored())
        try:
            return await asyncio.shield(found)
        except asyncio.CancelledError:
            # A step that is done is reported as done, also when it is cancelled meanwhile.
            await asyncio.wait([found], timeout=_GRACE)
            if found.done() and found.exception() is None and found.result() is not None:
                return found.result()
            found.cancel()
            raise

    def _may_be_done(self) -> bool:
        """Whether an attempt other than this one may have committed.

        A first attempt that was frozen for longer than its timeouts may have been replaced.
        """
        info = self._info
        if info.attempt > 1 or info.is_local:
            return True
        limits = [t for t in (info.heartbeat_timeout, info.start_to_close_timeout) if t]
        return bool(limits) and datetime.now(UTC) - info.started_time > min(limits)

    async def _stored(self) -> Answer | None:
        find = self._engine.find_committed
        done = await self._patience.insist(lambda: find(self._header.id))
        if done is None:
            return None
        if done.metadata.get("fingerprint") != self._header.fingerprint:
            raise IdReused(
                f"checkpoint {self._header.id} is that of another step than "
                f"{self._info.activity_type} with these arguments: the workflow's code has "
                "scheduled other activities than it did before, in a way that Temporal cannot see"
            )
        return await self._answer(done)

    async def _replayed(self) -> Answer:
        """Return the stored result of a step before the seed, if it is the same step."""
        info = await self._patience.insist(self._on_path)
        done = await self._patience.insist(lambda: self._engine.find_committed(info.id))
        same_type = info.node == self._info.activity_type
        if not same_type or info.metadata.get("fingerprint") != self._header.fingerprint:
            asked = repr(self._info.activity_type) + same_type * " with other arguments"
            was = f"{info.node!r} ({info.id[:8]})"
            raise await self._diverged(info.step, was, asked)
        answer = await self._answer(done) if done else None
        if answer is None:
            raise ApplicationError(
                f"the result of step {info.step} ({info.node}) was not kept (policy or retention),"
                " so the steps after it cannot be replayed; rewind to before it",
                type="result-not-kept",
                non_retryable=True,
            )
        return answer

    async def _on_path(self) -> CheckpointInfo:
        header = self._header
        tips = await self._engine.frontier_at(header.thread, header.step)
        for info in [await self._engine.get_info(tip) for tip in tips]:
            mine = info.step == header.step and info.metadata.get("sub") == header.sub
            if mine and "call" not in info.metadata:
                return info
        asked = repr(self._info.activity_type)
        raise await self._diverged(header.step, "the call of a sub-workflow", asked)

    async def _diverged(self, step: int, was: str, asked: str) -> ApplicationError:
        now = f"now the code asks for {asked}"
        return await diverged(self._engine, self._header.thread, step, was, now)

    async def _introduce(self) -> None:
        header, info = self._header, self._info
        run = WorkflowRun(
            namespace=info.namespace,
            workflow_id=info.workflow_id or "",
            run_id=info.workflow_run_id or "",
            workflow_type=info.workflow_type or "",
            task_queue=info.task_queue,
        )
        await ensure_thread(
            self._engine, self._runtime.client, header.thread, header.origin, header.reset, run
        )

    async def load(self) -> Step:
        """Return the step with the agent's memory, joined from its parents."""

        async def joined() -> Step:
            try:
                content = await self._engine.join(self._header.parents)
            except CheckpointNotFound:
                below = await self._engine.frontier_at(self._header.thread, self._header.step - 1)
                content = await self._engine.join(below)
            return Step(self._header, content.messages, content.state)

        with self._telemetry.loading(self._header.thread):
            return await self._patience.insist(joined)

    def progress(self) -> Progress | None:
        """Return what takes checkpoints while the body runs, where those are wanted."""
        header, info = self._header, self._info
        if not header.record or SnapshotTrigger.INTERVAL not in self._engine.config.triggers:
            return None
        facts = {
            "workflow_id": info.workflow_id,
            "run_id": info.workflow_run_id,
            "in_attempt": info.attempt,
            **({"sub": header.sub} if header.sub else {}),
            **({"base": header.base} if header.base else {}),
        }
        return Progress(self._engine, header, self._policy, facts)

    # After the body

    async def commit(self, changes: StepChanges, result: Any) -> Any:
        """Commit the step's checkpoint and return the result that is stored for it."""
        if not self._header.record:
            return result
        raw = activity.payload_converter().to_payloads([result])[0]
        encoded = await self._encoded(raw)
        self._check_size(encoded)
        shown = await self._shown(result)
        step = self._step_commit(changes, to_stored(encoded, self._policy.keep, shown))
        # From here on the step is done, whoever is cancelled: what is stored is what is reported.
        try:
            answer = await self._committed(step)
        except asyncio.CancelledError:
            # It may have been committed or not: the second time finds it, or does it.
            answer = await to_the_end(self._committed(step))
        if answer is not None:
            return answer.value
        return RawValue(raw) if _passes_payloads() else result

    async def _committed(self, step: StepCommit) -> Answer | None:
        """Commit; return the stored result if another attempt was first and it was kept."""
        with self._telemetry.committing(step.thread_id, step.step, step.checkpoint_id):
            done = await self._patience.insist(lambda: self._engine.commit_step(step))
        if done.created:
            self._telemetry.step("late" if done.late else "committed")
            return None
        self._telemetry.step("answered")
        return await self._answer(done)

    def _check_size(self, encoded: Payload) -> None:
        limit = self._runtime.max_result_bytes
        if self._runtime.client.data_converter.external_storage is not None:
            return  # the application keeps what is large elsewhere
        if encoded.ByteSize() > limit:
            raise ApplicationError(
                f"the result of step {self._header.step} ({self._info.activity_type}) is "
                f"{encoded.ByteSize():,} bytes; the limit is {limit:,}. "
                "Keep large values in step.state or step.append() and return a reference. "
                "Nothing was stored.",
                type="too-large",
                non_retryable=True,
            )

    async def _shown(self, result: Any) -> Payload | None:
        """Return what is stored in the place of a result that is not for everybody's eyes."""
        if self._policy.redact_result is None:
            return None
        redacted = self._policy.redact_result(result)
        return await self._encoded(activity.payload_converter().to_payloads([redacted])[0])

    def _step_commit(self, changes: StepChanges, tools_result: dict[str, Any]) -> StepCommit:
        header, info, policy = self._header, self._info, self._policy
        added, rewritten = changes.added, changes.messages
        if policy.redact is not None:
            added = [policy.redact(message) for message in added]
            rewritten = rewritten and [policy.redact(message) for message in rewritten]
        return StepCommit(
            checkpoint_id=header.id,
            thread_id=header.thread,
            step=header.step,
            parents=tuple(header.parents),
            first=header.first,
            append=added if rewritten is None else (),
            messages=rewritten,
            state_set=changes.state_set,
            state_delete=changes.state_delete,
            tools_result=tools_result,
            trigger=policy.trigger,
            node=info.activity_type,
            next_node=changes.next_node,
            metadata={
                **changes.metadata,
                "fingerprint": header.fingerprint,
                **({"sub": header.sub} if header.sub else {}),
                "attempt": info.attempt,
                "workflow_id": info.workflow_id,
                "run_id": info.workflow_run_id,
                **({"base": header.base} if header.base else {}),
                **({"line": list(header.line)} if header.line else {}),
                **({"build": self._runtime.build} if self._runtime.build else {}),
            },
            fallback_to_head=True,
        )

    # Payloads

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

    async def _encoded(self, payload: Payload) -> Payload:
        if self._runtime.client.data_converter.payload_codec is None:
            return payload  # nor has it one in the step's context, which costs to make
        codec = self._converter().payload_codec
        return (await codec.encode([payload]))[0] if codec else payload

    async def _answer(self, done: CommittedStep) -> Answer | None:
        """Return the stored result in the form that the SDK reports, if it was kept."""
        payload = from_stored(done.tools_result)
        if payload is None:
            return None
        codec = self._converter().payload_codec
        if codec is not None:
            payload = (await codec.decode([payload]))[0]
        if _passes_payloads():
            return Answer(RawValue(payload))
        return Answer(activity.payload_converter().from_payloads([payload])[0])


def _passes_payloads() -> bool:
    """Whether the application's converter lets a payload through as it is."""
    return isinstance(activity.payload_converter(), CompositePayloadConverter)
