"""A worker that is asked to stop while a checkpoint is being committed finishes the commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.messages import AgentInput
from ckpt_engine import create_checkpoint_engine

ROOT = Path(__file__).parents[2]
AGENT = '''
import time
from pathlib import Path
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from ckpt_engine.contrib.agent import AgentSpec

here = Path(__file__).parent

def lift() -> str:
    """Lift something."""
    with (here / "lifted").open("a") as times:
        times.write("once\\n")
    (here / "started").touch()
    while not (here / "go").exists():
        time.sleep(0.01)
    (here / "ran").touch()
    return "lifted"

def model(messages, info):
    if "lifted" in str(messages[1:]):
        return ModelResponse(parts=[TextPart("done")])
    return ModelResponse(parts=[ToolCallPart("lift", {})])

agent = AgentSpec(model=FunctionModel(model), instructions="Lift.", tools=[lift])
'''


async def there(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def a_worker(address: str, folder: Path, queue: str) -> AsyncIterator[Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "worker.py"),
        cwd=folder,
        env={
            **clean,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "TEMPORAL_ADDRESS": address,
            "CKPT_DATABASE_URL": f"sqlite:///{folder}/ckpt.db",
            "CKPT_TASK_QUEUE": queue,
            "CKPT_AGENT": "lifter:agent",
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_commit_that_has_begun_is_finished(
    temporal_env: WorkflowEnvironment,
    client: Client,
    task_queue: str,
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    (tmp_path / "lifter.py").write_text(AGENT)
    address = client.service_client.config.target_host
    workflow_id = f"lift-{uuid.uuid4().hex[:8]}"
    async with a_worker(address, tmp_path, task_queue) as process:
        handle = await client.start_workflow(
            AgentWorkflow.run, AgentInput(question="Lift it"), id=workflow_id, task_queue=task_queue
        )
        await there(tmp_path / "started")
        with closing(sqlite3.connect(tmp_path / "ckpt.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            (tmp_path / "go").touch()
            await there(tmp_path / "ran")
            process.send_signal(how)
            with pytest.raises(TimeoutError):  # the step has run, and its commit is waited for
                await asyncio.wait_for(process.wait(), timeout=1)
            other.execute("COMMIT")
        assert await asyncio.wait_for(process.wait(), timeout=60) == 0
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/ckpt.db") as engine:
        found = await engine.find_run(workflow_id)
        assert found is not None
        newest = (await engine.list_time_travel_points(found[0].id))[0]
        assert (newest.node, newest.metadata["attempt"]) == ("call_tool", 1)
    async with a_worker(address, tmp_path, task_queue):
        assert (await handle.result()).answer == "done"
    assert (tmp_path / "lifted").read_text() == "once\n"
