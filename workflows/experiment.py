"""Experiments: many branches from one checkpoint, scored, compared, and the best promoted.

The workflow keeps names and small numbers only. It starts each trial as a branch of the session, so
every trial is looked at, rewound and branched like any other thread.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
)
from temporalio.exceptions import TimeoutError as TimeoutFailure

with workflow.unsafe.imports_passed_through():
    from ckpt_engine.errors import CheckpointError
    from ckpt_engine.experiments.budget import Amount, Lease, Ledger
    from ckpt_engine.experiments.report import Report, Score, SeedFacts, Trial, Verdict
    from ckpt_engine.experiments.spec import JudgeScorer, PersonScorer, PythonScorer, Seed
    from ckpt_engine.temporal.branching import find_branch_point, prepare_branch, start_branch
    from ckpt_engine.temporal.contract import BranchPoint, BranchRequest, Overrides, Target

    from .experiment_failures import cause_of, charged_by, settled_with
    from .experiment_messages import (
        CheckAsk,
        ExperimentInput,
        GivenScore,
        JudgeAsk,
        Judged,
        MeasureAsk,
        Measured,
        Progress,
        ScoreAsk,
        VerdictAsk,
    )
    from .experiment_plan import Plan, report_of

__all__ = ["ExperimentWorkflow"]

_QUICK: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=1),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30)),
}
_TRIES = RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=3)


@workflow.defn
class ExperimentWorkflow:
    """Runs an experiment to its verdict; cancelling it ends it with a report of what there is."""

    @workflow.init
    def __init__(self, input: ExperimentInput) -> None:
        self._spec = input.spec
        self._fresh = input.progress is None
        progress = input.progress or Progress(
            suffix=f"{workflow.new_random('experiment').getrandbits(16):04x}",
            started_at=workflow.now().isoformat(timespec="seconds"),
        )
        self._plan = Plan(self._spec, progress)
        self._ledger = Ledger(self._spec.budget, self._spec.prices)
        for variant, amount in progress.spent.items():
            self._ledger.restore(variant, Amount(*amount))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed = False
        self._state: Any = "running"
        self._verdict: Verdict | None = None

    @workflow.run
    async def run(self, input: ExperimentInput) -> Report:
        """Run every trial, score it, and return the report with the verdict.

        Raises:
            ApplicationError: The experiment cannot be run as it is specified; nothing was started.
        """
        del input
        try:
            if self._fresh:
                await self._prepare()
            await self._work()
            self._state = "finished"
        except asyncio.CancelledError:
            await self._stop()
            self._state = "canceled"
        if self._plan.progress.trials:
            self._verdict = await self._judge_all()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.report()

    @workflow.query
    def report(self) -> Report:
        """Return the experiment as it stands."""
        ended = None if self._state == "running" else workflow.now().isoformat(timespec="seconds")
        return report_of(
            self._plan,
            experiment_id=workflow.info().workflow_id,
            state=self._state,
            ended_at=ended,
            verdict=self._verdict,
        )

    @workflow.update
    def score(self, given: GivenScore) -> Trial:
        """Take a person's score of a trial that waits for one."""
        trial = self._plan.find(given.trial)
        assert trial is not None  # the validator has looked
        self._scored(trial, given.score)
        return trial

    @score.validator
    def _check_score(self, given: GivenScore) -> None:
        trial = self._plan.find(given.trial)
        if not isinstance(self._spec.scorer, PersonScorer):
            raise ApplicationError(f"trials are scored by {self._spec.scorer.kind}", type="scorer")
        if trial is None or trial.state != "scoring":
            waiting = [t.name for t in self._plan.trials if t.state == "scoring"]
            listed = ", ".join(waiting[:5]) or "none"
            raise ApplicationError(
                f"{given.trial!r} does not wait for a score; these do: {listed}", type="trial"
            )

    # Before

    async def _prepare(self) -> None:
        progress = self._plan.progress
        points: dict[Seed, str] = {}
        for question in self._spec.rounds():
            seed = question.seed or self._spec.seed
            assert seed is not None
            if seed not in points:
                point = await _point(seed)
                points[seed] = point.checkpoint
                progress.points[point.checkpoint] = point
                progress.seeds.append(_facts(point))
            facts = next(s for s in progress.seeds if s.checkpoint == points[seed])
            facts.questions.append(question.name)
        ask = CheckAsk(spec=self._spec, points=list(progress.points.values()))
        await workflow.execute_activity("experiment_check", ask, **_QUICK)
        self._plan.lay_out()

    # Trials

    async def _work(self) -> None:
        plan = self._plan
        while True:
            await self._look()
            self._begin()
            if not self._running and not plan.waiting() and not plan.unscored():
                return
            if workflow.info().is_continue_as_new_suggested() and not self._running:
                await workflow.wait_condition(workflow.all_handlers_finished)
                plan.progress.spent = self._ledger.settled()
                workflow.continue_as_new(ExperimentInput(spec=self._spec, progress=plan.progress))
            self._changed = False
            try:
                await workflow.wait_condition(lambda: self._changed, timeout=self._next_deadline())
            except TimeoutError:
                self._out_of_time()

    def _begin(self) -> None:
        """Start what can be started now; a history that grows long is brought to a pause."""
        if workflow.info().is_continue_as_new_suggested():
            return
        for trial in self._plan.ready():
            free = self._spec.concurrency - len(self._running)
            if free < 1:
                return
            judging = trial.state == "scoring"
            owner = self._owner(trial)
            if owner in self._running:
                continue
            lease: Lease | None = None
            if self._ledger.keeps:
                payer = "" if judging else trial.variant
                lease = self._ledger.lease(owner, payer, sharing=free)
                if lease is None:
                    if self._ledger.exhausted(payer):
                        self._plan.end(trial, "budget", "the budget is used up")
                    continue
            self._start(trial, owner, lease, judging=judging)

    def _owner(self, trial: Trial) -> str:
        judging = trial.state == "scoring"
        return self._plan.owner(trial, workflow.info().workflow_id, judging=judging)

    def _start(self, trial: Trial, owner: str, lease: Lease | None, *, judging: bool) -> None:
        if not judging:
            trial.state = "running"
            self._plan.progress.began.setdefault(trial.variant, workflow.time())
        work = self._judge(trial, owner, lease) if judging else self._trial(trial, owner, lease)
        self._running[owner] = asyncio.create_task(work)
        self._running[owner].add_done_callback(lambda task: self._ended(owner, task))
        progress = self._plan.progress
        progress.most_at_once = max(progress.most_at_once, len(self._running))

    def _ended(self, owner: str, task: asyncio.Task[None]) -> None:
        del self._running[owner]
        self._changed = True
        if not task.cancelled() and task.exception() is not None:
            self._plan.progress.notes.append(f"{owner}: {task.exception()}")

    async def _trial(self, trial: Trial, owner: str, lease: Lease | None) -> None:
        settled: Amount | None = None
        try:
            point = self._plan.point(trial)
            trial.workflow_id = owner
            failure = await self._run(trial, point, lease)
            if trial.first:
                measured = await self._measure(trial, point)
                settled = settled_with(measured, failure, trial.spent.steps)
            else:
                settled = Amount()  # it was refused before it began
            self._outcome(trial, failure)
        except asyncio.CancelledError:
            self._plan.end(trial, "canceled", "the experiment was cancelled")
            if trial.first:
                await self._measure(trial, self._plan.point(trial))
        except FailureError as err:
            self._plan.end(trial, "unscored", f"it could not be measured: {cause_of(err)}")
        finally:
            if lease is not None:
                self._ledger.settle(owner, settled)
        if trial.state == "scoring" and not isinstance(
            self._spec.scorer, PersonScorer | JudgeScorer
        ):
            await self._score(trial)

    async def _run(
        self, trial: Trial, point: BranchPoint, lease: Lease | None
    ) -> BaseException | None:
        """Run a trial's agent to its end; return what it failed with."""
        variant = self._spec.variant(trial.variant)
        request = BranchRequest(
            at=Target(checkpoint=point.checkpoint),
            name=self._plan.branch_name(trial),
            overrides=Overrides(
                messages=self._plan.messages(trial),
                state=variant.state_patch(),
                next_node=variant.next_node,
            ),
            reason=f"experiment {self._spec.name}: {trial.name}",
        )
        memo: dict[str, Any] = {"experiment": workflow.info().workflow_id, "trial": trial.name}
        if lease is not None:
            memo["lease"] = lease
        try:
            made = await prepare_branch(point, request, workflow_id=trial.workflow_id)
            assert made.seed is not None
            trial.first, trial.branch = made.seed.parents[0], made.seed.branch
            handle = await start_branch(
                point, made, memo=memo, execution_timeout=self._time_left(trial.variant)
            )
            await handle
        except (CheckpointError, FailureError) as err:
            if isinstance(err, ChildWorkflowError) and isinstance(err.cause, CancelledError):
                return err.cause
            return err
        return None

    def _outcome(self, trial: Trial, failure: BaseException | None) -> None:
        if failure is None:
            trial.state = "scoring"
            return
        cause = cause_of(failure)
        if isinstance(cause, CancelledError):
            self._plan.end(trial, "canceled", "its workflow was cancelled")
        elif isinstance(failure.__cause__, TimeoutFailure):
            self._plan.end(trial, "budget", "the time is used up")
        elif isinstance(cause, ApplicationError) and cause.type == "budget":
            self._plan.end(trial, "budget", cause.message)
        else:
            trial.score = self._spec.failure_score
            self._plan.end(trial, "failed", str(getattr(cause, "message", None) or cause)[:500])

    async def _measure(self, trial: Trial, point: BranchPoint) -> Measured:
        ask = MeasureAsk(
            thread=trial.workflow_id,
            first=trial.first,
            seed=point.checkpoint,
            digest=point.digest,
            messages=self._plan.messages(trial),
            state=self._spec.variant(trial.variant).state_patch(),
            prices=self._spec.prices,
        )
        found: Measured = await workflow.execute_activity(
            "experiment_measure", ask, result_type=Measured, **_QUICK
        )
        trial.head, trial.answer, trial.spent = found.head, found.answer, found.spent
        trial.seconds, trial.same_seed = found.seconds, found.same_seed
        if found.problem:
            self._plan.progress.notes.append(f"{trial.name}: {found.problem}")
        return found

    # Scores

    async def _score(self, trial: Trial) -> None:
        scorer, question = self._spec.scorer, self._spec.question(trial.question)
        limit = scorer.timeout if isinstance(scorer, PythonScorer) else 300
        ask = ScoreAsk(
            scorer=scorer,
            expected=self._spec.expected(question),
            seed=self._plan.point(trial).checkpoint,
            head=trial.head,
            variant=trial.variant,
            question=trial.question,
            repeat=trial.repeat,
        )
        try:
            score: Score = await workflow.execute_activity(
                "experiment_score",
                ask,
                result_type=Score,
                start_to_close_timeout=timedelta(seconds=limit),
                retry_policy=_TRIES,
            )
        except ActivityError as err:
            self._plan.end(trial, "unscored", f"the scorer failed: {cause_of(err)}"[:500])
        else:
            self._scored(trial, score)

    def _scored(self, trial: Trial, score: Score) -> None:
        trial.score, trial.why, trial.by = score.value, score.why[:500], score.by
        trial.state = "scored"
        self._changed = True

    async def _judge(self, trial: Trial, owner: str, lease: Lease | None) -> None:
        """Let a model compare a trial's answer with the baseline's, in random order."""
        other = self._plan.opponent(trial)
        swapped = workflow.random().random() < 0.5
        first, second = (other, trial) if swapped else (trial, other)
        question = self._spec.question(trial.question)
        ask = JudgeAsk(
            scorer=self._spec.scorer,
            question=question.say or "",
            expected=question.expected,
            first=first.head,
            second=second.head,
            lease=lease,
            prices=self._spec.prices,
        )
        settled: Amount | None = None
        try:
            said: Judged = await workflow.execute_activity(
                "experiment_judge",
                ask,
                result_type=Judged,
                start_to_close_timeout=timedelta(minutes=10),
                heartbeat_timeout=timedelta(seconds=60),
                retry_policy=_TRIES,
            )
        except ActivityError as err:
            cause = cause_of(err)
            state: Any = "budget" if getattr(cause, "type", "") == "budget" else "unscored"
            settled = charged_by(cause)
            self._plan.end(trial, state, f"the judge failed: {cause}"[:500])
        else:
            settled = Amount(0, *said.settled)
            self._plan.judged(said.spent)
            value = 0.5 if said.better == "tie" else float((said.better == "first") != swapped)
            shown = "second" if swapped else "first"
            by = f"judge {getattr(self._spec.scorer, 'model', '')}, shown {shown}"
            self._scored(trial, Score(value=value, why=said.why, by=by))
        finally:
            if lease is not None:
                self._ledger.settle(owner, settled)

    async def _judge_all(self) -> Verdict:
        ask = VerdictAsk(design=self._spec.design(), scores=self._plan.scores())
        verdict: Verdict = await workflow.execute_activity(
            "experiment_verdict", ask, result_type=Verdict, **_QUICK
        )
        return verdict

    async def _look(self) -> None:
        """Stop the variants that are hopeless, where it is time to look."""
        if not self._plan.time_to_look():
            return
        self._plan.progress.looks += 1
        verdict = await self._judge_all()
        for found in verdict.comparisons:
            if found.worse:
                self._plan.stop(
                    found.variant,
                    f"worse than {verdict.baseline} by {-(found.difference or 0):.3g} after "
                    f"{found.pairs} pairs",
                )

    # Time

    def _time_left(self, variant: str) -> timedelta | None:
        deadline = self._plan.deadline(variant)
        limits = [self._spec.budget.per_trial.seconds]
        if deadline is not None:
            limits.append(max(1.0, deadline - workflow.time()))
        least = min((limit for limit in limits if limit is not None), default=None)
        return None if least is None else timedelta(seconds=least)

    def _next_deadline(self) -> float | None:
        """Return the seconds until waiting trials run out of time."""
        pending = {trial.variant for trial in (*self._plan.waiting(), *self._plan.unscored())}
        deadlines = [d for v in pending if (d := self._plan.deadline(v)) is not None]
        return max(0.1, min(deadlines) - workflow.time()) if deadlines else None

    def _out_of_time(self) -> None:
        for trial in (*self._plan.waiting(), *self._plan.unscored()):
            deadline = self._plan.deadline(trial.variant)
            running = self._owner(trial) in self._running
            if deadline is not None and deadline <= workflow.time() and not running:
                self._plan.end(trial, "budget", "the time is used up")

    async def _stop(self) -> None:
        """End everything that runs, gracefully, after a cancellation."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await workflow.wait(running)
        for trial in (*self._plan.waiting(), *self._plan.unscored()):
            self._plan.end(trial, "canceled", "the experiment was cancelled")


async def _point(seed: Seed) -> BranchPoint:
    target = Target(
        checkpoint=seed.checkpoint,
        step=seed.step,
        back=seed.back,
        tag=seed.tag,
        thread=seed.thread,
    )
    return await find_branch_point(target, session=seed.session)


def _facts(point: BranchPoint) -> SeedFacts:
    return SeedFacts(
        questions=[],
        session=point.session,
        workflow_id=point.workflow_id,
        checkpoint=point.checkpoint,
        step=point.step,
        digest=point.digest,
    )
