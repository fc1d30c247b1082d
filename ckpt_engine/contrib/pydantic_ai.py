"""Agents of pydantic-ai that its own Temporal integration makes durable, with their history.

Give these policies to the plugin, beside pydantic-ai's::

    plugins = [PydanticAIPlugin(), CheckpointPlugin(url, policies=POLICIES)]

Every model request is then a checkpoint with the agent's messages, every tool call one with its
result. Messages that a rewind or branch adds are put into the next request, and a model that it
names is asked. Needs the ``agent`` extra.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)

from ..errors import InvalidRequest
from ..model import SnapshotTrigger
from ..temporal.policy import StepAdapter, StepPolicy

if TYPE_CHECKING:
    from ..temporal.context import Step

__all__ = ["POLICIES", "ModelRequests", "ToolCalls"]

_VARIES = frozenset({"timestamp", "run_id", "conversation_id"})
"""Keys of a message that another run of the same code fills in otherwise."""


@dataclass
class _Conversation:
    """How the agent's messages lie in the checkpoint's: kept in its state.

    Attributes:
        start: Where the conversation begins.
        upto: Where it ended when it was last looked at.
        extras: Those that the agent does not know of, since a rewind or branch has added them.
    """

    start: int = 0
    upto: int = 0
    extras: Sequence[int] = ()


class ModelRequests(StepAdapter):
    """Keeps an agent's messages in its checkpoints, and tells it those that were added there."""

    def identity(self, args: Sequence[Any]) -> Sequence[Any]:
        """Leave out times and the ids of runs."""
        params = args[0]
        return [_plain(_dump(params.messages)), params.model_settings, params.model_id]

    def before(self, step: Step, args: Sequence[Any]) -> Sequence[Any]:
        """Record the messages that are new, and add those that the agent does not know of."""
        params, *rest = args
        messages, kept = _merged(step, params.messages)
        step.state["conversation"] = dataclasses.asdict(kept)
        model = step.state.get("model", params.model_id)
        return [dataclasses.replace(params, messages=messages, model_id=model), *rest]

    def after(self, step: Step, args: Sequence[Any], result: ModelResponse) -> None:
        """Record the model's answer."""
        step.append(*_dump([result]))
        kept = {**step.state["conversation"], "upto": len(step.messages)}
        step.state["conversation"] = kept
        calls = [part.tool_name for part in result.parts if isinstance(part, ToolCallPart)]
        text = " ".join(part.content for part in result.parts if isinstance(part, TextPart))
        step.metadata["summary"] = f"calls {', '.join(calls)}" if calls else text[:200]


class ToolCalls(StepAdapter):
    """Knows a tool call by its name and arguments."""

    def identity(self, args: Sequence[Any]) -> Sequence[Any]:
        """Leave out the run's context."""
        params, *rest = args
        return [params.name, params.tool_args, *rest]

    def after(self, step: Step, args: Sequence[Any], result: Any) -> None:
        """Say in one line what was called."""
        params = args[0]
        step.metadata["summary"] = f"{params.name}({json.dumps(params.tool_args, default=str)})"


POLICIES: Mapping[str, StepPolicy] = {
    "agent__*__model_request": StepPolicy(
        trigger=SnapshotTrigger.LLM_CALL, adapter=ModelRequests()
    ),
    "agent__*__model_request_stream": StepPolicy(
        trigger=SnapshotTrigger.LLM_CALL, adapter=ModelRequests()
    ),
    "agent__*__call_tool": StepPolicy(adapter=ToolCalls()),
    "agent__*__event_stream_handler": StepPolicy(record=False),
}
"""What is a step of a pydantic-ai agent, for the plugin's ``policies``."""


def _merged(step: Step, known: Sequence[ModelMessage]) -> tuple[list[ModelMessage], _Conversation]:
    """Return the conversation with what was added to it, and how it now lies in the checkpoint."""
    was = _Conversation(**step.state.get("conversation", {}))
    stored = step.messages
    added = range(was.upto, len(stored))
    own = [at for at in range(was.start, was.upto) if at not in was.extras]
    if own and known and _plain([stored[own[0]]]) == _plain(_dump(known[:1])):
        now = _Conversation(was.start, 0, [*was.extras, *added])
    else:  # another conversation than the one before
        now = _Conversation(was.upto, 0, list(added))
    merged: list[ModelMessage] = []
    waiting: list[ModelMessage] = []
    left = list(known)
    for at in range(now.start, len(stored)):
        if at in now.extras:
            waiting.append(_parsed(stored[at]))
            continue
        if not _asks(merged):
            merged += waiting
            waiting = []
        merged += left[:1]
        left = left[1:]
    if _asks(merged):  # what was said comes after the answers of the tools that were called
        merged += left[:1] + waiting + left[1:]
    else:
        merged += waiting + left
    step.append(*_dump(left))
    now.upto = len(step.messages)
    return merged, now


def _asks(messages: Sequence[ModelMessage]) -> bool:
    """Say whether the last message calls tools that have not answered yet."""
    last = messages[-1] if messages else None
    return isinstance(last, ModelResponse) and any(
        isinstance(part, ToolCallPart) for part in last.parts
    )


def _parsed(message: Any) -> ModelMessage:
    """Return an added message, in pydantic-ai's form or as a role with content."""
    if isinstance(message, Mapping) and "role" in message:
        content = str(message.get("content", ""))
        if message["role"] == "assistant":
            return ModelResponse(parts=[TextPart(content)])
        if message["role"] == "system":
            return ModelRequest(parts=[SystemPromptPart(content)])
        return ModelRequest(parts=[UserPromptPart(content)])
    try:
        return ModelMessagesTypeAdapter.validate_python([message])[0]
    except ValueError:
        raise InvalidRequest(
            'an added message is {"role": "user", "content": "…"} or a message of pydantic-ai, not '
            f"{message!r:.200}"
        ) from None


def _dump(messages: Sequence[ModelMessage]) -> list[Any]:
    dumped: list[Any] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return dumped


def _plain(value: Any) -> Any:
    """Return a message without what another run of the same code fills in otherwise."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key not in _VARIES}
    return [_plain(item) for item in value] if isinstance(value, list) else value
