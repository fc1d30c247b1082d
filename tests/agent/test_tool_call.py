"""Whatever happens in a tool call, the model reads about it; only unexpected errors are retried."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturn, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from temporalio.exceptions import ApplicationError

from ckpt_agent.activities.conversation import from_stored, to_stored
from ckpt_agent.activities.tool_call import ToolBox
from ckpt_engine.contrib.agent import AgentSpec

MODEL = FunctionModel(lambda messages, info: None)  # type: ignore[arg-type, return-value]


class Point(BaseModel):
    x: int
    label: str | None = None


@dataclass
class Found:
    where: str
    note: str | None = None


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


async def later(text: str) -> str:
    """Give it back, a little later."""
    await asyncio.sleep(0)
    return text.upper()


def whereabouts(ctx: RunContext[Any], point: Point) -> Found:
    """Say where something is."""
    return Found(f"{ctx.deps['data']} at {point.x}")


def box(*tools: Callable[..., Any] | Tool[Any], **state: Any) -> ToolBox:
    return ToolBox(AgentSpec(model="m", tools=tools).toolset(), MODEL, state)


async def outcome(
    toolbox: ToolBox, name: str, args: Any, *, last: bool = False
) -> tuple[Any, str, bool]:
    """What the model reads, after a round trip through storage."""
    message, ok = await toolbox.call(ToolCallPart(name, args, "id"), last_attempt=last)
    (stored,) = from_stored([to_stored(message)])
    assert isinstance(stored, ModelRequest)
    part = stored.parts[0]
    assert isinstance(part, ToolReturnPart)
    assert part.tool_call_id == "id"
    return part.content, part.outcome, ok


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("add", {"a": 1, "b": 2}, 3),
        ("add", '{"a": "4"}', 5),
        ("later", {"text": "x"}, "X"),
        ("whereabouts", {"x": 7}, {"where": "sales.csv at 7", "note": None}),
        ("plus", {"a": 1}, 2),
    ],
)
async def test_a_tool_runs(name: str, args: Any, result: Any) -> None:
    toolbox = box(add, later, whereabouts, Tool(add, name="plus"), data="sales.csv")
    assert await outcome(toolbox, name, args) == (result, "success", True)


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("subtract", {}, "no tool 'subtract'. Tools: add"),
        ("add", {}, "a: Field required"),
        ("add", {"a": 1, "c": 2}, "c: Extra inputs"),
        ("add", '{"a": ', "Invalid JSON"),
        ("add", "[1]", "arguments"),
        ("add", {"a": "many"}, "a: Input should be a valid integer"),
    ],
)
async def test_a_call_that_does_not_fit_is_given_back(name: str, args: Any, says: str) -> None:
    content, result, ok = await outcome(box(add), name, args)
    assert says in content
    assert (result, ok) == ("retried", False)


def fails(error: Exception) -> Callable[[], str]:
    def broken() -> str:
        """Break."""
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelRetry("another way, please"), ("another way, please", "retried", False)),
        (ToolFailed("no such file"), ("no such file", "failed", False)),
        (
            ApplicationError("never", non_retryable=True),
            ("ApplicationError: never", "failed", False),
        ),
    ],
)
async def test_what_a_tool_says_to_the_model_arrives(error: Exception, expected: Any) -> None:
    assert await outcome(box(fails(error)), "broken", {}) == expected


async def test_an_unexpected_error_is_retried_and_then_told() -> None:
    toolbox = box(fails(ZeroDivisionError("by zero")))
    with pytest.raises(ZeroDivisionError):
        await outcome(toolbox, "broken", {})
    told = await outcome(toolbox, "broken", {}, last=True)
    assert told == ("ZeroDivisionError: by zero", "failed", False)


async def test_a_tool_that_takes_too_long_is_told_to_the_model() -> None:
    async def forever() -> None:
        """Wait."""
        await asyncio.Event().wait()

    content, result, _ = await outcome(box(Tool(forever, timeout=0.05)), "forever", {})
    assert (content, result) == ("Timed out after 0.05 seconds.", "retried")


async def test_a_check_of_the_arguments_is_heard() -> None:
    def even(ctx: RunContext[Any], a: int, b: int = 1) -> None:
        if a % 2:
            raise ModelRetry("even numbers only")

    toolbox = box(Tool(add, args_validator=even))
    assert (await outcome(toolbox, "add", {"a": 3}))[0] == "even numbers only"
    assert (await outcome(toolbox, "add", {"a": 4}))[0] == 5


async def test_odd_results_can_be_stored() -> None:
    def odd() -> Any:
        """Return something JSON does not have."""
        return {"nan": math.nan, "bytes": b"\x00\xff", "set": {1}, "object": object}

    content, result, ok = await outcome(box(odd), "odd", {})
    assert (result, ok) == ("success", True)
    assert content["nan"] is None
    assert content["bytes"] == "AP8="


async def test_a_result_that_refers_to_itself_is_told() -> None:
    def endless() -> Any:
        """Return something without an end."""
        loop: list[Any] = []
        loop.append(loop)
        return loop

    content, result, _ = await outcome(box(endless), "endless", {}, last=True)
    assert (result, "Circular" in content) == ("failed", True)


async def test_a_rich_result_keeps_its_extra_content() -> None:
    def rich() -> ToolReturn[int]:
        """Return more than a value."""
        return ToolReturn(return_value=5, content="and a remark")

    message, _ = await box(rich).call(ToolCallPart("rich", {}, "id"), last_attempt=False)
    value, remark = message.parts
    assert isinstance(value, ToolReturnPart)
    assert value.content == 5
    assert "and a remark" in str(remark)


async def test_the_state_is_not_the_tools_to_change() -> None:
    def meddle(ctx: RunContext[Any]) -> None:
        """Try to write the state."""
        ctx.deps["model"] = "other"

    content, result, _ = await outcome(box(meddle, model="mine"), "meddle", {}, last=True)
    assert result == "failed"
    assert "TypeError" in content


async def test_the_model_is_told_of_every_tool() -> None:
    told = {t.name: t for t in await box(add, later, whereabouts).definitions()}
    assert set(told) == {"add", "later", "whereabouts"}
    assert told["add"].description == "Add two numbers."
    assert told["add"].parameters_json_schema["required"] == ["a"]
    assert "ctx" not in str(told["whereabouts"].parameters_json_schema)
