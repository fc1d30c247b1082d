"""A scorer of the user's, and a model as judge."""

from __future__ import annotations

import json
from typing import Any

from werkzeug import Request, Response

from ..agent.conftest import ChatServer, completion, error
from .conftest import App
from .test_workflow import TABLES, questions, spec

TWO = [
    {"name": "whole", "settings": {"decimals": 0}},
    {"name": "exact", "settings": {"decimals": 2}},
]


async def test_a_function_of_the_users_scores(shipped: App) -> None:
    base = await shipped.session(TABLES)
    variants = [{"name": "long"}, {"name": "short", "instructions": "One sentence."}]
    scorer = {"kind": "python", "function": "tests.experiments.scorers:shorter"}
    report = await shipped.run(
        spec(base.checkpoint, variants=variants, scorer=scorer, questions=questions(6))
    )
    assert report.verdict is not None
    assert report.verdict.winner == "short"
    assert all(t.why.endswith("messages more") for t in report.trials)
    assert {t.by for t in report.trials} == {"tests.experiments.scorers:shorter"}


async def test_a_scorer_that_fails_leaves_its_trial_unscored(shipped: App) -> None:
    base = await shipped.session(TABLES)
    scorer = {"kind": "python", "function": "tests.experiments.scorers:picky"}
    report = await shipped.run(
        spec(
            base.checkpoint,
            variants=[{"name": "a"}, {"name": "b"}],
            scorer=scorer,
            questions=questions(1),
        )
    )
    a, b = report.trials
    assert (a.state, a.score) == ("scored", 1)
    assert (b.state, b.score) == ("unscored", None)
    assert "cannot say" in b.why


def judging(request: Request) -> Response:
    """A judge for whom the answer with decimals is better, wherever it stands."""
    asked = json.loads(json.loads(request.get_data())["messages"][-1]["content"])
    decimals = {side: asked[side].split(" is ")[1].count(".") for side in ("first", "second")}
    better = max(decimals, key=lambda side: decimals[side])
    said = completion(json.dumps({"better": better, "why": "it is exact"}))
    return Response(json.dumps(said), content_type="application/json")


async def test_a_judge_is_paid_from_the_total_too(shipped: App, chat: ChatServer) -> None:
    base = await shipped.session(TABLES)
    chat.then(judging)
    scorer = {"kind": "judge", "model": "ollama:tiny", "settings": {"max_tokens": 200_000}}
    report = await shipped.run(
        spec(
            base.checkpoint,
            variants=TWO,
            scorer=scorer,
            questions=questions(1),
            budget={"total": {"tokens": 150_000}, "per_trial": {"tokens": 40_000}},
        )
    )
    exact = next(t for t in report.trials if t.variant == "exact")
    assert (exact.state, exact.score) == ("scored", 1)
    (request,) = chat.requests
    limit = request.get("max_completion_tokens") or request["max_tokens"]
    assert limit < 40_000  # what its lease pays, not what it asked for


async def test_a_model_judges_in_random_order(shipped: App, chat: ChatServer) -> None:
    base = await shipped.session(TABLES)
    chat.then(error(503, "busy"), *[judging] * 12)
    scorer = {"kind": "judge", "model": "ollama:tiny", "criteria": "Exact is better."}
    report = await shipped.run(
        spec(
            base.checkpoint,
            variants=TWO,
            scorer=scorer,
            questions=questions(12),
            budget={"total": {"tokens": 5_000_000}},
        )
    )
    scores = {t.name: t.score for t in report.trials}
    assert {s for name, s in scores.items() if name.startswith("whole")} == {0.5}
    assert {s for name, s in scores.items() if name.startswith("exact")} == {1.0}
    assert report.verdict is not None
    assert report.verdict.winner == "exact"
    judged = [t.by for t in report.trials if t.variant == "exact"]
    assert set(judged) == {
        "judge ollama:tiny, shown first",
        "judge ollama:tiny, shown second",
    }
    sent: list[dict[str, Any]] = [json.loads(r["messages"][-1]["content"]) for r in chat.requests]
    assert {one["question"] for one in sent} == {q["say"] for q in questions(12)}
    assert sent[0]["criteria"] == "Exact is better."
    agents = sum(row.spent.output_tokens for row in report.variants)
    assert report.spent.output_tokens == agents + 12 * 7  # the judge's tokens count too
