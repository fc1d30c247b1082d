"""The conversation as it is stored and as a provider accepts it: plain functions on values.

Stored messages are JSON objects: pydantic-ai's own ``ModelMessage`` as JSON without its empty
fields, or what a person adds to a branch, ``{"role": "user" | "system" | "assistant",
"content": "..."}``. People may insert messages anywhere and branches may begin between a tool call
and its answer, so a history is put in order each time before it goes to a provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    RetryFeedbackPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ckpt_agent.workflows.messages import ResumePoint, ToolCall
from ckpt_engine.errors import InvalidRequest

__all__ = [
    "answer_of",
    "find_call",
    "from_stored",
    "in_order",
    "resume",
    "to_stored",
    "tool_calls_of",
    "user_message",
]

_ALWAYS = {"parts", "content"}  # a tool may well return nothing
NOT_RUN = "This call was not run. Call the tool again if its result is still needed."


def user_message(text: str) -> dict[str, Any]:
    """Return a person's text as a stored message."""
    return to_stored(ModelRequest(parts=[UserPromptPart(text)]))


def to_stored(message: ModelMessage) -> dict[str, Any]:
    """Return a message as the JSON object that is stored: its empty fields are left out."""
    (full,) = ModelMessagesTypeAdapter.dump_python([message], mode="json")
    stored = _without_empty(full)
    stored["parts"] = [_without_empty(part) for part in full["parts"]]
    if "usage" in stored:
        stored["usage"] = {k: v for k, v in stored["usage"].items() if v}
    return stored


def from_stored(messages: Sequence[Any]) -> list[ModelMessage]:
    """Return stored messages as pydantic-ai's.

    Raises:
        InvalidRequest: One of them is neither such a message nor a role with content; the text
            says which one, counted from 1.
    """
    return [_parse(number, message) for number, message in enumerate(messages, 1)]


def in_order(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Return the conversation in the order that providers ask for; what it says is unchanged.

    The answers to tool calls come right after the response that made them, in the order of its
    calls, whatever was inserted between; a call without an answer gets one that says it was not
    run; an answer without a call is left out; neighbouring requests become one.
    """
    ordered: list[ModelMessage] = []
    answers = _answers(messages)
    for position, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            ordered.append(message)
            returns = [
                answers.get((position, call.tool_call_id)) or _not_run(call)
                for call in message.tool_calls
            ]
            if returns:
                ordered.append(ModelRequest(parts=returns))
        else:
            _add_request(ordered, message)
    return ordered


def tool_calls_of(response: ModelResponse) -> list[ToolCall]:
    """Return the calls of a response, ids and names only."""
    return [ToolCall(id=call.tool_call_id, name=call.tool_name) for call in response.tool_calls]


def answer_of(response: ModelResponse) -> str | None:
    """Return a response's text; ``None`` when it has none."""
    text = "\n\n".join(p.content for p in response.parts if isinstance(p, TextPart) and p.content)
    return text or None


def find_call(messages: Sequence[ModelMessage], call_id: str) -> ToolCallPart:
    """Return the newest tool call with this id.

    Raises:
        InvalidRequest: The conversation has none.
    """
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            for call in message.tool_calls:
                if call.tool_call_id == call_id:
                    return call
    raise InvalidRequest(f"the conversation has no tool call with the id {call_id!r}")


def resume(messages: Sequence[ModelMessage]) -> ResumePoint:
    """Return where an agent with this conversation goes on.

    Calls of the newest response that have no answer are run first; then, if anything was said
    after that response, the model is asked; otherwise its text is the answer.
    """
    for position in range(len(messages) - 1, -1, -1):
        response = messages[position]
        if not isinstance(response, ModelResponse):
            continue
        answers = _answers(messages)
        open_calls = [c for c in tool_calls_of(response) if answers.get((position, c.id)) is None]
        if open_calls:
            return ResumePoint(node="tools", tool_calls=open_calls)
        answer = answer_of(response)
        if position == len(messages) - 1 and not response.tool_calls and answer is not None:
            return ResumePoint(node="end", answer=answer)
        break
    return ResumePoint(node="model")


def _answers(messages: Sequence[ModelMessage]) -> dict[tuple[int, str], ToolReturnPart | None]:
    """Return, by response position and call id, the first answer to each call.

    Some servers use the same ids in every turn, so an answer belongs to the newest call before it.
    """
    newest: dict[str, int] = {}
    answers: dict[tuple[int, str], ToolReturnPart | None] = {}
    for position, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            for call in message.tool_calls:
                newest[call.tool_call_id] = position
                answers[position, call.tool_call_id] = None
            continue
        for part in message.parts:
            if isinstance(part, ToolReturnPart) and part.tool_call_id in newest:
                key = (newest[part.tool_call_id], part.tool_call_id)
                answers[key] = answers[key] or part
    return answers


def _add_request(ordered: list[ModelMessage], request: ModelRequest) -> None:
    said = [part for part in request.parts if not isinstance(part, ToolReturnPart)]
    if not said:
        return
    last = ordered[-1] if ordered else None
    if isinstance(last, ModelRequest):
        ordered[-1] = replace(last, parts=[*last.parts, *said])
    else:
        ordered.append(replace(request, parts=said))


def _not_run(call: ToolCallPart) -> ToolReturnPart:
    return ToolReturnPart(
        call.tool_name, NOT_RUN, tool_call_id=call.tool_call_id, outcome="interrupted"
    )


def _parse(number: int, message: Any) -> ModelMessage:
    if isinstance(message, Mapping):
        if "role" in message and "kind" not in message:
            return _from_role(number, message)
        try:
            (parsed,) = ModelMessagesTypeAdapter.validate_python([_complete(message)])
        except ValidationError as err:
            raise InvalidRequest(f"message {number} is not one a model understands: {err}") from err
        return parsed
    raise InvalidRequest(f"message {number} is not a JSON object but {type(message).__name__}")


def _complete(message: Mapping[str, Any]) -> Mapping[str, Any]:
    # `usage` has no default in JSON, and a stored response may have lost an empty one.
    return {"usage": {}, **message} if message.get("kind") == "response" else message


def _from_role(number: int, message: Mapping[str, Any]) -> ModelMessage:
    role, content = message.get("role"), message.get("content")
    if not isinstance(content, str):
        raise InvalidRequest(f"message {number}: `content` must be text")
    if role == "user":
        return ModelRequest(parts=[UserPromptPart(content)])
    if role == "system":
        return ModelRequest(parts=[SystemPromptPart(content)])
    if role == "assistant":
        return ModelResponse(parts=[TextPart(content)])
    raise InvalidRequest(
        f"message {number}: `role` must be user, system or assistant, not {role!r}"
    )


def _without_empty(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k in _ALWAYS or (v is not None and v != [])}


def said_by_people(messages: Iterable[ModelMessage]) -> Iterator[str]:
    """Yield what people said, in order: questions, extra messages, feedback."""
    for message in messages:
        if isinstance(message, ModelRequest):
            for part in message.parts:
                text = _text_of(part)
                if text:
                    yield text


def _text_of(part: ModelRequestPart) -> str | None:
    if isinstance(part, UserPromptPart | SystemPromptPart | RetryFeedbackPart):
        return part.content if isinstance(part.content, str) else None
    return None
