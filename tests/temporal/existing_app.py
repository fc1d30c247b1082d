"""An application that knew nothing of checkpoints and has habits of its own."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, client, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.plugin import SimplePlugin

from ckpt_engine.temporal import Rewindable

TIMEOUT = timedelta(seconds=30)


@dataclass
class Parcel:
    """A value of the application's own."""

    name: str
    weight: int


@activity.defn
async def weigh(name: str) -> Parcel:
    return Parcel(name, len(name))


@activity.defn
async def stamp(parcel: Parcel) -> str:
    return f"{parcel.name}: {parcel.weight} stamps"


@activity.defn
async def audited(text: str) -> str:
    """Comes with the application's own plugin."""
    return f"audited {text}"


@workflow.defn
class PostOffice:
    @workflow.run
    async def run(self, name: str) -> str:
        parcel = await workflow.execute_activity(weigh, name, start_to_close_timeout=TIMEOUT)
        text = await workflow.execute_activity(stamp, parcel, start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(audited, text, start_to_close_timeout=TIMEOUT)


class Sealed(PayloadCodec):
    """Stands for encryption: nothing readable leaves the worker."""

    def __init__(self, key: str = "k1") -> None:
        self.key = key

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"sealed", "key": self.key.encode()},
                data=base64.b85encode(p.SerializeToString()),
            )
            for p in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._open(payload) for payload in payloads]

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != b"sealed":
            return payload
        assert payload.metadata["key"] == self.key.encode(), "sealed with another key"
        inner = Payload()
        inner.ParseFromString(base64.b85decode(payload.data))
        return inner


class SealedFor(Sealed, WithSerializationContext):
    """Seals what one activity, or one workflow, has to do with by a key of its own."""

    def with_context(self, context: SerializationContext) -> SealedFor:
        assert isinstance(context, WorkflowSerializationContext | ActivitySerializationContext)
        return SealedFor(f"{context.workflow_id} {getattr(context, 'activity_type', '')}")


class Habits(client.Interceptor, worker.Interceptor):
    """Passes a trace id along in a header and counts what it sees, on every side."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.traces: set[str] = set()

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        habits = self

        class Outbound(client.OutboundInterceptor):
            async def start_workflow(
                self, input: client.StartWorkflowInput
            ) -> client.WorkflowHandle[Any, Any]:
                habits.seen["start"] += 1
                input.headers = {**input.headers, "trace": Payload(data=b"trace-7")}
                return await super().start_workflow(input)

        return Outbound(next)

    def intercept_activity(
        self, next: worker.ActivityInboundInterceptor
    ) -> worker.ActivityInboundInterceptor:
        habits = self

        class Inbound(worker.ActivityInboundInterceptor):
            async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
                habits.seen[activity.info().activity_type] += 1
                habits.traces.add(input.headers["trace"].data.decode())
                return await super().execute_activity(input)

        return Inbound(next)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        return _TraceOn


class _TraceOn(worker.WorkflowInboundInterceptor):
    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        super().init(_TraceOut(outbound))


class _TraceOut(worker.WorkflowOutboundInterceptor):
    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        trace: Mapping[str, Payload] = {"trace": workflow.info().headers["trace"]}
        input.headers = {**input.headers, **trace}
        return super().start_activity(input)


class CompanyPlugin(SimplePlugin):
    """The application's own plugin: its codec, its interceptors, an activity that everyone has."""

    def __init__(self, habits: Habits) -> None:
        super().__init__(
            "company",
            data_converter=DataConverter(payload_codec=Sealed()),
            interceptors=[habits],
            activities=[audited],
        )


@workflow.defn
class SlowPostOffice:
    """Waits in the middle until it is told to go on."""

    def __init__(self) -> None:
        self.open = False

    @workflow.signal
    def go_on(self) -> None:
        self.open = True

    @workflow.run
    async def run(self, name: str) -> str:
        parcel = await workflow.execute_activity(weigh, name, start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: self.open)
        text = await workflow.execute_activity(stamp, parcel, start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(audited, text, start_to_close_timeout=TIMEOUT)


@workflow.defn(name="SlowPostOffice")
class RewindablePostOffice(SlowPostOffice, Rewindable):
    """The same with the mixin."""

    @workflow.run
    async def run(self, name: str) -> str:
        return await super().run(name)
