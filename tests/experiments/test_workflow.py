"""Experiments on a real server with the shipped analyst, from specification to verdict."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.worker import Replayer

from ckpt_agent.worker import POLICIES
from ckpt_agent.workflows.experiment import ExperimentWorkflow
from ckpt_engine.temporal import CheckpointPlugin

from ..agent.test_scripted import in_year
from .conftest import App

TABLES = "Which tables are there?"


def wind(year: int, month: int) -> float:
    rows = [r for r in in_year(year) if r["date"].startswith(f"{year}/{month:02}")]
    return sum(float(r["wind"]) for r in rows) / len(rows)


def questions(count: int) -> list[dict[str, Any]]:
    """Questions whose answers are worked out here, from the data itself."""
    months = ["January", "February", "March", "April", "May", "June", "July", "August"]
    return [
        {
            "name": f"wind-{number}",
            "say": f"What was the average wind in {months[number % 8]} {2012 + number // 8}?",
            "expected": f"{wind(2012 + number // 8, number % 8 + 1):.2f}",
        }
        for number in range(count)
    ]


def spec(checkpoint: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": "decimals",
        "from": {"checkpoint": checkpoint},
        "questions": questions(7),
        "variants": [
            {"name": "whole", "settings": {"decimals": 0}},
            {"name": "exact", "settings": {"decimals": 2}},
            {"name": "short", "settings": {"decimals": 0}, "instructions": "One sentence."},
        ],
        "scorer": {"kind": "contains"},
        "concurrency": 3,
        **changed,
    }


async def test_variants_are_scored_and_the_better_one_wins(shipped: App) -> None:
    base = await shipped.session(TABLES)
    report = await shipped.run(spec(base.checkpoint))
    assert report.state == "finished"
    assert report.verdict is not None
    assert report.verdict.winner == "exact", report.verdict
    assert "exact is better than whole by +1" in report.verdict.why
    assert {t.state for t in report.trials} == {"scored"}
    assert {row.name: row.mean for row in report.variants} == {"whole": 0, "exact": 1, "short": 0}
    assert report.most_at_once == 3
    # the same seed, byte for byte, and exactly the override
    seed = await shipped.engine.get(base.checkpoint)
    assert [s.digest for s in report.seeds] == [seed.digest]
    assert all(t.same_seed for t in report.trials)
    short = next(t for t in report.trials if t.variant == "short")
    first = await shipped.engine.get(short.first)
    assert first.messages[:-1] == seed.messages
    assert first.messages[-1]["content"] == questions(1)[0]["say"]
    assert first.state == {
        **seed.state,
        "settings": {"decimals": 0},
        "instructions": "One sentence.",
    }
    # each trial is a branch of the session like any other
    branches = {t.branch for t in await shipped.engine.list_threads(seed.session_id)}
    assert {t.branch for t in report.trials} < branches


async def test_no_winner_is_an_answer(shipped: App) -> None:
    base = await shipped.session(TABLES)
    same = [{"name": "one", "settings": {"decimals": 2}}, {"name": "two", "state": {"a": 1}}]
    report = await shipped.run(spec(base.checkpoint, variants=same, questions=questions(3)))
    assert report.verdict is not None
    assert report.verdict.winner is None
    assert report.verdict.why.startswith("no winner: with 95% confidence no variant is better")


async def test_a_variant_that_fails_does_not_fail_the_experiment(shipped: App) -> None:
    base = await shipped.session(TABLES)
    variants = [
        {"name": "fine", "settings": {"decimals": 2}},
        {"name": "broken", "state": {"max_steps": base.steps + 2}},
    ]
    report = await shipped.run(spec(base.checkpoint, variants=variants, questions=questions(6)))
    assert {t.state for t in report.trials if t.variant == "broken"} == {"failed"}
    assert all("no answer after" in t.why for t in report.trials if t.variant == "broken")
    assert report.verdict is not None
    assert report.verdict.comparisons[0].worse


async def test_what_cannot_be_run_is_refused_before_anything_is_started(shipped: App) -> None:
    base = await shipped.session(TABLES)
    threads = await shipped.engine.list_threads(base.thread)
    bad = {
        "no tool magic": spec(base.checkpoint, variants=[{"name": "a"}, _with_tool("magic")]),
        "variant b: next_node must be one of model": spec(
            base.checkpoint, variants=[{"name": "a"}, {"name": "b", "next_node": "nowhere"}]
        ),
        "no checkpoint 00000000": spec("0" * 32),
        "no module 'nowhere'": spec(
            base.checkpoint, scorer={"kind": "python", "function": "nowhere:score"}
        ),
    }
    for message, wrong in bad.items():
        with pytest.raises(WorkflowFailureError) as caught:
            await shipped.run(wrong)
        assert message in innermost(caught.value)
    assert await shipped.engine.list_threads(base.thread) == threads


def _with_tool(name: str) -> dict[str, Any]:
    return {"name": "b", "tools": [name]}


def innermost(err: BaseException) -> str:
    while err.__cause__ is not None:
        err = err.__cause__
    return str(err)


async def test_hopeless_variants_are_stopped_early(shipped: App) -> None:
    base = await shipped.session(TABLES)
    variants = [
        {"name": "exact", "settings": {"decimals": 2}},
        {"name": "whole", "settings": {"decimals": 0}},
    ]
    report = await shipped.run(
        spec(
            base.checkpoint,
            variants=variants,
            questions=questions(16),
            early_stopping={"looks": 1},
            concurrency=2,
        )
    )
    whole = [t for t in report.trials if t.variant == "whole"]
    assert {t.state for t in whole[:8]} == {"scored"}
    assert "stopped" in {t.state for t in whole[8:]}
    assert {t.state for t in report.trials if t.variant == "exact"} == {"scored"}
    row = next(row for row in report.variants if row.name == "whole")
    assert row.stopped.startswith("worse than exact by 1 after 8 pairs")
    assert report.verdict is not None
    assert report.verdict.tests == 2  # one variant, looked at twice


async def test_its_history_replays(shipped: App) -> None:
    base = await shipped.session(TABLES)
    handle = await shipped.start(spec(base.checkpoint, questions=questions(2)))
    await handle.result()
    replayer = Replayer(
        workflows=[ExperimentWorkflow],
        data_converter=shipped.client.data_converter,
        plugins=[CheckpointPlugin("memory:", policies=POLICIES)],
    )
    await replayer.replay_workflow(await handle.fetch_history())
