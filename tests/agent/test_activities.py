"""The agent's steps, run as activities with a step of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from werkzeug import Request, Response

from ckpt_agent.activities.agent import AgentActivities
from ckpt_agent.activities.conversation import from_stored, to_stored, user_message
from ckpt_agent.workflows.messages import AgentInput, ToolCall
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.temporal.context import Step, StepScope, current_scope, current_step
from ckpt_engine.temporal.headers import StepHeader

from .conftest import ChatServer, completion

T = TypeVar("T")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def broken() -> int:
    """Break."""
    raise ZeroDivisionError("by zero")


def echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answer with what was sent: instructions and settings."""
    return ModelResponse(parts=[TextPart(f"{info.instructions} {info.model_settings}")])


SPEC = AgentSpec(
    model=FunctionModel(echo, model_name="echo"),
    instructions="be brief",
    tools=[add, broken],
    settings={"temperature": 0.5, "seed": 1},
)


@contextmanager
def step_of(*messages: Any, **state: Any) -> Iterator[Step]:
    """The context that the interceptor gives an activity."""
    header = StepHeader(session="s", thread="t", id="0" * 32, step=1, parents=["1" * 32])
    step = Step(header, list(messages), dict(state))

    async def load() -> Step:
        return step

    token = current_scope.set(StepScope(header, load))
    try:
        yield step
    finally:
        current_scope.reset(token)


async def run(activity: Callable[..., Awaitable[T]], *args: Any, **info: Any) -> T:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, **info)
    return await environment.run(activity, *args)


async def test_begin_puts_the_settings_into_the_state() -> None:
    with step_of() as step:
        start = AgentInput(
            question="what?", settings={"seed": 2}, state={"data": "x.csv"}, instructions=""
        )
        await run(AgentActivities(SPEC).begin, start)
    assert step.state == {
        "data": "x.csv",
        "model": "echo",
        "instructions": "",
        "settings": {"temperature": 0.5, "seed": 2},
    }
    assert [m.parts[0].content for m in from_stored(step.added)] == ["what?"]  # type: ignore[union-attr]
    assert step.next_node == "model"


async def test_what_a_rewind_to_the_start_changed_stays_changed() -> None:
    extra = {"role": "user", "content": "only 2014"}
    with step_of(extra, model="ollama:tiny", settings={}) as step:
        await run(AgentActivities(SPEC).begin, AgentInput(question="what?", model="openai:gpt-5"))
    assert (step.state["model"], step.state["settings"]) == ("ollama:tiny", {})
    assert step.state["instructions"] == "be brief"


async def test_a_model_call_reads_everything_from_the_state() -> None:
    state = {"model": "echo", "instructions": "be long", "settings": {"seed": 3}}
    with step_of(user_message("what?"), **state) as step:
        turn = await run(AgentActivities(SPEC).call_model)
    assert turn.answer is not None
    assert turn.answer.startswith("be long")
    assert "'seed': 3" in turn.answer
    assert step.next_node == "end"
    assert step.state["usage"]["requests"] == 1
    assert step.metadata["model"] == "echo"
    assert from_stored(step.added)[0].parts == [TextPart(turn.answer)]


async def test_usage_adds_up(chat: ChatServer) -> None:
    chat.then(completion("42"))
    before = {"requests": 2, "input_tokens": 100, "output_tokens": 10}
    with step_of(user_message("what?"), model="ollama:tiny", usage=before) as step:
        await run(AgentActivities(SPEC).call_model)
    assert step.state["usage"] == {"requests": 3, "input_tokens": 111, "output_tokens": 17}
    assert step.metadata == {
        "summary": "answers: 42",
        "model": "ollama:tiny",
        "input_tokens": 11,
        "output_tokens": 7,
    }


async def test_a_turn_with_tools(chat: ChatServer) -> None:
    agent = AgentActivities(SPEC)
    chat.then(completion(calls=[("x", "add", {"a": 1, "b": 2}), ("y", "multiply", {})]))
    with step_of(user_message("1 + 2?"), model="ollama:tiny") as step:
        turn = await run(agent.call_model)
        messages = list(step.messages)
    assert [(c.id, c.name) for c in turn.tool_calls] == [("x", "add"), ("y", "multiply")]
    assert (turn.answer, step.next_node) == (None, "tools")

    assert step.metadata["summary"] == "calls add(1, 2), multiply()"

    outcomes, lines = [], []
    answers = []
    for call in turn.tool_calls:  # siblings: each starts from the same parent
        with step_of(*messages, model="ollama:tiny") as sibling:
            outcomes.append(await run(agent.call_tool, call))
        assert not sibling.changes().state_set
        assert sibling.next_node == "model"
        answers += sibling.added
        lines.append(sibling.metadata["summary"])
    assert lines[0] == "add(1, 2): 3"
    assert lines[1].startswith("multiply(): retried: There is no tool 'multiply'")
    assert [o.ok for o in outcomes] == [True, False]

    chat.then(completion("3"))
    with step_of(*messages, *reversed(answers), model="ollama:tiny"):
        last = await run(agent.call_model)
    assert last.answer == "3"
    tools = [m for m in chat.requests[-1]["messages"] if m["role"] == "tool"]
    assert [t["tool_call_id"] for t in tools] == ["x", "y"]
    assert "no tool 'multiply'" in tools[1]["content"]


def calling(name: str) -> dict[str, Any]:
    return to_stored(ModelResponse(parts=[ToolCallPart(name, {}, "x")]))


@pytest.mark.parametrize(("attempt", "most", "told"), [(1, 5, False), (3, 5, True), (2, 2, True)])
async def test_a_tool_that_breaks_is_tried_again_and_then_told(
    attempt: int, most: int, told: bool
) -> None:
    call = ToolCall(id="x", name="broken")
    info = {"attempt": attempt, "retry_policy": RetryPolicy(maximum_attempts=most)}
    with step_of(calling("broken")) as step:
        if not told:
            with pytest.raises(ZeroDivisionError):
                await run(AgentActivities(SPEC).call_tool, call, **info)
            return
        outcome = await run(AgentActivities(SPEC).call_tool, call, **info)
    assert not outcome.ok
    assert "ZeroDivisionError: by zero" in str(step.added)


async def test_tools_may_use_the_step_themselves() -> None:
    def from_thread() -> int:
        """Count the messages, from a thread."""
        return len(current_step.from_thread().messages)

    async def from_loop() -> str:
        """Say which step this is."""
        return (await current_step()).checkpoint_id

    agent = AgentActivities(AgentSpec(model=SPEC.model, tools=[from_thread, from_loop]))
    for name, expected in (("from_thread", 1), ("from_loop", "0" * 32)):
        with step_of(calling(name)) as step:
            assert (await run(agent.call_tool, ToolCall(id="x", name=name))).ok
        assert from_stored(step.added)[0].parts[0].content == expected  # type: ignore[union-attr]


async def test_a_call_that_is_not_in_the_conversation_fails_for_good() -> None:
    with step_of(calling("add")), pytest.raises(ApplicationError, match="no tool call") as caught:
        await run(AgentActivities(SPEC).call_tool, ToolCall(id="nothing", name="add"))
    assert caught.value.non_retryable


async def test_the_place_to_go_on_is_read_and_nothing_changed() -> None:
    with step_of(user_message("q"), calling("add"), max_steps=9) as step:
        point = await run(AgentActivities(SPEC).resume_point)
    assert (point.node, [c.id for c in point.tool_calls], point.max_steps) == ("tools", ["x"], 9)
    assert not step.added
    assert not step.changes().state_set


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"model": 5}, "'model' must be text"),
        ({"settings": [1]}, "'settings' must be an object"),
        ({"instructions": {"a": 1}}, "'instructions' must be text"),
        ({"usage": 3}, "'usage' must be an object"),
        ({"model": "nosuch:thing"}, "nosuch:thing"),
    ],
)
async def test_a_state_that_cannot_be_used_fails_for_good(state: Any, says: str) -> None:
    with (
        step_of(user_message("q"), **state) as step,
        pytest.raises(ApplicationError, match=says) as caught,
    ):
        await run(AgentActivities(SPEC).call_model)
    assert caught.value.non_retryable
    assert not step.added


async def test_a_message_that_no_model_understands_fails_for_good() -> None:
    with (
        step_of(user_message("q"), {"text": "hm"}),
        pytest.raises(ApplicationError, match="message 2") as caught,
    ):
        await run(AgentActivities(SPEC).call_model)
    assert caught.value.non_retryable


async def test_a_long_model_call_heartbeats_and_hears_a_cancellation(chat: ChatServer) -> None:
    release = threading.Event()

    def slow(_: Request) -> Response:
        release.wait(20)
        return Response("{}")

    chat.then(slow)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.15))
    beats: asyncio.Queue[None] = asyncio.Queue()
    environment.on_heartbeat = lambda *_: beats.put_nowait(None)
    with step_of(user_message("q"), model="ollama:tiny"):
        task = asyncio.ensure_future(environment.run(AgentActivities(SPEC).call_model))
        try:
            for _ in range(3):
                await asyncio.wait_for(beats.get(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            release.set()


def test_a_worker_gets_every_activity() -> None:
    names = [a.__temporal_activity_definition.name for a in AgentActivities(SPEC).all()]  # type: ignore[attr-defined]
    assert names == ["begin", "call_model", "call_tool", "compact", "resume_point"]
