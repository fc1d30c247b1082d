"""What goes into and comes out of the shipped agent's workflows and steps: ids and small models.

The conversation itself never passes through Temporal; it lives in the checkpoints.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["AgentInput", "AgentResult", "ModelTurn", "ResumePoint", "ToolCall", "ToolOutcome"]


class AgentInput(BaseModel):
    """How an agent is started.

    Attributes:
        question: What it is asked.
        model: Such as ``openai:gpt-5.6-sol``; the agent's own when absent.
        instructions: System instructions; the agent's own when absent.
        settings: Model settings, such as ``{"temperature": 0}``.
        state: Further keys of the first state, such as ``{"data": "sales.csv"}``.
        max_steps: Most steps it may take before it fails.
    """

    question: str
    model: str | None = None
    instructions: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    state: dict[str, Any] = Field(default_factory=dict)
    max_steps: int = Field(default=50, ge=1)


class ToolCall(BaseModel):
    """A tool call of the newest model response; its arguments stay in the conversation."""

    id: str
    name: str


class ModelTurn(BaseModel):
    """What the workflow needs to know of a model's response.

    Attributes:
        tool_calls: The tools it calls, or
        answer: its answer.
        crowded: Whether the conversation is to be shortened before the next turn.
    """

    tool_calls: list[ToolCall] = Field(default_factory=list)
    answer: str | None = None
    crowded: bool = False


class ToolOutcome(BaseModel):
    """What the workflow needs to know of a tool call."""

    id: str
    ok: bool


class ResumePoint(BaseModel):
    """Where a seeded agent goes on, found from its conversation.

    Attributes:
        node: A model call, the tool calls that are not answered yet, or nothing: it has answered.
        tool_calls: Those tool calls.
        answer: That answer.
        max_steps: A new limit on steps, where the state says one.
    """

    node: Literal["model", "tools", "end"]
    tool_calls: list[ToolCall] = Field(default_factory=list)
    answer: str | None = None
    max_steps: int | None = None


class AgentResult(BaseModel):
    """How an agent ended.

    Attributes:
        answer: The answer; ``None`` when it is over 64 KB, then it is in the checkpoint.
        thread: The thread that ended with it.
        checkpoint: The newest checkpoint.
        steps: Its step number.
    """

    answer: str | None
    thread: str
    checkpoint: str
    steps: int
