"""Agents of pydantic-ai in workflows, whose models tell what they were asked."""

from __future__ import annotations

from collections import defaultdict

from temporalio import workflow

from ckpt_engine.temporal import Rewindable

with workflow.unsafe.imports_passed_through():
    from pydantic_ai import Agent
    from pydantic_ai.durable_exec.temporal import PydanticAIWorkflow, TemporalDurability
    from pydantic_ai.messages import (
        ModelMessage,
        ModelResponse,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserPromptPart,
    )
    from pydantic_ai.models.function import AgentInfo, FunctionModel

ASKED: dict[str, list[list[str]]] = defaultdict(list)
"""By the first word that was said: for each model request, its messages in words."""

CALLED: dict[str, int] = defaultdict(int)
"""By argument: how often the tool ran."""


def in_words(messages: list[ModelMessage]) -> list[str]:
    words = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                words.append(f"user {part.content}")
            elif isinstance(part, TextPart):
                words.append(f"says {part.content}")
            elif isinstance(part, ToolCallPart):
                words.append(f"calls {part.args_as_dict()['what']}")
            elif isinstance(part, ToolReturnPart):
                words.append(f"returns {part.content}")
    return words


def _play(name: str) -> FunctionModel:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        words = in_words(messages)
        key = words[0].split()[1]
        ASKED[key].append([f"{name}:", *words])
        if not any(word.startswith("returns") for word in words):
            return ModelResponse(
                parts=[ToolCallPart("look_up", {"what": f"{key}-{n}"}) for n in "ab"]
            )
        said = sum(word.startswith("user") for word in words)
        return ModelResponse(parts=[TextPart(f"{name} heard {said}")])

    return FunctionModel(model)


agent = Agent(
    _play("first"),
    name="climate-test",
    capabilities=[TemporalDurability(models={"second": _play("second")})],
)


@agent.tool_plain
async def look_up(what: str) -> str:
    CALLED[what] += 1
    return what.upper()


@workflow.defn
class Answer(PydanticAIWorkflow, Rewindable):
    __pydantic_ai_agents__ = (agent,)

    @workflow.run
    async def run(self, question: str) -> str:
        return (await agent.run(question)).output


@workflow.defn
class Talk(PydanticAIWorkflow, Rewindable):
    """A conversation of two turns, then another one of its own."""

    __pydantic_ai_agents__ = (agent,)

    @workflow.run
    async def run(self, key: str) -> list[str]:
        first = await agent.run(f"{key} one")
        second = await agent.run("two", message_history=first.all_messages())
        other = await agent.run(f"{key}-other one")
        return [first.output, second.output, other.output]
