"""Who wins: paired, corrected, and honest about too little data."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest
from scipy import stats

from ckpt_engine.experiments import Trial
from ckpt_engine.experiments.report import dollars
from ckpt_engine.experiments.spec import Design
from ckpt_engine.experiments.verdict import compare, decide, pairs_of


def trials(**scores: list[float]) -> list[Trial]:
    return [
        Trial(variant=variant, question=f"q{number}", score=score)
        for variant, values in scores.items()
        for number, score in enumerate(values)
    ]


def design(*variants: str, confidence: float = 0.95, looks: int = 1) -> Design:
    return Design(variants=list(variants), baseline=variants[0], confidence=confidence, looks=looks)


def test_a_clear_winner() -> None:
    verdict = decide(design("a", "b", "c"), trials(a=[0] * 8, b=[1] * 8, c=[0, 1] * 4))
    assert verdict.winner == "b"
    assert verdict.tests == 2
    assert verdict.why == "b is better than a by +1 (+1 to +1), with 95% confidence over 8 pairs"


def test_the_interval_is_students_for_pairs_with_the_correction() -> None:
    mine, other = [3.0, 4.5, 5.0, 7.0, 6.5], [2.0, 3.0, 4.5, 5.0, 5.5]
    found = compare("b", mine, other, alpha=0.05, tests=4)
    gaps = [x - y for x, y in zip(mine, other, strict=True)]
    half = stats.t.ppf(1 - 0.05 / 4 / 2, 4) * stdev(gaps) / len(gaps) ** 0.5
    assert found.difference == pytest.approx(fmean(gaps))
    assert found.low == pytest.approx(fmean(gaps) - half)
    assert found.high == pytest.approx(fmean(gaps) + half)
    # all five differences have the same sign: 2 of the 32 ways to flip them are as extreme
    assert found.p == pytest.approx(4 * 2 / 32)
    assert not found.better


def test_pairs_are_questions_and_only_those_that_both_have() -> None:
    some = [
        Trial(variant="a", question="x", repeat=1, score=1),
        Trial(variant="a", question="x", repeat=2, score=0),
        Trial(variant="b", question="x", repeat=1, score=1),
        Trial(variant="a", question="y", score=1),
        Trial(variant="b", question="z", score=1),
        Trial(variant="b", question="y"),
    ]
    assert pairs_of(some, "b", "a") == ([1], [0.5])


def test_repeats_of_the_only_question_are_the_pairs() -> None:
    some = [
        Trial(variant=v, question="x", repeat=r, score=s)
        for v, s in (("a", 0.0), ("b", 1.0))
        for r in range(1, 8)
    ]
    assert decide(design("a", "b"), some).winner == "b"


def test_too_little_to_compare_is_said() -> None:
    one = decide(design("a", "b"), trials(a=[0], b=[1]))
    assert one.winner is None
    assert one.why == ("no winner: one pair is not enough to compare; ask more questions or repeat")
    none = decide(design("a", "b"), trials(a=[0]))
    assert "nothing was scored both with a and with another variant" in none.why


def test_few_lucky_pairs_do_not_win() -> None:
    verdict = decide(design("a", "b"), trials(a=[0, 0, 0], b=[1, 1, 1]))
    assert verdict.winner is None  # 2 of 8 sign flips are as extreme
    assert verdict.why.startswith("no winner: with 95% confidence no variant is better than a")


def test_more_variants_and_more_looks_ask_for_more() -> None:
    scores = trials(a=[0] * 8, b=[1] * 8)
    assert decide(design("a", "b"), scores).winner == "b"
    assert decide(design("a", "b", looks=7), scores).winner is None
    many = [f"v{number}" for number in range(20)]
    assert decide(design("a", "b", *many), scores).winner is None


def test_of_equal_variants_hardly_ever_one_wins() -> None:
    """Whole experiments with no real difference; 5 % of them at most may be wrong."""
    rng, wrong = random.Random(7), 0
    for _ in range(60):
        scores = {v: [float(rng.random() < 0.5) for _ in range(10)] for v in "abc"}
        wrong += decide(design(*"abc"), trials(**scores)).winner is not None
    assert wrong <= 4


def test_a_small_cost_is_not_shown_as_none() -> None:
    assert [dollars(x) for x in (None, 0, 0.000032, 0.00014, 5)] == [
        "–",
        "$0.0000",
        "<$0.0001",
        "$0.0001",
        "$5.0000",
    ]
