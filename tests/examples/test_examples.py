"""The examples, run as a newcomer runs them: a command beside a server, and what it prints."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from vega_datasets import local_data

from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target
from examples import data_job

from ..temporal.conftest import App, running_app

ROOT = Path(__file__).parents[2]


async def run_example(name: str, address: str, folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "examples", name),
        *("--db", f"sqlite:///{folder}/examples.db"),
        cwd=ROOT,
        env={**os.environ, "TEMPORAL_ADDRESS": address, "TMPDIR": str(folder), "CKPT_MODEL": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


SEEN = {
    "order_saga": [
        r"(?s)('payment-o1-40'.*'released reservation-o1', 'refunded payment-o1-40'.*){3}",
        r"├─╮  rewind-1 .*\n│ ●  2 .* rewind .*\n│ ●  3 .* reserve",
        r"├─╮  ship-again .*\n│ ●  3 .* branch .*\n│ ●  5 .* release",
    ],
    "batch": [r"(?s)(total 55.*){3}", r"(?s)├─╮    rewind-1.*(┌ square.*)(├ square.*)(└ square)"],
    "approval": [
        r"(?s)(carry_out|approved by Ann.*){3}",
        r"├─╮  archive-again .*\n│ ●  4 .* branch .*\n│ ●  5 .* archive",
    ],
    "data_job": [
        r"Japan: 79 cars, .* USA: 245 cars",
        r"Japan: 79 cars, .* USA: 254 cars",
        r"8: 103 cars",
        r"├─╮  filled .*\n│ ●  2 .*\n│ ●  3 .* 14 rows lacked a value \(fill\)",
        r"├─╮  rewind-1 .*\n│ ●  5 .*\n│ ●  6 .* report",
    ],
    "pydantic_agent": [
        r"Bergen is the warmest of 2\.",
        r"Cairo is the warmest of 4\.",
        r"Seattle is the warmest of 3\.",
        r"├─╮  four-cities .*\n│ ●  2 .* adds “Consider Lima",
    ],
}


@pytest.mark.parametrize("name", SEEN)
async def test_an_example_shows_what_it_says(
    name: str, temporal_env: WorkflowEnvironment, tmp_path: Path
) -> None:
    address = temporal_env.client.service_client.config.target_host
    code, output = await run_example(name, address, tmp_path)
    assert code == 0, output
    for pattern in SEEN[name]:
        assert re.search(pattern, output), f"{pattern} not in:\n{output}"


async def test_without_a_server_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        code, output = await run_example("batch", address, tmp_path)
    assert code == 1
    assert "ckpt server" in output
    assert "Traceback" not in output


def test_every_example_has_its_command_in_the_readme() -> None:
    text = (ROOT / "examples/README.md").read_text()
    for name in SEEN:
        assert f"python -m examples {name}" in text


@pytest.fixture
async def app(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> AsyncIterator[App]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as executor:
        async with running_app(
            temporal_env,
            f"sqlite:///{tmp_path}/ckpt.db",
            task_queue,
            workflows=[data_job.DataJob],
            activities=data_job.ACTIVITIES,
            activity_executor=executor,
        ) as running:
            yield running


async def run_job(app: App, folder: Path) -> str:
    job = data_job.Job(local_data.cars.filepath, str(folder))
    name = f"{app.task_queue}-job"
    await app.client.execute_workflow(data_job.DataJob.run, job, id=name, task_queue=app.task_queue)
    return name


def files(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if not f.name.startswith("ckpt.db")}


async def test_a_branch_of_the_data_job_leaves_every_earlier_file_as_it_was(
    app: App, tmp_path: Path
) -> None:
    name = await run_job(app, tmp_path)
    before = files(tmp_path)
    assert sorted(f.partition("-")[0] for f in before) == [
        *("cars", "extract", "report", "transform", "validate"),
    ]
    request = BranchRequest(
        at=Target(step=1), name="filled", overrides=Overrides(state={"missing": "fill"})
    )
    child = await app.sessions.branch(name, request)
    report: Any = await app.client.get_workflow_handle(child.workflow_id).result()
    assert "USA: 254 cars" in report
    after = files(tmp_path)
    assert {file: after[file] for file in before} == before
    assert sorted(f.partition("-")[0] for f in after.keys() - before) == [
        *("cars", "report", "transform", "validate"),
    ]
    state = (await app.engine.get_latest(child.thread)).state
    extracted = next(f for f in before if f.startswith("extract-"))
    first = await app.engine.time_travel_to_step(child.thread, 1)
    assert Path(first.state["table"]).name == extracted
    assert Path(state["database"]).name not in before


async def test_a_rewind_of_the_data_job_runs_only_what_comes_after(
    app: App, tmp_path: Path
) -> None:
    name = await run_job(app, tmp_path)
    before = files(tmp_path)
    request = RewindRequest(to=Target(step=4), overrides=Overrides(state={"by": "Cylinders"}))
    child = await app.sessions.rewind(name, request)
    assert "8: 103 cars" in await app.client.get_workflow_handle(name).result()
    new = files(tmp_path).keys() - before
    assert [file.partition("-")[0] for file in new] == ["report"]
    points = await app.engine.list_time_travel_points(child.thread)
    assert [p.node for p in points[:3]] == ["report", "rewind", "load"]


async def test_what_a_stage_does_not_know_fails_the_job_and_can_be_rewound(
    app: App, tmp_path: Path
) -> None:
    name = await run_job(app, tmp_path)
    wrong = RewindRequest(to=Target(step=1), overrides=Overrides(state={"missing": "invent"}))
    await app.sessions.rewind(name, wrong)
    with pytest.raises(WorkflowFailureError):
        await app.client.get_workflow_handle(name).result()
    right = RewindRequest(to=Target(step=1), overrides=Overrides(state={"missing": "fill"}))
    await app.sessions.rewind(name, right)
    assert "USA: 254 cars" in await app.client.get_workflow_handle(name).result()
