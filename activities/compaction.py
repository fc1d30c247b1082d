"""Shortening a conversation that has become too long: drop or summarise its middle, keep the rest.

Kept are what is pinned (``"pinned": true`` in a stored message), the first message, and the newest
ones, from a place where no tool call is parted from its answer. Everything older stays in the
checkpoints before, which can be gone back to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart

from .conversation import said_by_people

__all__ = ["SUMMARISE", "CompactSettings", "Split", "is_crowded", "note", "split", "transcript"]

SUMMARISE = (
    "Below is the middle of a conversation between a person and an assistant with tools. Write "
    "what the assistant must still know to go on: what was asked, found, decided and left open, "
    "with the exact names and numbers. Write only that."
)
_LONGEST = 4_000


class CompactSettings(BaseModel):
    """When and how a conversation is shortened; the state key ``compact``.

    Attributes:
        over_tokens: After a model call that read more tokens than this.
        over_messages: When there are more messages than this.
        keep: How many of the newest messages stay.
        how: Have the model summarise what goes, or only drop it.
    """

    model_config = ConfigDict(extra="forbid")

    over_tokens: int | None = Field(default=None, ge=1)
    over_messages: int | None = Field(default=None, ge=2)
    keep: int = Field(default=20, ge=1)
    how: Literal["summarise", "drop"] = "summarise"


class Split(NamedTuple):
    """Which messages stay before the gap, go, and stay after it; as positions."""

    before: list[int]
    gone: list[int]
    after: list[int]


def is_crowded(settings: CompactSettings | None, *, tokens: int, messages: int) -> bool:
    """Whether a conversation is to be shortened."""
    if settings is None:
        return False
    too_many = settings.over_messages is not None and messages > settings.over_messages
    too_long = settings.over_tokens is not None and tokens > settings.over_tokens
    return too_many or too_long


def split(stored: Sequence[Any], messages: Sequence[ModelMessage], keep: int) -> Split:
    """Return what stays and what goes; nothing goes where there is nothing to win."""
    start = max(0, len(messages) - keep)
    while start > 0 and _answers_a_tool(messages[start]):
        start -= 1
    pinned = [
        at
        for at in range(start)
        if at == 0 or (isinstance(stored[at], Mapping) and stored[at].get("pinned") is True)
    ]
    gone = [at for at in range(start) if at not in pinned]
    return Split(pinned, gone, list(range(start, len(messages))))


def _answers_a_tool(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(
        isinstance(part, ToolReturnPart) for part in message.parts
    )


def note(gone: int, summary: str | None) -> dict[str, Any]:
    """Return the message that stands in the place of those that went."""
    what = f"{gone} earlier messages were left out here"
    text = f"({what}.)" if summary is None else f"({what}; in short:)\n{summary}"
    return {"role": "user", "content": text, "left_out": gone}


def transcript(messages: Sequence[ModelMessage]) -> str:
    """Return messages as plain text for whoever summarises them; long ones are cut."""
    return "\n".join(line[:_LONGEST] for message in messages for line in _lines(message))


def _lines(message: ModelMessage) -> list[str]:
    if isinstance(message, ModelResponse):
        calls = [f"assistant calls {c.tool_name}({c.args})" for c in message.tool_calls]
        return ([f"assistant: {message.text}"] if message.text else []) + calls
    returned = [
        f"{part.tool_name} returned: {part.model_response_str()}"
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    return [f"person: {text}" for text in said_by_people([message])] + returned
