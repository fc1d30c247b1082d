"""One call of a tool: whatever goes wrong in it, the model reads about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.messages import (
    ModelRequest,
    ModelRequestPart,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import FunctionToolset, ToolsetTool
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python
from temporalio.exceptions import ApplicationError

__all__ = ["ToolBox"]

_State = Mapping[str, Any]


class ToolBox:
    """The agent's tools, for one model and one state."""

    def __init__(self, toolset: FunctionToolset[_State], model: Model, state: _State) -> None:
        self._toolset = toolset
        self._context = RunContext[_State](
            deps=MappingProxyType(dict(state)), model=model, usage=RunUsage()
        )

    async def definitions(self) -> list[ToolDefinition]:
        """Return what the model is told of the tools."""
        return [tool.tool_def for tool in (await self._tools()).values()]

    async def call(self, call: ToolCallPart, *, last_attempt: bool) -> tuple[ModelRequest, bool]:
        """Return the message that answers a call, and whether the tool did what it was asked.

        Args:
            call: The model's call.
            last_attempt: Whether an unexpected exception becomes part of the answer too.

        Raises:
            Exception: What the tool raised, unless it is the last attempt or says that a retry
                is of no use.
        """
        tools = await self._tools()
        tool = tools.get(call.tool_name)
        if tool is None:
            known = ", ".join(sorted(tools)) or "none"
            return _answer(call, "retried", f"There is no tool {call.tool_name!r}. Tools: {known}.")
        try:
            return _returned(call, await self._run(tool, call))
        except ValidationError as err:
            return _answer(call, "retried", _what_is_wrong(err))
        except ModelRetry as err:
            return _answer(call, "retried", err.message)
        except ToolFailed as err:
            return _answer(call, "failed", err.message)
        except Exception as err:
            hopeless = isinstance(err, ApplicationError) and err.non_retryable
            if not (last_attempt or hopeless):
                raise
            return _answer(call, "failed", f"{type(err).__name__}: {err}")

    async def _tools(self) -> dict[str, ToolsetTool[_State]]:
        tools = await self._toolset.get_tools(self._context)
        chosen = self._context.deps.get("tools")
        if chosen is None:
            return tools
        if not isinstance(chosen, list) or not set(chosen) <= set(tools):
            raise ApplicationError(
                f"the state key 'tools' must list tools of the agent ({', '.join(sorted(tools))}), "
                f"not {chosen!r}: rewind with another value",
                type="state",
                non_retryable=True,
            )
        return {name: tool for name, tool in tools.items() if name in chosen}

    async def _run(self, tool: ToolsetTool[_State], call: ToolCallPart) -> Any:
        raw = call.args or {}
        validator = tool.args_validator
        args = (
            validator.validate_json(raw) if isinstance(raw, str) else validator.validate_python(raw)
        )
        if tool.args_validator_func is not None:
            checked = tool.args_validator_func(self._context, **args)
            if checked is not None:
                await checked
        return await self._toolset.call_tool(call.tool_name, args, self._context, tool)


def _returned(call: ToolCallPart, result: Any) -> tuple[ModelRequest, bool]:
    value = result.return_value if isinstance(result, ToolReturn) else result
    parts: list[ModelRequestPart] = [
        ToolReturnPart(
            call.tool_name,
            to_jsonable_python(value, bytes_mode="base64", serialize_unknown=True),
            tool_call_id=call.tool_call_id,
        )
    ]
    if isinstance(result, ToolReturn) and result.content:
        parts.append(UserPromptPart(result.content))
    return ModelRequest(parts=parts), True


def _answer(call: ToolCallPart, outcome: Any, text: str) -> tuple[ModelRequest, bool]:
    part = ToolReturnPart(call.tool_name, text, tool_call_id=call.tool_call_id, outcome=outcome)
    return ModelRequest(parts=[part]), False


def _what_is_wrong(err: ValidationError) -> str:
    places = [
        f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}"
        for e in err.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "The arguments do not fit the tool. " + "; ".join(places)
