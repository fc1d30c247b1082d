"""The shipped agent continues as new when the server suggests it, and nobody can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.temporal import Overrides, RewindRequest, Sessions, Target

from ..conftest import start_server
from .test_agent_workflow import Running, running
from .test_compaction import SPEC, TURNS, path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server that suggests to continue as new after forty events already."""
    env = await start_server("limit.historyCount.suggestContinueAsNew=40")
    try:
        yield env
    finally:
        await env.shutdown()


async def seen(app: Running) -> tuple[str, list[tuple[Any, ...]]]:
    """Ask once; return the workflow's id, and what its checkpoints hold."""
    workflow_id = await app.start("What is behind the doors?")
    result = await app.result(workflow_id)
    assert result.answer == "sand, everywhere"
    whole = [await app.engine.get(step.id) for step in await path(app, result.thread)]
    return workflow_id, [
        (c.step, c.node, c.next_node, len(c.messages), c.messages[-1:], sorted(c.state))
        for c in whole
    ]


def settled(checkpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Leave out what differs from run to run: times and ids within messages."""
    return [(step, node, after, count, keys) for step, node, after, count, _, keys in checkpoints]


async def test_the_agent_continues_as_new_and_its_checkpoints_are_the_same(
    hasty_env: WorkflowEnvironment,
    temporal_env: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
) -> None:
    (tmp_path / "usual").mkdir()
    async with running(temporal_env, SPEC, tmp_path / "usual", task_queue) as app:
        _, usual = await seen(app)
    async with running(hasty_env, SPEC, tmp_path, task_queue) as app:
        workflow_id, hasty = await seen(app)
        assert settled(hasty) == settled(usual)
        assert [step for step, *_ in hasty] == list(range(2 * TURNS + 3))
        newest = await app.client.get_workflow_handle(workflow_id).fetch_history()
        start = newest.events[0].workflow_execution_started_event_attributes
        assert start.continued_execution_run_id
        # back to before it continued, in a session that has ended
        note = {"role": "user", "content": "quickly"}
        request = RewindRequest(to=Target(step=4), overrides=Overrides(messages=[note]))
        child = await Sessions(app.client, app.engine).rewind(workflow_id, request)
        again = await app.result(child.workflow_id)
        assert again.answer == "sand, everywhere"
        messages = (await app.engine.get(again.checkpoint)).messages
        assert [m for m in messages if m.get("content") == "quickly"] == [note]
