"""What goes into and comes out of experiments, their steps and promotions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from ckpt_engine.experiments.budget import Lease
from ckpt_engine.experiments.report import Score, SeedFacts, Spent, Trial
from ckpt_engine.experiments.spec import Design, ExperimentSpec, Price, Scorer
from ckpt_engine.temporal.contract import BranchPoint

__all__ = [
    "CheckAsk",
    "ExperimentInput",
    "GivenScore",
    "JudgeAsk",
    "Judged",
    "MeasureAsk",
    "Measured",
    "Progress",
    "PromoteAsk",
    "ScoreAsk",
    "VerdictAsk",
]


class Progress(BaseModel):
    """An experiment as it crosses continue-as-new.

    Attributes:
        suffix: Drawn once; it tells the branches of one run of an experiment from another's.
        started_at: When it began (ISO 8601, UTC).
        points: Checkpoint id -> where branches start.
        seeds: What the trials start from.
        trials: Every trial.
        spent: Variant (or "" for the judge) -> steps, tokens, billionths of a dollar settled.
        began: Variant -> when its first trial began, in seconds since 1970.
        judging: What the judge has cost.
        looks: How many looks early stopping has had.
        stopped: Variant -> why it was stopped.
        most_at_once: Most trials that ran at the same time.
        notes: What else the report should say.
    """

    suffix: str
    started_at: str
    points: dict[str, BranchPoint] = Field(default_factory=dict)
    seeds: list[SeedFacts] = Field(default_factory=list)
    trials: list[Trial] = Field(default_factory=list)
    spent: dict[str, tuple[int, int, int]] = Field(default_factory=dict)
    began: dict[str, float] = Field(default_factory=dict)
    judging: Spent = Field(default_factory=Spent)
    looks: int = 0
    stopped: dict[str, str] = Field(default_factory=dict)
    most_at_once: int = 0
    notes: list[str] = Field(default_factory=list)


class ExperimentInput(BaseModel):
    """How an experiment is started; ``progress`` is for its own continuations."""

    spec: ExperimentSpec
    progress: Progress | None = None


class CheckAsk(BaseModel):
    """Asks whether a worker can run an experiment."""

    spec: ExperimentSpec
    points: list[BranchPoint]


class MeasureAsk(BaseModel):
    """Asks what a trial took, and whether it began as the seed plus exactly its override.

    Attributes:
        thread: The trial's thread.
        first: Its first checkpoint.
        seed: The seed's id.
        digest: The seed's digest when the experiment began.
        messages: The messages that the override adds.
        state: The keys that it sets.
        prices: Prices of models that have no public one.
    """

    thread: str
    first: str
    seed: str
    digest: str
    messages: list[dict[str, Any]]
    state: dict[str, Any]
    prices: dict[str, Price] = Field(default_factory=dict)


class Measured(BaseModel):
    """What a trial took; ``settled`` is what its lease was charged, in tokens and billionths."""

    head: str
    answer: str
    spent: Spent
    seconds: float
    same_seed: bool
    problem: str = ""
    settled: tuple[int, int] = (0, 0)


class ScoreAsk(BaseModel):
    """Asks for the score of a trial by comparison or by a function of the user's."""

    scorer: Scorer
    expected: Any = None
    seed: str
    head: str
    variant: str
    question: str
    repeat: int


class JudgeAsk(BaseModel):
    """Asks a model which of two answers is better.

    Attributes:
        scorer: The judge.
        question: What was asked.
        expected: The right answer, if the question says one.
        first: Head of the trial whose answer is shown first.
        second: The other's.
        lease: What it may cost.
        prices: Prices of models that have no public one.
    """

    scorer: Scorer
    question: str
    expected: Any = None
    first: str
    second: str
    lease: Lease | None = None
    prices: dict[str, Price] = Field(default_factory=dict)


class Judged(BaseModel):
    """What the judge said."""

    better: Literal["first", "second", "tie"]
    why: str = ""
    spent: Spent = Field(default_factory=Spent)
    settled: tuple[int, int] = (0, 0)


class VerdictAsk(BaseModel):
    """Asks who won: variant, question, repeat and score of every scored trial."""

    design: Design
    scores: list[tuple[str, str, int, float]]


class GivenScore(BaseModel):
    """A person's score of a trial; the argument of the update ``score``."""

    trial: str
    score: Score


class PromoteAsk(BaseModel):
    """Makes a branch the one that its session goes on with, or merges it into another thread.

    Attributes:
        experiment_id: Workflow id of the experiment.
        trial: Name of the trial.
        session: Workflow id of the session's address.
        thread: The trial's thread.
        checkpoint: Its head.
        how: ``rewind`` or ``merge``.
        into: Thread or branch name to merge into.
        strategy: Whose value a conflict of a merge takes.
        by: Who decided.
        why: Why.
    """

    experiment_id: str
    trial: str
    session: str
    thread: str
    checkpoint: str
    how: Literal["rewind", "merge"] = "rewind"
    into: str = ""
    strategy: Literal["raise", "ours", "theirs"] = "raise"
    by: str = Field(min_length=1)
    why: str = Field(min_length=1)
