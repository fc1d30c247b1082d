"""What a worker measures of its checkpoints: metrics by the SDK, spans by OpenTelemetry.

Metrics go wherever the SDK's own go (``temporalio.runtime.TelemetryConfig``). Spans are made where
the package ``opentelemetry`` is installed; they are children of the activity's span when the client
was connected with the SDK's ``TracingInterceptor``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.runtime import Runtime as SdkRuntime

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.common import MetricMeter
    from temporalio.worker import Worker

__all__ = ["Telemetry", "build_of", "meter_of"]


def meter_of(client: Client) -> MetricMeter:
    """Return the meter of the SDK runtime that a client belongs to."""
    return (client.service_client.config.runtime or SdkRuntime.default()).metric_meter


def build_of(worker: Worker) -> str:
    """Return a worker's version as ``deployment.build``, or its build id; empty without one."""
    config = worker.config(active_config=True)
    deployment = config.get("deployment_config")
    if deployment is not None:
        return deployment.version.to_canonical_string()
    return config.get("build_id") or ""


class Telemetry:
    """The instruments of one worker.

    ========================== ========= ===================================================
    metric                     kind      meaning
    ========================== ========= ===================================================
    ckpt_load_latency          histogram loading what a step starts from
    ckpt_snapshot_latency      histogram committing a step's checkpoint
    ckpt_steps                 counter   steps by ``outcome``: committed, late, or answered (its
                               result was stored already)
    ckpt_group_size            histogram writes that shared a transaction
    ckpt_cache                 counter   parents looked up, by ``found``: memory, store
    ========================== ========= ===================================================

    The first three carry ``activity_type``.
    """

    def __init__(self, meter: MetricMeter) -> None:
        self._load = meter.create_histogram_timedelta(
            "ckpt_load_latency", "Loading what a step starts from", "duration"
        )
        self._snapshot = meter.create_histogram_timedelta(
            "ckpt_snapshot_latency", "Committing the checkpoint of a step", "duration"
        )
        self._steps = meter.create_counter("ckpt_steps", "Steps by outcome")
        self._group = meter.create_histogram("ckpt_group_size", "Writes in one transaction")
        cache = meter.create_counter("ckpt_cache", "Parents looked up")
        self._hits = cache.with_additional_attributes({"found": "memory"})
        self._misses = cache.with_additional_attributes({"found": "store"})
        self._trace = _opentelemetry()

    def committed(self, writes: int) -> None:
        """Note a transaction of the engine's."""
        self._group.record(writes)

    def looked_up(self, *, hit: bool) -> None:
        """Note where a parent was found."""
        (self._hits if hit else self._misses).add(1)

    def step(self, outcome: str) -> None:
        """Note how the step that is running ended."""
        self._steps.add(1, {"outcome": outcome, **_labels()})

    @contextlib.contextmanager
    def loading(self, thread: str) -> Iterator[None]:
        """Time the loading of what a step starts from."""
        started = time.perf_counter()
        with self._span("ckpt.load", {"ckpt.thread": thread}):
            yield
        self._load.record(timedelta(seconds=time.perf_counter() - started), _labels())

    @contextlib.contextmanager
    def committing(self, thread: str, step: int, checkpoint_id: str) -> Iterator[None]:
        """Time the commit of a step's checkpoint."""
        started = time.perf_counter()
        facts = {"ckpt.thread": thread, "ckpt.step": step, "ckpt.checkpoint": checkpoint_id}
        with self._span("ckpt.snapshot", facts):
            yield
        self._snapshot.record(timedelta(seconds=time.perf_counter() - started), _labels())

    def _span(self, name: str, facts: dict[str, Any]) -> AbstractContextManager[object]:
        if self._trace is None or not self._trace.get_current_span().get_span_context().is_valid:
            return nullcontext()  # nobody watches: a span without a parent helps nobody
        tracer = self._trace.get_tracer("ckpt_engine")
        span: AbstractContextManager[object] = tracer.start_as_current_span(name, attributes=facts)
        return span


def _labels() -> dict[str, str]:
    return {"activity_type": activity.info().activity_type} if activity.in_activity() else {}


def _opentelemetry() -> Any:
    try:
        return import_module("opentelemetry.trace")
    except ImportError:
        return None
