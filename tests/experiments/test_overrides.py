"""Overrides of what is said and who is asked, repeated: each variant gets its own, and no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio.testing import WorkflowEnvironment

from ckpt_engine import CheckpointInfo
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.experiments import Report

from .conftest import App, running

HINT = {"role": "user", "content": "Hint: blue."}
FORMER = {"role": "assistant", "content": "I shall look."}
GUESSES: Counter[str] = Counter()
LOOKS = 2


def _said(messages: list[ModelMessage]) -> list[str]:
    return [str(getattr(part, "content", "")) for m in messages for part in m.parts]


def _careful(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Look as often as it takes; say what was seen, or what a hint says."""
    said = _said(messages)
    if not info.function_tools:
        return ModelResponse(parts=[TextPart(f"seen {str(said).count('grey')}")])
    asked = max(n for n, text in enumerate(said) if text.startswith("Colour"))
    if sum("grey" in text or "seen" in text for text in said[asked:]) < LOOKS:
        return ModelResponse(parts=[ToolCallPart("look", {})])
    return ModelResponse(parts=[TextPart("blue" if HINT["content"] in said else "grey")])


def _hasty(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Guess at once: blue when it is first asked something, red ever after."""
    del info
    question = [text for text in _said(messages) if text.startswith("Colour")][-1]
    GUESSES[question] += 1
    return ModelResponse(parts=[TextPart("blue" if GUESSES[question] == 1 else "red")])


def look() -> str:
    """Return what is seen."""
    return "grey"


AGENT = AgentSpec(
    model=FunctionModel(_careful, model_name="careful"),
    models={"hasty": FunctionModel(_hasty, model_name="hasty")},
    tools=[look],
)


@pytest.fixture
async def colours(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> AsyncIterator[App]:
    GUESSES.clear()
    async with running(temporal_env, AGENT, tmp_path, task_queue) as app:
        yield app


def spec(checkpoint: str, variants: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    asked = [{"name": f"q{n}", "say": f"Colour {n}?", "expected": "blue"} for n in range(8)]
    asked[7]["expected"] = "blue|grey"
    return {
        "name": "colours",
        "from": {"checkpoint": checkpoint},
        "variants": variants,
        "questions": asked,
        "scorer": {"kind": "regex"},
        **changed,
    }


def scores(report: Report, variant: str) -> dict[str, list[float]]:
    """Return the scores of a variant's repeats, question by question."""
    found: dict[str, list[float]] = {}
    for trial in report.trials:
        if trial.variant == variant:
            assert trial.score is not None
            found.setdefault(trial.question, []).append(trial.score)
    return found


async def own_steps(app: App, thread: str) -> list[CheckpointInfo]:
    steps = await app.engine.list_time_travel_points(thread, limit=None)
    return [step for step in steps if step.thread_id == thread]


async def test_messages_and_models_repeated_are_paired_by_question(colours: App) -> None:
    base = await colours.session("Colour of the sky?")
    variants: list[dict[str, Any]] = [
        {"name": "plain"},
        {"name": "hinted", "messages": [FORMER, HINT]},
        {"name": "hasty", "model": "hasty"},
    ]
    report = await colours.run(spec(base.checkpoint, variants, repeats=2))

    assert {t.state for t in report.trials} == {"scored"}
    plain, hinted, hasty = (scores(report, v["name"]) for v in variants)
    assert plain == {**{f"q{n}": [0, 0] for n in range(7)}, "q7": [1, 1]}
    assert hinted == {f"q{n}": [1, 1] for n in range(8)}
    assert {name: sorted(found) for name, found in hasty.items()} == {
        f"q{n}": [0, 1] for n in range(8)
    }
    # eight pairs of averages, not sixteen of trials: 1 (7 times) and 0; ½ (7 times) and -½
    assert report.verdict is not None
    first, second = report.verdict.comparisons
    assert (first.variant, first.pairs, first.difference) == ("hinted", 8, 7 / 8)
    assert (second.variant, second.pairs, second.difference) == ("hasty", 8, 3 / 8)
    assert first.p == 2 * 2 * 2 / 2**8  # a zero flips to itself; doubled for two variants
    assert report.verdict.winner == "hinted"

    seed = await colours.engine.get(base.checkpoint)
    for trial in report.trials:
        begun = await colours.engine.get(trial.first)
        asked = {"role": "user", "content": f"Colour {trial.question[1:]}?"}
        extra = [FORMER, HINT] if trial.variant == "hinted" else []
        model = "hasty" if trial.variant == "hasty" else "careful"
        assert begun.messages == [*seed.messages, asked, *extra]
        assert begun.state == {**seed.state, "model": model}
        steps = await own_steps(colours, trial.workflow_id)
        models = [s.metadata["model"] for s in steps if s.node == "call_model"]
        assert models == (["hasty"] if model == "hasty" else ["careful"] * (LOOKS + 1))
        assert trial.same_seed


async def test_what_a_summary_took_is_in_the_report(colours: App) -> None:
    base = await colours.session("Colour of the sky?")
    variants: list[dict[str, Any]] = [
        {"name": "long"},
        {"name": "short", "state": {"compact": {"over_messages": 2, "keep": 1}}},
    ]
    report = await colours.run(spec(base.checkpoint, variants))
    before = (await colours.engine.get(base.checkpoint)).state["usage"]
    summaries = 0
    for trial in report.trials:
        steps = await own_steps(colours, trial.workflow_id)
        nodes = Counter(step.node for step in steps)
        assert (nodes["compact"] > 0) == (trial.variant == "short")
        summaries += nodes["compact"]
        usage = (await colours.engine.get(trial.head)).state["usage"]
        assert usage["requests"] - before["requests"] == nodes["call_model"] + nodes["compact"]
        assert trial.spent.input_tokens == usage["input_tokens"] - before["input_tokens"]
        assert trial.spent.output_tokens == usage["output_tokens"] - before["output_tokens"]
    assert summaries >= 8
