"""An ``Agent`` of pydantic-ai, made durable by its own Temporal integration, and checkpointed.

Beside a running ``ckpt server``::

    python -m examples pydantic_agent

Nothing of the agent or of its workflow is written for checkpoints, but for the mixin. Where
``CKPT_MODEL`` names a model (``openai:…``, ``anthropic:…``) that is asked; otherwise a few lines of
script stand in for one.
"""

from __future__ import annotations

import os
import re

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

NORMALS = {"Bergen": 8, "Cairo": 22, "Lima": 19, "Oslo": 6, "Quito": 14, "Seattle": 11}
"""Mean temperature of a year, in degrees Celsius."""


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Look up every city that was spoken of, then name the warmest."""
    parts = [part for message in messages for part in message.parts]
    said = " ".join(str(p.content) for p in parts if isinstance(p, UserPromptPart))
    known = {p.tool_call_id: str(p.content) for p in parts if isinstance(p, ToolReturnPart)}
    asked = {str(p.args_as_dict()["city"]): p for p in parts if isinstance(p, ToolCallPart)}
    spoken = [city for city in dict.fromkeys(re.findall(r"[A-Z]\w+", said)) if city in NORMALS]
    if new := [city for city in spoken if city not in asked]:
        return ModelResponse(parts=[ToolCallPart("mean_temperature", {"city": c}) for c in new])
    found = {city: int(known[asked[city].tool_call_id]) for city in spoken}
    warmest = max(found, key=lambda city: found[city])
    return ModelResponse(parts=[TextPart(f"{warmest} is the warmest of {len(found)}.")])


agent = Agent(
    os.environ.get("CKPT_MODEL") or FunctionModel(scripted),
    name="climate",
    instructions="Answer in one sentence. Look temperatures up with the tool.",
    capabilities=[TemporalDurability()],
)


@agent.tool_plain
async def mean_temperature(city: str) -> int:
    """Return a city's mean temperature in degrees Celsius."""
    return NORMALS[city]


@workflow.defn
class ClimateWorkflow(PydanticAIWorkflow, Rewindable):
    """As in pydantic-ai's documentation, with the mixin."""

    __pydantic_ai_agents__ = (agent,)

    @workflow.run
    async def run(self, question: str) -> str:
        """Return the agent's answer."""
        result = await agent.run(question)
        return result.output
