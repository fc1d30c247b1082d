"""Budgets in real experiments: a model that takes all it may never takes more than there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from werkzeug import Request, Response

from ckpt_engine.contrib.agent import AgentSpec

from ..agent.conftest import ChatServer, completion, error
from .conftest import App, running
from .test_workflow import TABLES, innermost, questions, spec

PRICES = {"ollama:tiny": {"input": 1.0, "output": 3.0}}


class Greedy:
    """A model that reads a token a byte and writes as much as it may, until told to stop."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.read = self.written = 0

    def __call__(self, request: Request) -> Response:
        body = json.loads(request.get_data())
        limit = body.get("max_completion_tokens") or body["max_tokens"]
        contents = sum(len(str(m.get("content") or "")) for m in body["messages"])
        self.read += contents
        self.written += limit
        turn = sum(m["role"] == "assistant" for m in body["messages"])
        calls = [(f"c{turn}", "add", {"a": 1, "b": turn})] if turn < self.turns else []
        said = completion(None if calls else "42", calls)
        said["usage"] = {
            "prompt_tokens": contents,
            "completion_tokens": limit,
            "total_tokens": contents + limit,
        }
        return Response(json.dumps(said), content_type="application/json")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
async def tiny(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, chat: ChatServer
) -> AsyncIterator[App]:
    del chat  # its address must be in the environment before the worker starts
    agent = AgentSpec(model="ollama:tiny", instructions="Add.", tools=[add])
    async with running(temporal_env, agent, tmp_path, task_queue) as app:
        yield app


def sums(checkpoint: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": "sums",
        "from": {"checkpoint": checkpoint},
        "variants": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
        "questions": [{"name": f"q{n}", "say": f"{n} + {n}?"} for n in range(4)],
        "scorer": {"kind": "exact", "expected": "42"},
        "concurrency": 3,
        **changed,
    }


async def test_tokens_and_money_are_never_exceeded(tiny: App, chat: ChatServer) -> None:
    chat.then(completion("hello"))
    base = await tiny.session("hello?")
    greedy = Greedy(turns=2)
    chat.then(*[greedy] * 100)
    limits = {"total": {"tokens": 60_000}, "per_variant": {"money": 0.05, "tokens": 30_000}}
    report = await tiny.run(sums(base.checkpoint, budget=limits, prices=PRICES))
    assert greedy.read + greedy.written <= 60_000
    assert greedy.written > 0
    for row in report.variants:
        assert row.spent.money is not None
        assert row.spent.money <= 0.05
        assert row.spent.input_tokens + row.spent.output_tokens <= 30_000
    assert report.spent.input_tokens + report.spent.output_tokens == greedy.read + greedy.written
    out = [t for t in report.trials if t.state == "budget"]
    assert out
    assert all("the budget is used up" in t.why for t in out)


async def test_an_attempt_that_was_lost_counts_as_the_most(tiny: App, chat: ChatServer) -> None:
    chat.then(completion("hello"))
    base = await tiny.session("hello?")
    chat.then(error(503, "overloaded"), *[completion("42")] * 3)
    limits = {"per_trial": {"tokens": 20_000}}
    report = await tiny.run(
        sums(base.checkpoint, budget=limits, concurrency=1, questions=[{"name": "q", "say": "?"}])
    )
    kept = [(await tiny.engine.get(t.head)).state["budget"]["tokens"] for t in report.trials]
    assert kept[1:] == [18, 18]  # what the server says of an answer
    assert 8_000 < kept[0] < 20_000
    assert [t.state for t in report.trials] == ["scored"] * 3


async def test_a_model_without_a_price_is_refused_where_money_is_limited(
    tiny: App, chat: ChatServer
) -> None:
    chat.then(completion("hello"))
    base = await tiny.session("hello?")
    threads = await tiny.engine.list_threads(base.thread)
    with pytest.raises(WorkflowFailureError) as caught:
        await tiny.run(sums(base.checkpoint, budget={"total": {"money": 1}}))
    why = innermost(caught.value)
    assert "variant a: no price is known of the model ollama:tiny" in why
    assert "put its price under `prices`" in why
    assert len(chat.requests) == 1  # not one was paid for
    assert await tiny.engine.list_threads(base.thread) == threads


async def test_steps_of_a_variant_are_never_exceeded(shipped: App) -> None:
    base = await shipped.session(TABLES)
    limits = {"per_variant": {"steps": 8}, "per_trial": {"steps": 6}}
    report = await shipped.run(spec(base.checkpoint, budget=limits, questions=questions(3)))
    for row in report.variants:
        assert 0 < row.spent.steps <= 8
        assert row.states["budget"] >= 1


async def test_time_is_never_exceeded(shipped: App) -> None:
    base = await shipped.session(TABLES)
    slow = [{"name": "slow", "settings": {"delay_seconds": 60}}, {"name": "b"}]
    limits = {"per_trial": {"seconds": 2}}
    report = await shipped.run(
        spec(base.checkpoint, budget=limits, variants=slow, questions=questions(1))
    )
    first, second = report.trials
    assert (first.state, first.why) == ("budget", "the time is used up")
    assert second.state in ("scored", "budget")
    report = await shipped.run(
        spec(
            base.checkpoint,
            budget={"total": {"seconds": 1.5}},
            variants=slow,
            concurrency=1,
            questions=questions(1),
        )
    )
    assert {t.state for t in report.trials} == {"budget"}
