"""Temporal's own configuration is honoured: profiles, TLS and API keys, for worker and commands."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from pathlib import Path

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.messages import AgentInput
from ckpt_engine import create_checkpoint_engine

from .secure_front import Front, secure_front

ROOT = Path(__file__).parents[2]
CKPT = str(Path(sys.executable).parent / "ckpt")
KEY = "a-key-of-a-cloud-account"


def profile(front: Front, folder: Path) -> dict[str, str]:
    """Write Temporal's configuration file; return the environment that points to it."""
    path = folder / "temporal.toml"
    path.write_text(
        f"""
[profile.production]
address = "{front.address}"
namespace = "default"
api_key = "{KEY}"

[profile.production.tls]
server_name = "localhost"
server_ca_cert_path = "{front.authority}"
"""
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    return {**clean, "TEMPORAL_CONFIG_FILE": str(path), "TEMPORAL_PROFILE": "production"}


async def test_a_profile_with_tls_and_a_key_serves_worker_and_commands(
    temporal_env: WorkflowEnvironment, client: Client, task_queue: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    upstream = client.service_client.config.target_host
    async with secure_front(upstream, tmp_path) as front:
        environ = {
            **profile(front, tmp_path),
            "CKPT_DATABASE_URL": url,
            "CKPT_TASK_QUEUE": task_queue,
            "CKPT_HOME": str(tmp_path),
        }
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "worker.py", env={**environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT
        )
        try:
            workflow_id = f"secure-{uuid.uuid4().hex[:8]}"
            # seen from outside, in the clear: the worker alone goes through the front
            await client.execute_workflow(
                AgentWorkflow.run,
                AgentInput(question="How many rainy days were there?"),
                id=workflow_id,
                task_queue=task_queue,
            )
            by_worker = list(front.seen)
            command = await asyncio.create_subprocess_exec(
                *(CKPT, "rewind", workflow_id, "--step", "1", "--json"),
                env=environ,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await command.communicate()
            assert command.returncode == 0, said
        finally:
            worker.send_signal(signal.SIGTERM)
            assert await worker.wait() == 0
        by_command = front.seen[len(by_worker) :]
    for seen in (by_worker, by_command):
        assert seen, "nothing went through the front"
        assert {headers["authorization"] for headers in seen} == {f"Bearer {KEY}"}
    async with await create_checkpoint_engine(url) as engine:
        assert await engine.find_run(workflow_id) is not None


async def test_a_wrong_certificate_is_one_clear_line(
    temporal_env: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    upstream = client.service_client.config.target_host
    async with (
        secure_front(upstream, tmp_path) as front,
        secure_front(upstream, tmp_path / "other") as other,
    ):
        front.authority = other.authority
        command = await asyncio.create_subprocess_exec(
            *(CKPT, "worker"),
            env={**profile(front, tmp_path), "CKPT_HOME": str(tmp_path)},
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await command.communicate()
    assert command.returncode == 4
    assert len(said.decode().strip().splitlines()) == 1
    assert "certificate" in said.decode()
