"""An agent is what its object says; a reference that leads nowhere says where it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from ckpt_engine.contrib.agent import AgentNotLoaded, AgentSpec, load_agent
from ckpt_engine.errors import InvalidRequest

GOOD = """
from ckpt_engine.contrib.agent import AgentSpec

def double(number: int) -> int:
    \"\"\"Double a number.\"\"\"
    return 2 * number

agent = AgentSpec(model="ollama:tiny", instructions="be brief", tools=[double])
other = agent
number = 5
"""


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A user's directory, current, with files given as (name, text)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_an_agent_is_found_in_the_current_directory(project: Callable[[str, str], None]) -> None:
    project("spec_mine.py", GOOD)
    agent = load_agent("spec_mine:agent")
    assert (agent.model_name, agent.instructions) == ("ollama:tiny", "be brief")
    assert list(agent.toolset().tools) == ["double"]


def test_a_directory_may_have_its_own_workflows(project: Callable[[str, str], None]) -> None:
    project("workflows/__init__.py", "")
    project("workflows/spec_deep.py", GOOD)
    assert load_agent("workflows.spec_deep:agent").name == "agent"
    from ckpt_agent.workflows.messages import AgentInput  # the shipped one is still itself

    assert AgentInput(question="q").max_steps == 50


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nowhere_at_all:agent", "there is no module 'nowhere_at_all'"),
        ("spec_mine:nothing", "no attribute 'nothing'; it has agent, other"),
        ("spec_mine:number", "is a int, not an AgentSpec"),
        ("spec_mine.py:agent", "write module:attribute"),
        ("spec_mine", "write module:attribute"),
        ("", "write module:attribute"),
        ("spec_broken:agent", "could not be imported: NameError"),
        ("spec_needs:agent", "needs 'not_installed_here'"),
        ("spec_mine.deeper:agent", "spec_mine"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(
    reference: str, says: str, project: Callable[[str, str], None]
) -> None:
    project("spec_mine.py", GOOD)
    project("spec_broken.py", "undefined_name")
    project("spec_needs.py", "import not_installed_here")
    with pytest.raises(AgentNotLoaded) as caught:
        load_agent(reference)
    assert says in str(caught.value)
    assert caught.value.kind == "agent-not-loaded"


def test_an_agent_of_pydantic_ai_is_told_how_to_become_one(
    project: Callable[[str, str], None],
) -> None:
    project("spec_pydantic.py", "from pydantic_ai import Agent\nagent = Agent('test')\n")
    with pytest.raises(AgentNotLoaded, match=r"is a Agent.*AgentSpec\(\.\.\.\)"):
        load_agent("spec_pydantic:agent")
    assert Agent is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": 5},
        {"model": "m", "instructions": None},
        {"model": "m", "settings": [1]},
        {"model": "m", "tool_attempts": 0},
    ],
)
def test_what_cannot_be_an_agent_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=list(wrong)[-1]):
        AgentSpec(**wrong)


def test_two_tools_of_one_name_are_refused() -> None:
    def look(a: int) -> int:
        """Look."""
        return a

    with pytest.raises(InvalidRequest, match="look"):
        AgentSpec(model="m", tools=[look, look]).toolset()


def test_models_are_chosen_by_name() -> None:
    own, further = TestModel(model_name="own"), TestModel(model_name="x")
    agent = AgentSpec(model=own, models={"further": further})
    assert agent.model_name == "own"
    assert agent.named_models() == {"own": own, "further": further}
    assert AgentSpec(model="openai:gpt-5").named_models() == {}


def test_the_documented_agent_works(project: Callable[[str, str], None]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    project("mymodule.py", text.split("```python\n")[1].split("```")[0])
    agent = load_agent("mymodule:agent")
    assert agent.model_name == "openai:gpt-5.6-sol"
    assert list(agent.toolset().tools) == ["word_count"]
