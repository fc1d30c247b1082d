"""The shipped agent's steps: each of these activities is one checkpoint of the agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    UserPromptPart,
)
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ckpt_agent.workflows.messages import (
    AgentInput,
    ModelTurn,
    ResumePoint,
    ToolCall,
    ToolOutcome,
)
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.experiments.budget import Lease
from ckpt_engine.temporal import Step, current_step

from .budget import Purse
from .compaction import SUMMARISE, CompactSettings, is_crowded, note, split, transcript
from .conversation import (
    answer_of,
    find_call,
    from_stored,
    resume,
    to_stored,
    tool_calls_of,
    user_message,
)
from .heartbeat import heartbeating
from .model_call import ModelCatalogue, ask_model, unusable
from .summaries import of_call, of_question, of_response
from .tool_call import ToolBox

__all__ = ["AgentActivities", "first_state", "with_usage"]


class AgentActivities:
    """The steps of one agent, for a worker.

    Raises:
        InvalidRequest: A tool of the agent cannot be used.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        self._models = ModelCatalogue(spec.named_models())
        self._toolset = spec.toolset()

    def all(self) -> list[Callable[..., Any]]:
        """Return the activities to register."""
        return [self.begin, self.call_model, self.call_tool, self.compact, self.resume_point]

    @activity.defn
    async def begin(self, start: AgentInput) -> None:
        """Put the agent's settings into its state and the question into its conversation."""
        step = await current_step()
        # A rewind to the start may have set keys already; they are what was asked for last.
        step.state.update({**first_state(self._spec, start), **step.state})
        step.append(user_message(start.question))
        step.metadata["summary"] = of_question(start.question)
        step.next_node = "model"

    @activity.defn
    async def call_model(self, lease: Lease | None = None) -> ModelTurn:
        """Ask the model once, at most for what a lease pays, and append its response."""
        step = await current_step()
        state = dict(step.state)
        usage = _mapping(state, "usage")
        name = _text(state, "model") or self._spec.model_name
        purse = None if lease is None else Purse(lease, state.get("budget"), name)
        async with heartbeating():
            response = await self._ask(name, step.messages, state, purse)
        if purse is not None:
            step.state["budget"] = purse.settle(response)
        step.append(to_stored(response))
        _count(step, usage, name, response)
        step.metadata["summary"] = of_response(response)
        calls = tool_calls_of(response)
        step.next_node = "tools" if calls else "end"
        crowded = is_crowded(
            _compact(state), tokens=response.usage.input_tokens, messages=len(step.messages)
        )
        return ModelTurn(
            tool_calls=calls, answer=None if calls else answer_of(response), crowded=crowded
        )

    @activity.defn
    async def compact(self, lease: Lease | None = None) -> None:
        """Shorten the conversation as the state says; what a lease does not pay is only dropped."""
        step = await current_step()
        state = dict(step.state)
        settings, usage = _compact(state) or CompactSettings(), _mapping(state, "usage")
        messages = _conversation(step.messages)
        parts = split(step.messages, messages, settings.keep)
        step.next_node = "model"
        if not parts.gone:
            step.metadata["summary"] = "nothing to leave out"
            return
        summary = None
        if settings.how == "summarise" and lease is None:
            name = _text(state, "model") or self._spec.model_name
            response = await self._summary([messages[at] for at in parts.gone], name, state)
            _count(step, usage, name, response)
            summary = answer_of(response)
        kept = [step.messages[at] for at in parts.before]
        step.replace(
            [*kept, note(len(parts.gone), summary), *(step.messages[at] for at in parts.after)]
        )
        how = "left out" if summary is None else "summarised"
        step.metadata["summary"] = f"{how} {len(parts.gone)} of {len(messages)} messages"

    async def _summary(
        self, messages: Sequence[ModelMessage], name: str, state: dict[str, Any]
    ) -> ModelResponse:
        asked = ModelRequest(parts=[UserPromptPart(transcript(messages))])
        async with heartbeating():
            return await ask_model(
                self._models.get(name),
                [asked],
                instructions=SUMMARISE,
                settings=_mapping(state, "settings"),
                tools=[],
            )

    async def _ask(
        self, name: str, stored: Sequence[Any], state: dict[str, Any], purse: Purse | None
    ) -> ModelResponse:
        model = self._models.get(name)
        messages, instructions = _conversation(stored), _text(state, "instructions")
        settings = _mapping(state, "settings")
        tools = await ToolBox(self._toolset, model, state).definitions()
        if purse is not None:
            settings = purse.settings(settings, messages, instructions, tools)
        try:
            return await ask_model(
                model, messages, instructions=instructions, settings=settings, tools=tools
            )
        except ApplicationError as err:
            if purse is None:
                raise
            purse.failed(err)

    @activity.defn
    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        """Run one of the model's tool calls and append its answer."""
        step = await current_step()
        part = _find(step.messages, call.id)
        state = dict(step.state)
        model = self._models.get(_text(state, "model") or self._spec.model_name)
        last = activity.info().attempt >= self._attempts()
        async with heartbeating():
            message, ok = await ToolBox(self._toolset, model, state).call(part, last_attempt=last)
        step.append(to_stored(message))
        step.metadata.update(summary=of_call(part, message), tool=part.tool_name, ok=ok)
        step.next_node = "model"
        return ToolOutcome(id=call.id, ok=ok)

    @activity.defn
    async def resume_point(self) -> ResumePoint:
        """Say where a seeded agent goes on; it changes nothing."""
        step = await current_step()
        point = resume(_conversation(step.messages))
        return point.model_copy(update={"max_steps": _max_steps(step.state)})

    def _attempts(self) -> int:
        policy = activity.info().retry_policy
        allowed = policy.maximum_attempts if policy is not None else 0
        return min(self._spec.tool_attempts, allowed or self._spec.tool_attempts)


def first_state(spec: AgentSpec, start: AgentInput) -> dict[str, Any]:
    """Return the state an agent begins with: what was asked for, else the agent's own."""
    return {
        **start.state,
        "model": start.model or spec.model_name,
        "instructions": spec.instructions if start.instructions is None else start.instructions,
        "settings": {**spec.settings, **start.settings},
    }


def with_usage(usage: Mapping[str, Any], response: ModelResponse) -> dict[str, int]:
    """Return the usage of the whole agent after one more response."""
    more = {
        "requests": 1,
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
    }
    so_far = {k: v for k, v in usage.items() if isinstance(v, int)}
    return {key: so_far.get(key, 0) + count for key, count in more.items()}


def _count(step: Step, usage: Mapping[str, Any], model: str, response: ModelResponse) -> None:
    """Note what a response took, in the step's metadata and in the agent's usage."""
    step.state["usage"] = with_usage(usage, response)
    step.metadata.update(
        model=model,
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
    )


def _conversation(messages: Sequence[Any]) -> list[ModelMessage]:
    try:
        return from_stored(messages)
    except InvalidRequest as err:
        unusable("conversation", str(err), err)


def _find(messages: Sequence[Any], call_id: str) -> ToolCallPart:
    try:
        return find_call(_conversation(messages), call_id)
    except InvalidRequest as err:
        unusable("conversation", str(err), err)


def _compact(state: Mapping[str, Any]) -> CompactSettings | None:
    value = state.get("compact")
    if value is None:
        return None
    try:
        return CompactSettings.model_validate(value)
    except ValidationError:
        fields = ", ".join(CompactSettings.model_fields)
        raise _wrong("compact", f"an object of {fields}", value) from None


def _max_steps(state: Mapping[str, Any]) -> int | None:
    value = state.get("max_steps")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise _wrong("max_steps", "a whole number of at least 1", value)


def _text(state: Mapping[str, Any], key: str) -> str:
    value = state.get(key) or ""
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    return value


def _mapping(state: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = state.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong(key, "an object", value)
    return value


def _wrong(key: str, expected: str, value: Any) -> ApplicationError:
    return ApplicationError(
        f"the state key {key!r} must be {expected}, not {value!r}: rewind with another value",
        type="state",
        non_retryable=True,
    )
