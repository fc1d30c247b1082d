"""One line for people about each step, as a list of checkpoints shows it."""

from __future__ import annotations

import json
from typing import Any

from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from .conversation import answer_of

__all__ = ["of_call", "of_question", "of_response"]

_LINE = 100
_PART = 60


def of_question(question: str) -> str:
    """Return the line about an agent's begin."""
    return _cut(f"asked: {question}", _LINE)


def of_response(response: ModelResponse) -> str:
    """Return the line about a model's turn: the tools it calls, or its answer."""
    if response.tool_calls:
        return _cut("calls " + ", ".join(_call(c) for c in response.tool_calls), _LINE)
    return _cut(f"answers: {answer_of(response) or ''}", _LINE)


def of_call(call: ToolCallPart, message: ModelRequest) -> str:
    """Return the line about a tool call and what came of it."""
    for part in message.parts:
        if isinstance(part, ToolReturnPart):
            said = _cut(_text(part.content), _PART)
            came = said if part.outcome == "success" else f"{part.outcome}: {said}"
            return f"{_call(call)}: {came}"
    return _call(call)


def _call(call: ToolCallPart) -> str:
    given = ", ".join(_text(value) for value in call.args_as_dict().values())
    return f"{call.tool_name}({_cut(given, _PART)})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
