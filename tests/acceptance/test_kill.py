"""A worker that is really killed: the run ends with the checkpoints of an undisturbed one."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import create_checkpoint_engine
from tests.temporal.app import Walker

POINTS = ["before-body", "after-body", "after-commit"]
NODES = 4


@asynccontextmanager
async def worker_process(
    env: WorkflowEnvironment, queue: str, url: str, *doom: str
) -> AsyncIterator[Process]:
    address = env.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.acceptance.doomed_worker", address, queue, url, *doom,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def run_of(
    env: WorkflowEnvironment, client: Client, queue: str, folder: Path, point: str
) -> tuple[list[str], list[tuple[Any, ...]], Counter[str]]:
    """Walk with a worker that dies at ``point`` and another that takes over; what came of it."""
    url, marker = f"sqlite:///{folder}/{point}.db", folder / point
    doom = (point, "2", str(marker))
    workflow_id = f"{queue}-{point}"
    handle = await client.start_workflow(
        Walker.run, args=[workflow_id, NODES, -1], id=workflow_id, task_queue=queue
    )
    if point != "never":
        async with worker_process(env, queue, url, *doom) as doomed:
            assert await doomed.wait() == -9
    async with worker_process(env, queue, url, *doom):
        words = await handle.result()
    async with await create_checkpoint_engine(url) as engine:
        found = await engine.find_run(workflow_id)
        assert found is not None
        tree = await engine.get_checkpoint_tree(found[0].id)
        whole = [await engine.get(node.info.id) for node in tree.nodes]
        assert (await engine.verify()).ok
    steps = {checkpoint.id: checkpoint.step for checkpoint in whole}
    seen = [
        (c.step, c.node, c.next_node, c.messages, c.state, [steps[p] for p in c.parents])
        for c in whole
    ]
    bodies = Counter(Path(f"{marker}.bodies").read_text().split())
    return words, seen, bodies


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_worker_leaves_no_trace_in_the_checkpoints(
    temporal_env: WorkflowEnvironment, client: Client, task_queue: str, tmp_path: Path, point: str
) -> None:
    undisturbed = await run_of(temporal_env, client, f"{task_queue}-u", tmp_path, "never")
    words, seen, bodies = await run_of(temporal_env, client, task_queue, tmp_path, point)
    assert words == undisturbed[0] == [f"at {node}" for node in range(NODES)]
    assert seen == undisturbed[1]
    assert [step for step, *_ in seen] == [0, 1, 2, 3, 4]
    # Once it is committed the body never runs again; before that, it has to.
    assert bodies["2"] == {"before-body": 1, "after-body": 2, "after-commit": 1}[point]
