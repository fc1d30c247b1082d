"""A conversation that is shortened as an ordinary step, which can be gone back behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.activities.compaction import CompactSettings, is_crowded, split
from ckpt_agent.activities.conversation import from_stored, in_order
from ckpt_engine import CheckpointInfo
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.temporal import Overrides, RewindRequest, Sessions, Target

from .test_agent_workflow import Running, running

TURNS = 8
SEEN: list[list[str]] = []


def look(number: int) -> str:
    """Return what is behind a door."""
    return f"behind door {number} there is " + "sand " * 400


def _model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Open one door after the other; asked for a summary, count what it was given."""
    if not info.function_tools:
        text = str(messages[0])
        return ModelResponse(parts=[TextPart(f"{text.count('behind door')} doors held sand")])
    said = [str(message) for message in messages]
    SEEN.append(said)
    done = max((n for n in range(TURNS) if f"behind door {n}" in "".join(said)), default=-1)
    if done + 1 < TURNS:
        return ModelResponse(parts=[ToolCallPart("look", {"number": done + 1})])
    return ModelResponse(parts=[TextPart("sand, everywhere")])


SPEC = AgentSpec(model=FunctionModel(_model), instructions="Open doors.", tools=[look])


async def path(app: Running, thread: str) -> list[CheckpointInfo]:
    return (await app.engine.list_time_travel_points(thread, limit=None))[::-1]


@pytest.mark.parametrize("how", ["summarise", "drop"])
async def test_the_middle_goes_and_the_agent_goes_on(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, how: str
) -> None:
    SEEN.clear()
    compact = {"over_messages": 9, "keep": 4, "how": how}
    async with running(temporal_env, SPEC, tmp_path, task_queue) as app:
        workflow_id = await app.start("What is behind the doors?", state={"compact": compact})
        result = await app.result(workflow_id)
        assert result.answer == "sand, everywhere"
        steps = await path(app, result.thread)
        shortened = [step for step in steps if step.node == "compact"]
        assert len(shortened) >= 2
        assert max(step.message_count for step in steps) <= 12
        first = await app.engine.get(shortened[0].id)
        before = await app.engine.get(first.parents[0])
        assert first.messages[0] == before.messages[0]
        assert first.messages[-1] == before.messages[-1]
        assert first.messages[1]["left_out"] == len(before.messages) - len(first.messages) + 1
        assert ("doors held sand" in first.messages[1]["content"]) == (how == "summarise")
        assert len(before.messages) == before.message_count > len(first.messages)
        # every call that the model was shown has its answer
        assert not any("not run" in line for said in SEEN for line in said)

        # a summary is paid for like any other answer of the model
        paid = [step for step in steps if "input_tokens" in step.metadata]
        assert {step.node for step in paid} == {"call_model"} | (
            {"compact"} if how == "summarise" else set()
        )
        assert {step.metadata["model"] for step in paid} == {SPEC.model_name}
        assert all(step.metadata["output_tokens"] > 0 for step in paid)
        assert (await app.engine.get(result.checkpoint)).state["usage"] == {
            "requests": len(paid),
            "input_tokens": sum(step.metadata["input_tokens"] for step in paid),
            "output_tokens": sum(step.metadata["output_tokens"] for step in paid),
        }

        # going back behind it brings the whole conversation back, with another way to shorten
        child = await Sessions(app.client, app.engine).rewind(
            workflow_id,
            RewindRequest(
                to=Target(step=before.step), overrides=Overrides(state={"compact": None})
            ),
        )
        again = await app.result(child.workflow_id)
        later = await app.engine.get(again.checkpoint)
        assert later.messages[: len(before.messages)] == before.messages
        assert "compact" not in [
            s.node for s in await path(app, again.thread) if s.step > before.step
        ]


async def test_a_wrong_setting_is_said_before_the_model_is_paid_again(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    async with running(temporal_env, SPEC, tmp_path, task_queue) as app:
        workflow_id = await app.start("?", state={"compact": {"after": "lunch"}})
        with pytest.raises(WorkflowFailureError) as failed:
            await app.result(workflow_id)
    cause = failed.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    assert "over_tokens, over_messages, keep, how" in cause.cause.message


def conversation(kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return stored messages: ``p`` said by a person, ``c`` a call with its answer."""
    stored: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        if kind == "p":
            stored.append({"role": "user", "content": f"said {number}", "pinned": number % 3 == 2})
            continue
        call = {"part_kind": "tool-call", "tool_name": "t", "args": {}, "tool_call_id": f"{number}"}
        answer = {
            "part_kind": "tool-return",
            "tool_name": "t",
            "content": f"answer {number}",
            "tool_call_id": f"{number}",
        }
        stored.append({"kind": "response", "parts": [call]})
        stored.append({"kind": "request", "parts": [answer]})
    return stored


@given(st.lists(st.sampled_from("pc"), min_size=1, max_size=20), st.integers(1, 12))
def test_nothing_is_parted_lost_or_moved(kinds: list[str], keep: int) -> None:
    stored = conversation(["p", *kinds])
    messages = from_stored(stored)
    parts = split(stored, messages, keep)
    assert sorted([*parts.before, *parts.gone, *parts.after]) == list(range(len(stored)))
    assert parts.before[:1] == [0] or parts.after[:1] == [0]
    assert len(parts.after) >= min(keep, len(stored))
    assert all(not stored[at].get("pinned") for at in parts.gone)
    kept = from_stored([stored[at] for at in (*parts.before, *parts.after)])
    assert "not run" not in str(in_order(kept))
    answers = sum("answer" in str(message) for message in kept)
    assert answers == sum("answer" in str(message) for message in in_order(kept))


def test_when_a_conversation_is_crowded() -> None:
    by_tokens, by_count = CompactSettings(over_tokens=100), CompactSettings(over_messages=5)
    assert not is_crowded(None, tokens=10**9, messages=10**9)
    assert not is_crowded(by_tokens, tokens=100, messages=10**9)
    assert is_crowded(by_tokens, tokens=101, messages=1)
    assert is_crowded(by_count, tokens=0, messages=6)
