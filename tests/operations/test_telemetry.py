"""What a worker measures arrives where the SDK's own metrics and spans do."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.temporal import CheckpointPlugin
from tests.temporal.app import ACTIVITIES, Walker
from tests.temporal.conftest import POLICIES

NODES = 4


async def walk(client: Client, queue: str, build: str | None = None) -> str:
    """Walk once with a worker of its own; return the workflow's id."""
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    async with Worker(
        client, task_queue=queue, workflows=[Walker], activities=ACTIVITIES, build_id=build
    ):
        await client.execute_workflow(
            Walker.run, args=[workflow_id, NODES, -1], id=workflow_id, task_queue=queue
        )
    return workflow_id


async def test_metrics_go_where_the_sdks_own_go(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    buffer = MetricBuffer(10_000)
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        runtime=Runtime(telemetry=TelemetryConfig(metrics=buffer)),
        plugins=[CheckpointPlugin(url, policies=POLICIES)],
    )
    await walk(client, task_queue)
    values: dict[str, list[float]] = defaultdict(list)
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for update in buffer.retrieve_updates():
        values[update.metric.name].append(update.value)
        for label in ("outcome", "found", "activity_type"):
            if label in update.attributes:
                labels[update.metric.name][str(update.attributes[label])] += int(update.value or 1)
    assert labels["ckpt_steps"]["committed"] == NODES
    assert len(values["ckpt_snapshot_latency"]) == NODES
    assert len(values["ckpt_load_latency"]) == NODES + 1  # the recital looks, and is no step
    assert labels["ckpt_load_latency"].keys() == {"walk", "recite"}
    assert sum(values["ckpt_group_size"]) >= NODES
    assert labels["ckpt_cache"]["memory"] > labels["ckpt_cache"]["store"] > 0


async def test_spans_are_children_of_the_activitys(
    temporal_env: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        interceptors=[TracingInterceptor(provider.get_tracer("application"))],
        plugins=[CheckpointPlugin(url, policies=POLICIES)],
    )
    await walk(client, task_queue)
    finished = {span.context.span_id: span for span in spans.get_finished_spans() if span.context}
    ours = [span for span in finished.values() if span.name.startswith("ckpt.")]
    assert Counter(span.name for span in ours) == {"ckpt.load": NODES + 1, "ckpt.snapshot": NODES}
    for span in ours:
        assert span.parent is not None
        assert finished[span.parent.span_id].name.startswith("RunActivity:")
    steps = sorted(
        int(str((span.attributes or {})["ckpt.step"]))
        for span in ours
        if span.name == "ckpt.snapshot"
    )
    assert steps == [1, 2, 3, 4]


async def test_checkpoints_say_which_build_made_them(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await Client.connect(
        temporal_env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, policies=POLICIES)],
    )
    workflow_id = await walk(client, task_queue, "2026.11")
    async with await create_checkpoint_engine(url) as engine:
        found = await engine.find_run(workflow_id)
        assert found is not None
        path = await engine.list_time_travel_points(found[0].id)
    assert [info.metadata.get("build") for info in path] == ["2026.11"] * NODES + [None]
