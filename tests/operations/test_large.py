"""A conversation of 100 MB and results beyond all limits: nothing of them enters Temporal."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import SnapshotConfig, create_checkpoint_engine
from ckpt_engine.temporal import CheckpointPlugin, Rewindable, Sessions, current_step
from ckpt_engine.temporal.contract import RewindRequest, Target

PIECE = 20_000_000
MARK = "unmistakable"


@activity.defn
async def haul(number: int, size: int) -> int:
    step = await current_step()
    step.append({"role": "tool", "content": f"{MARK} {number} " + "x" * size})
    step.next_node = str(number + 1)
    return len(step.messages)


@activity.defn
async def hand_over(size: int) -> str:
    return f"{MARK} " + "x" * size


@workflow.defn
class Hauler(Rewindable, resume="next_node"):
    @workflow.run
    async def run(self, pieces: list[int], result: int) -> int:
        at = int(self.seed.next_node) if self.seed and self.seed.next_node else 0
        once: dict[str, Any] = {
            "start_to_close_timeout": timedelta(seconds=60),
            "retry_policy": RetryPolicy(maximum_attempts=3),
        }
        count = 0
        for number in range(at, len(pieces)):
            count = await workflow.execute_activity(haul, args=[number, pieces[number]], **once)
        if result:
            await workflow.execute_activity(hand_over, result, **once)
        return count


async def start(
    env: WorkflowEnvironment, url: str, queue: str, pieces: list[int], result: int, **config: Any
) -> tuple[Client, Worker, WorkflowHandle[Any, int]]:
    client = await Client.connect(
        env.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, config=SnapshotConfig(**config))],
    )
    worker = Worker(client, task_queue=queue, workflows=[Hauler], activities=[haul, hand_over])
    handle: WorkflowHandle[Any, int] = await client.start_workflow(
        Hauler.run,
        args=[pieces, result],
        id=f"haul-{uuid.uuid4().hex[:8]}",
        task_queue=queue,
    )
    return client, worker, handle


async def history_of(handle: WorkflowHandle[Any, Any]) -> str:
    history = await handle.fetch_history()
    assert sum(event.ByteSize() for event in history.events) < 40_000
    return history.to_json()


async def why(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    cause = failed.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    return cause.cause


async def test_a_conversation_of_100_mb_stays_out_of_the_history(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    pieces = [PIECE] * 5
    client, worker, handle = await start(temporal_env, url, task_queue, pieces, 0)
    async with worker, await create_checkpoint_engine(url) as engine:
        assert await handle.result() == 5
        assert MARK not in await history_of(handle)
        await Sessions(client, engine).rewind(handle.id, RewindRequest(to=Target(step=3)))
        again = client.get_workflow_handle(handle.id)
        assert await again.result() == 5
        assert MARK not in await history_of(again)
        found = await engine.find_run(handle.id)
        assert found is not None
        whole = await engine.get_latest(found[0].id)
        assert sum(len(message["content"]) for message in whole.messages) > 5 * PIECE


async def test_a_snapshot_above_the_limit_is_refused_and_the_thread_goes_on(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client, worker, handle = await start(
        temporal_env, url, task_queue, [100, 2_000_000], 0, max_snapshot_size_mb=1
    )
    async with worker, await create_checkpoint_engine(url) as engine:
        refused = await why(handle)
        assert (refused.type, refused.non_retryable) == ("too-large", True)
        assert "max_snapshot_size_mb" in refused.message
        assert MARK not in await history_of(handle)
        found = await engine.find_run(handle.id)
        assert found is not None
        points = await engine.list_time_travel_points(found[0].id)
        assert [point.step for point in points] == [1, 0]
        # the session goes on from what it has
        again = await Sessions(client, engine).rewind(handle.id, RewindRequest(to=Target(step=1)))
        with pytest.raises(WorkflowFailureError):  # to the same end, since it is asked the same
            await client.get_workflow_handle(again.workflow_id).result()
        assert (await engine.verify()).ok


async def test_a_huge_result_is_refused_with_what_to_do_instead(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    _, worker, handle = await start(temporal_env, url, task_queue, [100], 5_000_000)
    async with worker:
        refused = await why(handle)
    assert (refused.type, refused.non_retryable) == ("too-large", True)
    assert "step.append()" in refused.message
    assert MARK not in await history_of(handle)
