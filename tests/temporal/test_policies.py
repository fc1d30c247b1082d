"""What is kept of results, under an encrypting codec and the converter for pydantic models."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, HeaderCodecBehavior, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import (
    CheckpointEngine,
    InvalidRequest,
    Keyring,
    SnapshotTrigger,
    create_checkpoint_engine,
)
from ckpt_engine.temporal import (
    CheckpointPlugin,
    EncryptionCodec,
    RewindRequest,
    Sessions,
    StepPolicy,
    Target,
)

from .clinic import BODIES, Clinic, Patient, admit, treat

CODEC = EncryptionCodec(Keyring({"k": b"k" * 32}))
SEALED = dataclasses.replace(pydantic_data_converter, payload_codec=CODEC)


@asynccontextmanager
async def clinic(
    env: WorkflowEnvironment, url: str, queue: str, **options: Any
) -> AsyncIterator[tuple[Client, CheckpointEngine]]:
    behavior = options.pop("header_codec_behavior", HeaderCodecBehavior.NO_CODEC)
    client = await Client.connect(
        env.client.service_client.config.target_host,
        data_converter=SEALED,
        header_codec_behavior=behavior,
        plugins=[CheckpointPlugin(url, **options)],
    )
    worker = Worker(client, task_queue=queue, workflows=[Clinic], activities=[admit, treat])
    async with worker, await create_checkpoint_engine(url) as engine:
        yield client, engine


async def admitted(client: Client, queue: str) -> WorkflowHandle[Any, Patient]:
    BODIES.clear()
    handle = await client.start_workflow(
        Clinic.run, "pangolin", id=f"clinic-{uuid.uuid4().hex[:8]}", task_queue=queue
    )
    assert await handle.result() == Patient(name="pangolin", visits=[1, 2, 2])
    return handle


async def kept(engine: CheckpointEngine, workflow_id: str) -> list[Any]:
    found = await engine.find_run(workflow_id)
    assert found is not None
    points = await engine.list_time_travel_points(found[0].id)
    return [await engine.get(point.id) for point in reversed(points)]


@pytest.mark.parametrize("headers", [HeaderCodecBehavior.NO_CODEC, HeaderCodecBehavior.CODEC])
async def test_an_encrypted_application_gains_no_copy_in_the_clear_and_its_models_come_through(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, headers: HeaderCodecBehavior
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    quiet = {"treat": StepPolicy(redact=lambda message: {**message, "content": "[redacted]"})}
    async with clinic(
        temporal_env, url, task_queue, policies=quiet, header_codec_behavior=headers
    ) as (client, engine):
        handle = await admitted(client, task_queue)
        # Answered from the store, through the codec, where the code asks for them again.
        await Sessions(client, engine).rewind(handle.id, RewindRequest(to=Target(step=2)))
        again = client.get_workflow_handle_for(Clinic.run, handle.id)
        assert await again.result() == Patient(name="pangolin", visits=[1, 2, 2])
        assert BODIES == ["admit", "treat", "treat", "treat"]
        latest = (await kept(engine, handle.id))[-1]
        assert {m["content"] for m in latest.messages} == {"[redacted]"}
        for file in tmp_path.iterdir():
            assert b"pangolin" not in file.read_bytes(), file.name


@pytest.mark.parametrize("keep", ["digest", "nothing", "redacted"])
async def test_what_is_not_kept_is_not_in_the_store_and_stops_a_replay_clearly(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, keep: str
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    policy = StepPolicy(redact_result=lambda patient: {"visits": len(patient.visits)})
    if keep != "redacted":
        policy = StepPolicy(keep=keep)  # type: ignore[arg-type]
    trigger = StepPolicy(trigger=SnapshotTrigger.LLM_CALL)
    policies = {f"admit@{task_queue}": policy, "admit": trigger, "*": trigger}
    async with clinic(temporal_env, url, task_queue, policies=policies) as (client, engine):
        handle = await admitted(client, task_queue)
        _, first, *rest = await kept(engine, handle.id)
        assert first.tools_result["kept"] == keep
        assert first.trigger == SnapshotTrigger.TOOL_CALL
        assert [c.trigger for c in rest] == [SnapshotTrigger.LLM_CALL] * 2
        assert ("data" in first.tools_result) == (keep == "redacted")
        await Sessions(client, engine).rewind(handle.id, RewindRequest(to=Target(step=2)))
        with pytest.raises(WorkflowFailureError) as caught:
            await client.get_workflow_handle(handle.id).result()
        assert isinstance(caught.value.cause, ActivityError)
        cause = caught.value.cause.cause
        assert isinstance(cause, ApplicationError)
        assert cause.type == "result-not-kept"


def test_policies_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'all', 'digest' or 'nothing'"):
        StepPolicy(keep="some")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="no result left"):
        StepPolicy(keep="digest", redact_result=str)
