"""What an experiment is: the schema of its specification, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "Budget",
    "ComparisonScorer",
    "Design",
    "EarlyStopping",
    "ExperimentSpec",
    "JudgeScorer",
    "Limits",
    "PersonScorer",
    "Price",
    "PythonScorer",
    "Question",
    "Scorer",
    "Seed",
    "Variant",
]

MOST_TRIALS = 3000
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,23}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seed(_Strict):
    """A checkpoint of any thread, running or finished: exactly one of the last four.

    Attributes:
        session: Workflow id, thread or session; not needed with a checkpoint's id.
        thread: Another thread of that session than the active one.
        checkpoint: Its id, or the start of one.
        step: A step number.
        back: So many steps before the head.
        tag: A tag.
    """

    session: str | None = None
    thread: str | None = None
    checkpoint: str | None = None
    step: int | None = Field(default=None, ge=0)
    back: int | None = Field(default=None, ge=0)
    tag: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Seed:
        given = [self.checkpoint, self.step, self.back, self.tag]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of checkpoint, step, back and tag")
        if self.session is None and self.checkpoint is None:
            raise ValueError("step, back and tag need a session")
        return self


class Variant(_Strict):
    """One way to go on from the checkpoint: what it changes, and nothing else.

    Attributes:
        name: Its name.
        model: The model to ask.
        instructions: The system instructions.
        settings: Model settings, in place of all earlier ones.
        tools: Names of the tools that the agent may use; all of them when absent.
        say: What a person says, after the question.
        messages: Extra messages, JSON objects, after those.
        state: Keys of the state to set.
        next_node: Where to go on, in place of the checkpoint's own.
    """

    name: Name
    model: str | None = None
    instructions: str | None = None
    settings: dict[str, Any] | None = None
    tools: list[str] | None = None
    say: list[str] = Field(default_factory=list)
    messages: list[dict[str, Any]] = Field(default_factory=list)
    state: dict[str, Any] = Field(default_factory=dict)
    next_node: str | None = None

    @field_validator("say", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def state_patch(self) -> dict[str, Any]:
        """Return the keys of the state that it sets."""
        named = {
            "model": self.model,
            "instructions": self.instructions,
            "settings": self.settings,
            "tools": self.tools,
        }
        return {**self.state, **{k: v for k, v in named.items() if v is not None}}

    def spoken(self) -> list[dict[str, Any]]:
        """Return the messages that it adds."""
        return [*({"role": "user", "content": text} for text in self.say), *self.messages]


class Question(_Strict):
    """One thing that every variant is asked; variants are compared question by question.

    Attributes:
        name: Its name.
        say: What a person says at the checkpoint, before a variant's own messages.
        expected: The right answer, for the scorer.
        seed: A checkpoint of its own (``from``), in place of the experiment's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Name
    say: str | None = None
    expected: Any = None
    seed: Seed | None = Field(default=None, alias="from")


class ComparisonScorer(_Strict):
    """Compares the answer with what is expected: 1 or 0.

    Attributes:
        kind: ``exact`` (the whole text, apart from space around it), ``contains``, ``regex`` (found
            anywhere; ``expected`` is the pattern) or ``json`` (the answer is, or has in it, that
            JSON value; numbers may differ by ``tolerance``).
        expected: For questions that say none of their own.
        ignore_case: Whether capitals do not matter.
        tolerance: Largest relative difference between equal numbers.
    """

    kind: Literal["exact", "contains", "regex", "json"]
    expected: Any = None
    ignore_case: bool = False
    tolerance: float = Field(default=1e-9, ge=0)


class PythonScorer(_Strict):
    """A function of yours, called where the worker runs.

    Attributes:
        kind: ``python``.
        function: ``module:function``; called with a ``ScoreRequest`` and returns a number, or a
            ``Score``. Sync or async.
        timeout: Seconds it may take.
    """

    kind: Literal["python"]
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    timeout: float = Field(default=300.0, gt=0, le=86_400)


class JudgeScorer(_Strict):
    """A model compares each answer with the baseline's, the two in random order.

    The score is 1 where the variant's answer is better, 0.5 for a tie, 0 where it is worse.

    Attributes:
        kind: ``judge``.
        model: The judge.
        criteria: What makes an answer better.
        settings: Its model settings.
    """

    kind: Literal["judge"]
    model: str
    criteria: str = "The better answer is correct, complete and to the point."
    settings: dict[str, Any] = Field(default_factory=dict)


class PersonScorer(_Strict):
    """A person: the experiment waits for the update ``score`` (``ckpt experiment score``).

    Attributes:
        kind: ``person``.
        ask: What the person is to judge, shown by ``ckpt experiment status``.
    """

    kind: Literal["person"]
    ask: str = ""


Scorer = Annotated[
    ComparisonScorer | PythonScorer | JudgeScorer | PersonScorer, Field(discriminator="kind")
]


class Limits(_Strict):
    """Most that may be spent; what is absent has no limit.

    Attributes:
        steps: Steps.
        tokens: Tokens, read and written.
        money: US dollars.
        seconds: Seconds on the clock.
    """

    steps: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)


class Budget(_Strict):
    """Limits that hold: what a step can cost at most is reserved before it is begun.

    Attributes:
        total: For the whole experiment, a judge included.
        per_variant: For all trials of one variant; seconds count from its first trial on.
        per_trial: For one trial, and what is reserved for it; a fair share when absent.
    """

    total: Limits = Limits()
    per_variant: Limits = Limits()
    per_trial: Limits = Limits()


class Price(_Strict):
    """What a model costs that has no public price.

    Attributes:
        input: US dollars for a million tokens read.
        output: US dollars for a million tokens written.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class EarlyStopping(_Strict):
    """Stops variants that are surely worse than the baseline; each look makes the test stricter.

    Attributes:
        looks: How often to look before the end, evenly spread over the questions.
    """

    looks: int = Field(default=2, ge=1, le=20)


class Design(_Strict):
    """What a verdict needs to know of an experiment.

    Attributes:
        variants: Names of the variants.
        baseline: The one that the others are compared with.
        confidence: Of the verdict as a whole.
        looks: How often it is looked at, the last time included.
    """

    variants: list[str]
    baseline: str
    confidence: float
    looks: int = 1


class ExperimentSpec(_Strict):
    """Many variants from one checkpoint.

    Attributes:
        name: Names the experiment; the same name is the same experiment.
        seed: The checkpoint to start from (``from``).
        variants: The ways to go on, at least two.
        baseline: The variant that the others are compared with; the first when absent.
        questions: What each is asked; one round without a question when absent.
        repeats: How often each variant is asked each question.
        concurrency: Most trials at once.
        scorer: How an answer becomes a number; more is better.
        failure_score: The score of a trial whose agent failed.
        budget: What may be spent.
        prices: Prices of models that have no public one.
        confidence: Of the verdict as a whole, such as 0.95.
        early_stopping: Whether, and how often, to stop hopeless variants.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Name
    seed: Seed | None = Field(default=None, alias="from")
    variants: list[Variant] = Field(min_length=2)
    baseline: str = Field(default="", validate_default=True)
    questions: list[Question] = Field(default_factory=list)
    repeats: int = Field(default=1, ge=1, le=1000)
    concurrency: int = Field(default=4, ge=1, le=1000)
    scorer: Scorer
    failure_score: float = 0.0
    budget: Budget = Budget()
    prices: dict[str, Price] = Field(default_factory=dict)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    early_stopping: EarlyStopping | None = None

    @field_validator("variants", "questions")
    @classmethod
    def _unique(cls, items: list[Any]) -> list[Any]:
        seen: set[str] = set()
        for item in items:
            if item.name in seen:
                raise ValueError(f"two are called {item.name!r}")
            seen.add(item.name)
        return items

    @field_validator("baseline", mode="after")
    @classmethod
    def _known(cls, name: str, info: Any) -> str:
        names = [variant.name for variant in info.data.get("variants", ())]
        if name and names and name not in names:
            raise ValueError(f"no variant is called {name!r}; there are {', '.join(names)}")
        return name or (names[0] if names else "")

    @model_validator(mode="after")
    def _possible(self) -> ExperimentSpec:
        count = len(self.variants) * len(self.rounds()) * self.repeats
        if count > MOST_TRIALS:
            raise ValueError(f"{count} trials are too many for one experiment: {MOST_TRIALS}")
        without = [q.name for q in self.rounds() if q.seed is None]
        if self.seed is None and without:
            raise ValueError(f"`from` is missing, and questions have none: {_some(without)}")
        if isinstance(self.scorer, ComparisonScorer):
            self._check_expected(self.scorer)
        return self

    def _check_expected(self, scorer: ComparisonScorer) -> None:
        without = [q.name for q in self.rounds() if self.expected(q) is None]
        if without:
            raise ValueError(f"the scorer {scorer.kind} needs `expected`; not in {_some(without)}")
        if scorer.kind == "regex":
            for question in self.rounds():
                try:
                    re.compile(str(self.expected(question)))
                except re.error as err:
                    raise ValueError(f"{question.name}: not a regular expression: {err}") from None

    def rounds(self) -> list[Question]:
        """Return the questions, or the one nameless round of an experiment without any."""
        return self.questions or [Question(name="q1")]

    def expected(self, question: Question) -> Any:
        """Return what a comparison expects."""
        if question.expected is not None or not isinstance(self.scorer, ComparisonScorer):
            return question.expected
        return self.scorer.expected

    def variant(self, name: str) -> Variant:
        """Return the variant of this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def question(self, name: str) -> Question:
        """Return the question of this name."""
        return next(question for question in self.rounds() if question.name == name)

    def design(self) -> Design:
        """Return what a verdict needs to know."""
        return Design(
            variants=[variant.name for variant in self.variants],
            baseline=self.baseline,
            confidence=self.confidence,
            looks=1 + (self.early_stopping.looks if self.early_stopping else 0),
        )

    def digest(self) -> str:
        """Return 32 hex digits that are equal for equal specifications."""
        text = self.model_dump_json(by_alias=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
