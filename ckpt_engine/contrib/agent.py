"""What a user names to bring an agent of their own: model, instructions, tools.

Needs the ``agent`` extra (``pip install 'ckpt-engine[agent]'``) once it is used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic_ai import Tool
    from pydantic_ai.models import Model
    from pydantic_ai.toolsets import FunctionToolset

__all__ = ["AgentNotLoaded", "AgentSpec", "import_here", "load_agent"]


_OF_EXTRA = {"pydantic_ai", "openai", "anthropic"}


class AgentNotLoaded(InvalidRequest):
    """There is no usable agent where it was looked for; the message says what was found."""

    kind = "agent-not-loaded"


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """An agent: which model it asks, what it is told, which tools it has.

    Attributes:
        model: By name, such as ``openai:gpt-5.6-sol``, ``anthropic:claude-sonnet-5-5`` or
            ``ollama:qwen3``; or a model object of pydantic-ai.
        instructions: System instructions.
        tools: Plain functions with type hints and a docstring, sync or async, or pydantic-ai's
            ``Tool``. One whose first parameter is a ``RunContext`` finds the agent's state,
            read-only, in ``ctx.deps``. A tool may run again after a crash.
        name: What the agent is called.
        settings: Model settings, such as ``{"temperature": 0}``.
        models: Further model objects that a run or a branch may choose by name.
        tool_timeout: Seconds after which a tool call is given up, and the model told.
        tool_attempts: How often a tool that raises is tried before the model reads its error.
    """

    model: str | Model
    instructions: str = ""
    tools: Sequence[Callable[..., Any] | Tool[Any]] = ()
    name: str = "agent"
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    tool_timeout: float = 240.0
    tool_attempts: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be an agent.

        Raises:
            InvalidRequest: A field has the wrong type; the message names it.
        """
        if not (isinstance(self.model, str) and self.model) and not hasattr(self.model, "request"):
            raise InvalidRequest(f"model: a name such as 'openai:gpt-5.6-sol', not {self.model!r}")
        if not isinstance(self.instructions, str):
            raise InvalidRequest(f"instructions: text, not {self.instructions!r}")
        if not isinstance(self.settings, Mapping):
            raise InvalidRequest(f"settings: a mapping, not {self.settings!r}")
        if self.tool_attempts < 1:
            raise InvalidRequest(f"tool_attempts: at least 1, not {self.tool_attempts}")
        if not self.tool_timeout > 0:
            raise InvalidRequest(f"tool_timeout: seconds above 0, not {self.tool_timeout}")
        object.__setattr__(self, "tools", tuple(self.tools))

    @property
    def model_name(self) -> str:
        """The name by which a run, a rewind or a branch chooses the agent's own model."""
        return self.model if isinstance(self.model, str) else self.model.model_name

    def named_models(self) -> dict[str, Model]:
        """Return the model objects that are chosen by name, the agent's own included."""
        own = {} if isinstance(self.model, str) else {self.model_name: self.model}
        return {**self.models, **own}

    def toolset(self) -> FunctionToolset[Mapping[str, Any]]:
        """Return the tools with their schemas.

        Raises:
            InvalidRequest: A tool has no usable schema, or two have the same name.
        """
        from pydantic_ai.exceptions import UserError
        from pydantic_ai.toolsets import FunctionToolset

        toolset: FunctionToolset[Mapping[str, Any]] = FunctionToolset(timeout=self.tool_timeout)
        for tool in self.tools:
            name = getattr(tool, "name", None) or getattr(tool, "__name__", repr(tool))
            try:
                if callable(tool):
                    toolset.add_function(tool)
                else:
                    toolset.add_tool(tool)
            except (UserError, TypeError, NameError, AttributeError) as err:
                raise InvalidRequest(f"tool {name} cannot be used: {err}") from err
        return toolset


def load_agent(reference: str) -> AgentSpec:
    """Return the agent that ``module:attribute`` names; the current directory is on the path.

    Args:
        reference: Such as ``mymodule:agent`` or ``package.module:agent``.

    Raises:
        AgentNotLoaded: No such module, no such attribute, not an ``AgentSpec``, or the module
            could not be imported; the message says which and what to do.
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute or module_name.endswith(".py"):
        raise AgentNotLoaded(
            f"{reference!r} does not name an agent: write module:attribute, such as mymodule:agent"
        )
    module = import_here(module_name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        specs = sorted(n for n, v in vars(module).items() if isinstance(v, AgentSpec))
        hint = f"; it has {', '.join(specs)}" if specs else ""
        raise AgentNotLoaded(f"module {module_name} has no attribute {attribute!r}{hint}") from None
    if not isinstance(found, AgentSpec):
        raise AgentNotLoaded(
            f"{reference} is a {type(found).__name__}, not an AgentSpec: put its model, "
            "instructions and tools in ckpt_engine.contrib.agent.AgentSpec(...)"
        )
    return found


def import_here(name: str) -> Any:
    """Return a module; the current directory is on the path.

    Raises:
        AgentNotLoaded: There is no such module, or it could not be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name is not None and (name == err.name or name.startswith(err.name + ".")):
            raise AgentNotLoaded(
                f"there is no module {name!r} in {here} or on the Python path"
            ) from err
        hint = ": pip install 'ckpt-engine[agent]'" if err.name in _OF_EXTRA else ""
        raise AgentNotLoaded(
            f"module {name} needs {err.name!r}, which is not installed{hint}"
        ) from err
    except Exception as err:  # whatever a user's module raises while it is imported
        raise AgentNotLoaded(f"module {name} could not be imported: {err!r}") from err
