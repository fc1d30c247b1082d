"""The record of an experiment: what was tried, what came of it, who won and who decided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ENDED",
    "Comparison",
    "Promotion",
    "Report",
    "Score",
    "SeedFacts",
    "Spent",
    "Trial",
    "VariantRow",
    "Verdict",
    "dollars",
]

TrialState = Literal[
    "waiting", "running", "scoring", "scored", "failed", "unscored", "stopped", "budget", "canceled"
]
ENDED = {"scored", "failed", "unscored", "stopped", "budget", "canceled"}


def dollars(amount: float | None) -> str:
    """Return US dollars as text; a dash where no price is known, and nothing spent only as zero."""
    if amount is None:
        return "–"
    return "<$0.0001" if 0 < amount < 0.0001 else f"${amount:.4f}"


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Score(_Value):
    """What a scorer says: a number, more is better, and a reason."""

    value: float = Field(allow_inf_nan=False)
    why: str = ""
    by: str = ""


class Spent(_Value):
    """What was spent; money in US dollars, ``None`` where a model has no known price."""

    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float | None = 0.0

    def plus(self, other: Spent) -> Spent:
        """Return both together."""
        known = self.money is not None and other.money is not None
        return Spent(
            steps=self.steps + other.steps,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            money=(self.money or 0) + (other.money or 0) if known else None,
        )


class Trial(_Value):
    """One variant on one question, once.

    Attributes:
        variant: The variant.
        question: The question.
        repeat: Which repeat, from 1.
        state: How it stands.
        workflow_id: Its workflow, which is its thread as well.
        branch: The thread's name in the session.
        first: Its first checkpoint: the seed with the override.
        head: Its newest checkpoint.
        score: What the scorer said.
        why: The scorer's reason, or what went wrong.
        by: Who scored it, where that was a person or a judge.
        answer: The beginning of its answer.
        spent: What it took.
        seconds: From its first checkpoint to its last.
        same_seed: Whether it began as the seed plus exactly its override; ``None`` if not looked.
    """

    variant: str
    question: str
    repeat: int = 1
    state: TrialState = "waiting"
    workflow_id: str = ""
    branch: str = ""
    first: str = ""
    head: str = ""
    score: float | None = None
    why: str = ""
    by: str = ""
    answer: str = ""
    spent: Spent = Field(default_factory=Spent)
    seconds: float = 0.0
    same_seed: bool | None = None

    @property
    def name(self) -> str:
        """How it is named on the command line."""
        return f"{self.variant}/{self.question}/{self.repeat}"


class SeedFacts(_Value):
    """What the trials of some questions started from.

    Attributes:
        questions: Names of the questions.
        session: Session id.
        workflow_id: The session's address.
        checkpoint: Its id.
        step: Its number.
        digest: Its digest.
    """

    questions: list[str]
    session: str
    workflow_id: str
    checkpoint: str
    step: int
    digest: str


class Comparison(_Value):
    """A variant against the baseline, question by question.

    Attributes:
        variant: The variant.
        pairs: How many questions (or repeats of the only one) both were scored on.
        difference: Mean of the differences; above 0 the variant is better.
        low: Lower end of the confidence interval; ``None`` with fewer than two pairs.
        high: Upper end.
        p: Probability of so large a difference by chance (sign-flip test, two-sided), corrected.
        better: Whether it is better, beyond chance.
        worse: Whether it is worse, beyond chance.
    """

    variant: str
    pairs: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    better: bool = False
    worse: bool = False


class Verdict(_Value):
    """Who won, if anybody.

    Attributes:
        winner: The variant that is better than the baseline; ``None`` for no winner.
        baseline: The variant that it was compared with.
        why: In words.
        confidence: Of the verdict as a whole.
        tests: How many tests the confidence is divided over (variants times looks).
        comparisons: Every other variant against the baseline.
    """

    winner: str | None = None
    baseline: str
    why: str
    confidence: float
    tests: int
    comparisons: list[Comparison] = Field(default_factory=list)


class VariantRow(_Value):
    """A variant's trials together."""

    name: str
    trials: int
    states: dict[str, int]
    mean: float | None
    spent: Spent
    seconds: float
    differs: dict[str, Any] = Field(default_factory=dict)
    stopped: str = ""


class Promotion(_Value):
    """That a branch was promoted, and by whom.

    Attributes:
        trial: The trial whose branch it is.
        how: Its session was rewound to it, or it was merged into another thread.
        by: Who decided.
        why: Why.
        at: When (ISO 8601, UTC).
        thread: The thread that goes on with it.
        checkpoint: Its checkpoint.
    """

    trial: str
    how: Literal["rewind", "merge"]
    by: str
    why: str
    at: str
    thread: str
    checkpoint: str


class Report(_Value):
    """An experiment as it stands, or as it ended."""

    name: str
    experiment_id: str
    state: Literal["running", "finished", "canceled"]
    spec_digest: str
    baseline: str
    scorer: str
    ask: str = ""
    concurrency: int
    started_at: str
    ended_at: str | None = None
    seeds: list[SeedFacts] = Field(default_factory=list)
    variants: list[VariantRow] = Field(default_factory=list)
    trials: list[Trial] = Field(default_factory=list)
    verdict: Verdict | None = None
    spent: Spent = Field(default_factory=Spent)
    most_at_once: int = 0
    notes: list[str] = Field(default_factory=list)
