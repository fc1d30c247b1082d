"""The live table says what running trials are doing."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from rich.console import Console, RenderableType
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.workflows.experiment import ExperimentWorkflow
from ckpt_engine.cli.at_work import AtWork, at_work, board_of_work
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.experiments import Report
from ckpt_engine.experiments.report import Spent, VariantRow

from .conftest import running


def _model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Dig once for whatever was asked last, then answer."""
    del info
    newest = messages[-1]
    assert isinstance(newest, ModelRequest)
    if newest.parts[-1].part_kind == "tool-return":
        return ModelResponse(parts=[TextPart("dug")])
    return ModelResponse(parts=[ToolCallPart("dig", {})])


async def until(ask: Callable[[], Any], right: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(60):
        while not right(found := await ask()):
            await asyncio.sleep(0.05)
    return found


async def test_steps_and_activities_of_running_trials(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    deep = asyncio.Event()
    deep.set()

    async def dig() -> str:
        """Dig."""
        await deep.wait()
        return "sand"

    agent = AgentSpec(model=FunctionModel(_model, model_name="digger"), tools=[dig])
    async with running(temporal_env, agent, tmp_path, task_queue) as app:
        base = await app.session("Dig?")
        deep.clear()
        handle = await app.start(
            {
                "name": "digging",
                "from": {"checkpoint": base.checkpoint},
                "variants": [{"name": "a"}, {"name": "b"}],
                "questions": [{"name": f"q{n}", "say": "Again?"} for n in range(2)],
                "scorer": {"kind": "exact", "expected": "dug"},
                "concurrency": 3,
            }
        )

        async def look() -> list[AtWork]:
            return await at_work(app.client, await handle.query(ExperimentWorkflow.report))

        found = await until(
            look, lambda now: [one.doing[:14] for one in now] == ["call_tool for "] * 3
        )
        assert [one.trial for one in found] == ["a/q0/1", "b/q0/1", "a/q1/1"]
        assert {one.step for one in found} == {2}  # a model call, then this tool call
        deep.set()
        report = await handle.result()
        assert {trial.spent.steps for trial in report.trials} == {3}
        assert await at_work(app.client, report) == []


def shown(table: RenderableType) -> list[str]:
    console = Console(width=60, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_how_it_is_shown() -> None:
    row = VariantRow(
        name="a", trials=20, states={"running": 12}, mean=None, spent=Spent(), seconds=0
    )
    report = Report(
        name="x",
        experiment_id="experiment-x",
        state="running",
        spec_digest="",
        baseline="a",
        scorer="exact",
        concurrency=12,
        started_at="",
        variants=[row],
    )
    found = [
        AtWork("a/q1/1", 4, "call_model for 3s"),
        AtWork("a/q2/1", 12, "call_tool is tried again: \x1b[31mno such " + "file " * 20),
        AtWork("a/q3/1", None, "begins"),
    ]
    assert shown(board_of_work(report, found)) == [
        "a/q1/1    step 4  call_model for 3s",
        "a/q2/1   step 12  call_tool is tried again: [31mno such fil…",
        "a/q3/1            begins",
        "… and 9 more that run",
    ]
    assert shown(board_of_work(report, [])) == []
