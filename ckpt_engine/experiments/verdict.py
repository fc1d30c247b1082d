"""Who won: paired comparisons against the baseline, corrected for how many and how often.

Every question is a pair: the mean score of a variant's repeats on it against the baseline's. With a
single question its repeats are the pairs. The confidence interval is Student's for paired samples,
the p value is that of the exact sign-flip test, both from SciPy and both divided (Bonferroni) over
variants times looks; a variant wins where both agree. Needs the ``experiments`` extra.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .report import Comparison, Trial, Verdict
from .spec import Design

__all__ = ["compare", "decide", "pairs_of"]

_RESAMPLES = 9999  # so that up to 13 pairs are tested exactly


def pairs_of(
    trials: Sequence[Trial], variant: str, baseline: str
) -> tuple[list[float], list[float]]:
    """Return the scores of a variant and of the baseline where both have one, pair by pair."""
    questions = {trial.question for trial in trials}
    scores: dict[str, dict[Any, list[float]]] = {variant: defaultdict(list)}
    scores.setdefault(baseline, defaultdict(list))
    for trial in trials:
        if trial.variant in scores and trial.score is not None:
            unit = trial.question if len(questions) > 1 else trial.repeat
            scores[trial.variant][unit].append(trial.score)
    both = [unit for unit in scores[baseline] if unit in scores[variant]]
    mine, other = (
        [math.fsum(scores[name][unit]) / len(scores[name][unit]) for unit in both]
        for name in (variant, baseline)
    )
    return mine, other


def compare(
    variant: str, mine: Sequence[float], other: Sequence[float], *, alpha: float, tests: int
) -> Comparison:
    """Return how a variant's scores differ from the baseline's, pair by pair.

    Args:
        variant: Its name.
        mine: Its scores.
        other: The baseline's, in the same order.
        alpha: Chance of any false verdict that is accepted.
        tests: How many tests share it.
    """
    differences = [a - b for a, b in zip(mine, other, strict=True)]
    if not differences:
        return Comparison(variant=variant, pairs=0)
    mean = math.fsum(differences) / len(differences)
    if len(differences) < 2:
        return Comparison(variant=variant, pairs=1, difference=mean)
    low, high = _interval(mine, other, 1 - alpha / tests)
    p = min(1.0, _chance(mine, other) * tests)
    return Comparison(
        variant=variant,
        pairs=len(differences),
        difference=mean,
        low=low,
        high=high,
        p=p,
        better=low > 0 and p <= alpha,
        worse=high < 0 and p <= alpha,
    )


def decide(design: Design, trials: Sequence[Trial]) -> Verdict:
    """Return who won: of the variants that are better than the baseline, the best."""
    tests = (len(design.variants) - 1) * design.looks
    alpha = 1 - design.confidence
    found = [
        compare(name, *pairs_of(trials, name, design.baseline), alpha=alpha, tests=tests)
        for name in design.variants
        if name != design.baseline
    ]
    better = sorted((c for c in found if c.better), key=lambda c: -(c.difference or 0))
    winner = better[0] if better else None
    return Verdict(
        winner=winner.variant if winner else None,
        baseline=design.baseline,
        why=_words(design, found, winner),
        confidence=design.confidence,
        tests=tests,
        comparisons=found,
    )


def _interval(
    mine: Sequence[float], other: Sequence[float], confidence: float
) -> tuple[float, float]:
    from scipy import stats

    differences = [a - b for a, b in zip(mine, other, strict=True)]
    if max(differences) - min(differences) < 1e-12:
        return differences[0], differences[0]  # no spread to speak of; the sign-flip test decides
    interval = stats.ttest_rel(mine, other).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def _chance(mine: Sequence[float], other: Sequence[float]) -> float:
    import numpy as np
    from scipy import stats

    if all(a == b for a, b in zip(mine, other, strict=True)):
        return 1.0
    test = stats.permutation_test(
        (mine, other),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),  # the same data gives the same verdict
    )
    return float(test.pvalue)


def _words(design: Design, found: Sequence[Comparison], winner: Comparison | None) -> str:
    sure = f"{design.confidence:.0%} confidence"
    if winner is not None:
        return (
            f"{winner.variant} is better than {design.baseline} by {_range(winner)}, with {sure} "
            f"over {winner.pairs} pairs"
        )
    known = [c for c in found if c.difference is not None]
    if not known:
        return f"no winner: nothing was scored both with {design.baseline} and with another variant"
    best = max(known, key=lambda c: c.difference or 0)
    if best.low is None:
        return "no winner: one pair is not enough to compare; ask more questions or repeat"
    return (
        f"no winner: with {sure} no variant is better than {design.baseline}; the closest is "
        f"{best.variant} with {_range(best)} over {best.pairs} pairs"
    )


def _range(found: Comparison) -> str:
    return f"{found.difference:+.3g} ({found.low:+.3g} to {found.high:+.3g})"
