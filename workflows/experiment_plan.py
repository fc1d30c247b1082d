"""The trials of an experiment in their order, and how they stand. Plain bookkeeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ckpt_engine.experiments.report import ENDED, Report, Spent, Trial, VariantRow, Verdict
from ckpt_engine.experiments.spec import ExperimentSpec, JudgeScorer, PersonScorer
from ckpt_engine.temporal.contract import BranchPoint

from .experiment_messages import Progress

__all__ = ["Plan", "report_of"]


class Plan:
    """Which trial is next, what each is given, and what has become of them."""

    def __init__(self, spec: ExperimentSpec, progress: Progress) -> None:
        self.spec = spec
        self.progress = progress
        self._index()

    def _index(self) -> None:
        self._by_name = {trial.name: trial for trial in self.progress.trials}
        self._number = {name: number for number, name in enumerate(self._by_name)}

    @property
    def trials(self) -> list[Trial]:
        """Every trial, in the order in which they are begun."""
        return self.progress.trials

    def lay_out(self) -> None:
        """Make the trials: question by question, so that pairs are complete when money runs out."""
        self.progress.trials = [
            Trial(variant=variant.name, question=question.name, repeat=repeat)
            for repeat in range(1, self.spec.repeats + 1)
            for question in self.spec.rounds()
            for variant in self.spec.variants
        ]
        self._index()

    def find(self, name: str) -> Trial | None:
        """Return the trial of this name."""
        return self._by_name.get(name)

    def waiting(self) -> list[Trial]:
        """Return the trials that were not begun."""
        return [trial for trial in self.trials if trial.state == "waiting"]

    def unscored(self) -> list[Trial]:
        """Return the trials that wait for a score."""
        return [trial for trial in self.trials if trial.state == "scoring"]

    def ready(self) -> Iterator[Trial]:
        """Yield what could be begun now: answers that a judge can compare, then new trials."""
        if isinstance(self.spec.scorer, JudgeScorer):
            yield from self._comparable()
        yield from self.waiting()

    def _comparable(self) -> Iterator[Trial]:
        for trial in self.unscored():
            other = self.opponent(trial)
            if other is trial:
                trial.score, trial.state, trial.why = 0.5, "scored", "the baseline"
            elif other.state in ENDED and other.state != "scored":
                if other.state == "failed":
                    trial.score, trial.state = 1.0, "scored"
                    trial.why = "the baseline failed"
                else:
                    self.end(trial, "unscored", f"the baseline's trial is {other.state}")
            elif other.state == "scored":
                yield trial

    def opponent(self, trial: Trial) -> Trial:
        """Return the baseline's trial of the same question and repeat."""
        name = f"{self.spec.baseline}/{trial.question}/{trial.repeat}"
        return self._by_name[name]

    def point(self, trial: Trial) -> BranchPoint:
        """Return where a trial starts."""
        facts = next(s for s in self.progress.seeds if trial.question in s.questions)
        return self.progress.points[facts.checkpoint]

    def messages(self, trial: Trial) -> list[dict[str, Any]]:
        """Return the messages that a trial adds to its seed: the question, then the variant's."""
        say = self.spec.question(trial.question).say
        asked = [] if say is None else [{"role": "user", "content": say}]
        return [*asked, *self.spec.variant(trial.variant).spoken()]

    def owner(self, trial: Trial, experiment_id: str, *, judging: bool) -> str:
        """Return a trial's workflow id, which is its thread too."""
        kind = "/judge" if judging else ""
        return f"{experiment_id}/{self.progress.suffix}/{trial.name}{kind}"

    def branch_name(self, trial: Trial) -> str:
        """Return the name of a trial's thread in the session, at most 63 characters long."""
        start = f"{self.spec.name[:12]}-{self.progress.suffix}"
        number = self._number[trial.name]
        return f"{start}.{trial.variant[:20]}.{trial.question[:12]}.{trial.repeat}.{number}"

    def end(self, trial: Trial, state: Any, why: str) -> None:
        """Record that nothing more comes of a trial, and why."""
        trial.state, trial.why = state, why

    def stop(self, variant: str, why: str) -> None:
        """Begin no further trial of a variant."""
        self.progress.stopped[variant] = why
        for trial in self.waiting():
            if trial.variant == variant:
                self.end(trial, "stopped", why)

    def judged(self, spent: Spent) -> None:
        """Add what a judge cost."""
        self.progress.judging = self.progress.judging.plus(spent)

    def scores(self) -> list[tuple[str, str, int, float]]:
        """Return variant, question, repeat and score of every trial that has one."""
        return [
            (trial.variant, trial.question, trial.repeat, trial.score)
            for trial in self.trials
            if trial.score is not None
        ]

    def time_to_look(self) -> bool:
        """Whether the next look of early stopping is due: enough questions are complete."""
        stopping = self.spec.early_stopping
        done = self.progress.looks
        if stopping is None or done >= stopping.looks or not self.trials:
            return False
        size = len(self.spec.variants)
        rounds = len(self.trials) // size
        upto = rounds * (done + 1) // (stopping.looks + 1) * size
        return upto > 0 and all(trial.state in ENDED for trial in self.trials[:upto])

    def deadline(self, variant: str) -> float | None:
        """Return when a variant's time is up, in seconds since 1970."""
        budget, deadlines = self.spec.budget, []
        if budget.total.seconds is not None:
            start = datetime.fromisoformat(self.progress.started_at).timestamp()
            deadlines.append(start + budget.total.seconds)
        began = self.progress.began.get(variant)
        if budget.per_variant.seconds is not None and began is not None:
            deadlines.append(began + budget.per_variant.seconds)
        return min(deadlines, default=None)


def report_of(
    plan: Plan, *, experiment_id: str, state: Any, ended_at: str | None, verdict: Verdict | None
) -> Report:
    """Return the report of an experiment as it stands."""
    spec, progress = plan.spec, plan.progress
    rows = [_row(plan, variant.name) for variant in spec.variants]
    spent = progress.judging
    for row in rows:
        spent = spent.plus(row.spent)
    return Report(
        name=spec.name,
        experiment_id=experiment_id,
        state=state,
        spec_digest=spec.digest(),
        baseline=spec.baseline,
        scorer=spec.scorer.kind,
        ask=spec.scorer.ask if isinstance(spec.scorer, PersonScorer) else "",
        concurrency=spec.concurrency,
        started_at=progress.started_at,
        ended_at=ended_at,
        seeds=progress.seeds,
        variants=rows,
        trials=plan.trials,
        verdict=verdict,
        spent=spent,
        most_at_once=progress.most_at_once,
        notes=progress.notes[-50:],
    )


def _row(plan: Plan, name: str) -> VariantRow:
    trials = [trial for trial in plan.trials if trial.variant == name]
    scores = [trial.score for trial in trials if trial.score is not None]
    spent = Spent()
    for trial in trials:
        spent = spent.plus(trial.spent)
    return VariantRow(
        name=name,
        trials=len(trials),
        states=dict(Counter(trial.state for trial in trials)),
        mean=sum(scores) / len(scores) if scores else None,
        spent=spent,
        seconds=sum(trial.seconds for trial in trials),
        differs=plan.spec.variant(name).model_dump(exclude_defaults=True, exclude={"name"}),
        stopped=plan.progress.stopped.get(name, ""),
    )
