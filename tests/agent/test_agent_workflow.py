"""The agent on a real server and a real worker: its steps, a rewind, a branch, a real model API."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.activities.analyst import DEFAULT_QUESTION, SCRIPTED, analyst
from ckpt_agent.activities.conversation import from_stored, in_order, user_message
from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.messages import AgentInput, AgentResult
from ckpt_agent.workflows.overrides import check_overrides
from ckpt_engine import CheckpointEngine
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.temporal import Overrides, RewindRequest, Target

from .conftest import ChatServer, application, completion, error
from .test_scripted import WEATHER, averages, in_year, listed, ranked


class Running:
    """A worker for one agent, with the engine it writes to."""

    def __init__(self, client: Client, engine: CheckpointEngine, queue: str) -> None:
        self.client, self.engine, self.queue = client, engine, queue

    async def start(self, question: str, **given: object) -> str:
        """Start an agent and return its workflow id."""
        workflow_id = f"agent-{uuid.uuid4().hex[:8]}"
        await self.client.start_workflow(
            AgentWorkflow.run,
            AgentInput.model_validate({"question": question, **given}),
            id=workflow_id,
            task_queue=self.queue,
        )
        return workflow_id

    async def result(self, workflow_id: str) -> AgentResult:
        handle: WorkflowHandle[Any, AgentResult] = self.client.get_workflow_handle(
            workflow_id, result_type=AgentResult
        )
        return await handle.result()


@asynccontextmanager
async def running(
    env: WorkflowEnvironment, spec: AgentSpec, folder: Path, queue: str
) -> AsyncIterator[Running]:
    async with application(env, spec, folder, queue) as (client, engine):
        yield Running(client, engine, queue)


@pytest.fixture
async def shipped(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> AsyncIterator[Running]:
    async with running(temporal_env, analyst({}), tmp_path, task_queue) as app:
        yield app


async def test_the_analyst_answers_step_by_step(shipped: Running) -> None:
    result = await shipped.result(await shipped.start(DEFAULT_QUESTION))
    assert result.answer is not None
    assert listed(averages(WEATHER, "wind")) in result.answer
    last = await shipped.engine.get(result.checkpoint)
    assert last.next_node == "end"
    assert last.state["model"] == SCRIPTED
    assert last.state["usage"]["requests"] == 6
    points = await shipped.engine.list_time_travel_points(result.thread, limit=50)
    assert points[-2].summary == f"asked: {DEFAULT_QUESTION}"
    assert points[0].summary.startswith("answers: Average wind by weather: drizzle")
    nodes = [p.node for p in points]
    assert nodes.count("call_model") == 6
    assert nodes.count("call_tool") == 6
    assert nodes.count("begin") == 1
    assert "not run" not in str(in_order(from_stored(last.messages)))  # every call has its answer


async def test_a_rewind_with_an_extra_instruction_answers_differently(shipped: Running) -> None:
    workflow_id = await shipped.start(DEFAULT_QUESTION, settings={"delay_seconds": 0.2})
    handle = shipped.client.get_workflow_handle(workflow_id)
    await _steps(shipped, workflow_id, at_least=6)
    request = RewindRequest(
        to=Target(step=4),
        overrides=Overrides(messages=[{"role": "user", "content": "only 2014"}]),
    )
    await handle.signal("rewind", request)
    result = await shipped.result(workflow_id)
    assert result.answer is not None
    assert listed(averages(in_year(2014), "wind")) in result.answer
    history = from_stored((await shipped.engine.get(result.checkpoint)).messages)
    assert len(history) > 6


async def test_a_branch_with_other_settings_answers_differently(shipped: Running) -> None:
    workflow_id = await shipped.start(DEFAULT_QUESTION, settings={"delay_seconds": 0.2})
    handle = shipped.client.get_workflow_handle(workflow_id)
    await _steps(shipped, workflow_id, at_least=4)
    started = await handle.execute_update(
        "branch",
        {
            "at": {"step": 3},
            "name": "top-two",
            "overrides": {"state": {"settings": {"top": 2}}, "instructions": "One sentence."},
        },
    )
    branch = await shipped.result(started["workflow_id"])
    trunk = await shipped.result(workflow_id)
    assert branch.answer is not None
    assert trunk.answer is not None
    assert listed(ranked(averages(WEATHER, "wind"), 2)) in branch.answer
    assert "This rests on" not in branch.answer
    assert listed(averages(WEATHER, "wind")) in trunk.answer
    assert "This rests on" in trunk.answer


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"messages": [{"text": "hello"}]}, "extra message 1 must be an object with a role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content that is text"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "a role (user, system, assistant)"),
        ({"state": {"settings": "hot"}}, "'settings' must be an object"),
        ({"state": {"max_steps": 0}}, "'max_steps' must be a whole number of at least 1"),
        ({"state": {"model": ["a"]}}, "'model' must be a model's name"),
        ({"next_node": "moon"}, "next_node must be one of model, tools, end"),
    ],
)
def test_an_override_the_agent_cannot_use_is_named(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(says)):
        check_overrides(Overrides.model_validate(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model": "ollama:tiny", "instructions": "", "next_node": "model"},
        {"messages": [{"role": "system", "content": "x"}], "state": {"anything": [1], "usage": {}}},
        {"messages": [user_message("as stored")], "state": {"settings": {}, "max_steps": None}},
    ],
)
def test_an_override_the_agent_can_use_passes(overrides: dict[str, Any]) -> None:
    check_overrides(Overrides.model_validate(overrides))


async def test_an_override_of_the_wrong_shape_is_refused_and_the_agent_goes_on(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        """Wait."""
        started.set()
        await go_on.wait()
        return "waited"

    chat.then(completion(calls=[("x", "wait", {})]), completion("done"))
    spec = AgentSpec(model="ollama:tiny", tools=[wait])
    bad = {"to": {"step": 1}, "overrides": {"state": {"settings": "hot"}}}
    async with running(temporal_env, spec, tmp_path, task_queue) as app:
        workflow_id = await app.start("wait")
        await asyncio.wait_for(started.wait(), 20)
        handle = app.client.get_workflow_handle(workflow_id)
        await handle.signal("rewind", bad)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update("rewind", bad)
        assert "must be an object, not 'hot'" in str(refused.value.cause)
        assert len(await handle.query("checkpoint_refusals")) == 2
        go_on.set()
        assert (await app.result(workflow_id)).answer == "done"
        thread = (await app.result(workflow_id)).thread
        assert len(await app.engine.list_threads(thread)) == 1
    assert len(chat.requests) == 2


async def test_the_tools_of_one_turn_run_at_the_same_time(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> None:
    together = asyncio.Barrier(3)

    async def meet(who: str) -> str:
        """Wait until all three are here."""
        await asyncio.wait_for(together.wait(), 60)
        return who

    calls = [(who, "meet", {"who": who}) for who in "abc"]
    chat.then(completion(calls=calls), completion("met"))
    spec = AgentSpec(model="ollama:tiny", tools=[meet])
    async with running(temporal_env, spec, tmp_path, task_queue) as app:
        result = await app.result(await app.start("meet"))
        points = await app.engine.list_time_travel_points(result.thread)
    assert result.answer == "met"
    (turn,) = [p for p in points if p.node == "call_model" and p.next_node == "tools"]
    tools = [p for p in points if p.node == "call_tool"]
    assert [p.parents for p in tools] == [(turn.id,)] * 3
    assert points[0].parents == tuple(p.id for p in reversed(tools))


async def _steps(app: Running, workflow_id: str, *, at_least: int) -> None:
    """Wait until the workflow says that it has come so far."""
    handle = app.client.get_workflow_handle(workflow_id)
    while (await handle.query("checkpoint_status"))["step"] < at_least:
        pass


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_a_model_behind_an_api(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> None:
    spec = AgentSpec(model="ollama:tiny", instructions="be brief", tools=[add])
    calls = [("x", "add", {"a": 1, "b": 2}), ("y", "add", {"a": 3}), ("z", "subtract", {})]
    chat.then(
        error(503, "warming up"),
        completion(calls=calls),
        completion("3"),
    )
    async with running(temporal_env, spec, tmp_path, task_queue) as app:
        result = await app.result(await app.start("1 + 2?"))
        last = await app.engine.get(result.checkpoint)
    assert result.answer == "3"
    assert result.steps == 6  # begin, model, three tools, model
    assert last.state["usage"] == {"requests": 2, "input_tokens": 22, "output_tokens": 14}
    tools = [m for m in chat.requests[-1]["messages"] if m["role"] == "tool"]
    assert [t["tool_call_id"] for t in tools] == ["x", "y", "z"]
    assert tools[0]["content"] == "3"
    assert "b: Field required" in tools[1]["content"]
    assert "no tool 'subtract'" in tools[2]["content"]


async def test_a_refused_key_fails_at_once_and_says_what_to_do(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> None:
    chat.then(error(401, "bad key"))
    spec = AgentSpec(model="ollama:tiny")
    async with running(temporal_env, spec, tmp_path, task_queue) as app:
        with pytest.raises(WorkflowFailureError) as caught:
            await app.result(await app.start("hello?"))
    said = []
    failure: BaseException | None = caught.value
    while failure is not None:
        said.append(str(failure))
        failure = failure.__cause__
    assert any("set the provider's API key" in text for text in said)
    assert len(chat.requests) == 1


async def test_a_rewind_reaches_the_tool_that_is_running(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        """Wait for something that never comes."""
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    chat.then(completion(calls=[("x", "wait", {})]), completion("never mind"))
    spec = AgentSpec(model="ollama:tiny", tools=[wait])
    async with running(temporal_env, spec, tmp_path, task_queue) as app:
        workflow_id = await app.start("wait")
        await asyncio.wait_for(started.wait(), 20)
        handle = app.client.get_workflow_handle(workflow_id)
        extra = [{"role": "user", "content": "do not wait"}]
        await handle.signal(
            "rewind", {"to": {"step": 1}, "overrides": {"messages": extra, "next_node": "model"}}
        )
        assert (await app.result(workflow_id)).answer == "never mind"
        await asyncio.wait_for(cancelled.wait(), 20)
    sent = [m["content"] for m in chat.requests[-1]["messages"]]
    assert sent == ["wait", "do not wait"]
