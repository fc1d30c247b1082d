"""Committed histories of every kind of run replay with today's workflow side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from ckpt_agent import worker
from ckpt_engine.temporal import CheckpointPlugin, RewindRequest, Target

from ..temporal.app import Walker, gate
from ..temporal.conftest import POLICIES, running_app
from .changed import ChangedOrder
from .record import EVERY_ACTIVITY, EVERY_WORKFLOW, HISTORIES

NAMES = sorted(path.stem for path in HISTORIES.glob("*.json"))


def recorded(name: str) -> WorkflowHistory:
    value: dict[str, Any] = json.loads((HISTORIES / f"{name}.json").read_text())
    return WorkflowHistory.from_json(value.pop("workflow_id"), value)


def replayer(*workflows: type) -> Replayer:
    return Replayer(
        workflows=list(workflows),
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin("memory:", policies={**POLICIES, **worker.POLICIES})],
    )


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_run_replays(name: str) -> None:
    await replayer(*EVERY_WORKFLOW).replay_workflow(recorded(name))


def test_there_is_a_history_of_every_kind_of_run() -> None:
    kinds = {"loop", "order", "batch", "lines", "sub-workflow", "timer-and-approval", "failed"}
    kinds |= {"rewound-address", "rewound-child", "superseded-child", "branch", "revived"}
    kinds |= {"replaying-address", "replaying-child", "cancelled-address", "child-that-reports"}
    kinds |= {"continued-loop-last-run", "continued-address-last-run"}
    kinds |= {"experiment-first-run", "experiment-last-run", "experiment-cancelled"}
    kinds |= {"trial", "promotion"}
    kinds |= {"replaying-crew", "replaying-mishap", "replaying-calls-on-lines"}
    assert kinds <= set(NAMES)


async def test_a_change_of_the_code_would_be_noticed() -> None:
    with pytest.raises(Exception, match=r"[Nn]ondeterminism"):
        await replayer(ChangedOrder).replay_workflow(recorded("order"))


async def test_everything_is_the_same_without_a_cache_of_workflows(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    """Every workflow task replays the whole history before it."""
    async with running_app(
        temporal_env,
        f"sqlite:///{tmp_path}/ckpt.db",
        task_queue,
        workflows=[Walker],
        activities=EVERY_ACTIVITY,
        max_cached_workflows=0,
    ) as app:
        handle = await app.start(4)
        reached, _ = gate(handle.id, 2)
        await reached.wait()
        in_child, opened = gate(handle.id, 3)
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
        await in_child.wait()
        await handle.signal("note", "hello")
        assert await handle.execute_update("note_and_count", "again") == 2
        opened.set()
        words = ["at 0", "at 1", "at 2", "at 3", "hello", "again"]
        assert await handle.result() == words
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=3)))
        assert await app.client.get_workflow_handle(handle.id).result() == words[:4]
        assert (await app.engine.verify()).ok
