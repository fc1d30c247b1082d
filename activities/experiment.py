"""The steps of experiments: check, measure, score, judge, compare, promote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ckpt_agent.workflows.experiment_messages import (
    CheckAsk,
    JudgeAsk,
    Judged,
    MeasureAsk,
    Measured,
    PromoteAsk,
    ScoreAsk,
    VerdictAsk,
)
from ckpt_agent.workflows.overrides import check_overrides
from ckpt_engine.contrib.agent import AgentSpec
from ckpt_engine.contrib.scorers import load_scorer, score_with
from ckpt_engine.errors import CheckpointError, InvalidRequest, Retryable
from ckpt_engine.experiments.report import Promotion, Score, Spent, Trial, Verdict
from ckpt_engine.experiments.scoring import ScoreRequest, compared, last_text
from ckpt_engine.experiments.spec import (
    Budget,
    ComparisonScorer,
    ExperimentSpec,
    JudgeScorer,
    PythonScorer,
)
from ckpt_engine.model import Checkpoint, CheckpointInfo
from ckpt_engine.temporal import Overrides, RewindRequest, Sessions, Target

from .budget import cost_of, unpriced
from .judge import judge_between
from .model_call import ModelCatalogue

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["ExperimentActivities"]

_AGENT = "AgentWorkflow"
_PREVIEW = 240


class ExperimentActivities:
    """The steps of experiments, for a worker; none of them is a step of an agent.

    Args:
        engine: Returns the open engine.
        spec: The worker's agent.
    """

    def __init__(self, engine: Callable[[], CheckpointEngine], spec: AgentSpec) -> None:
        self._engine = engine
        self._spec = spec
        self._models = ModelCatalogue(spec.named_models())

    def all(self) -> list[Callable[..., Any]]:
        """Return the activities to register."""
        return [self.check, self.measure, self.score, self.judge, self.verdict, self.promote]

    @activity.defn(name="experiment_check")
    async def check(self, ask: CheckAsk) -> None:
        """Refuse an experiment that cannot go well, before anything is started."""
        spec = ask.spec
        try:
            _check_budget(spec.budget, ask)
            if isinstance(spec.scorer, PythonScorer):
                load_scorer(spec.scorer.function)
            if isinstance(spec.scorer, JudgeScorer):
                self._models.get(spec.scorer.model)
            if all(point.workflow_type == _AGENT for point in ask.points):
                self._check_agent(spec)
            await self._check_prices(ask)
        except InvalidRequest as err:
            raise _refused(err) from None

    def _check_agent(self, spec: ExperimentSpec) -> None:
        tools = set(self._spec.toolset().tools)
        for variant in spec.variants:
            try:
                check_overrides(
                    Overrides(
                        messages=variant.spoken(),
                        state=variant.state_patch(),
                        next_node=variant.next_node,
                    )
                )
            except InvalidRequest as err:
                raise InvalidRequest(f"variant {variant.name}: {err}") from None
            if variant.model is not None:
                self._models.get(variant.model)
            if unknown := set(variant.tools or ()) - tools:
                raise InvalidRequest(
                    f"variant {variant.name}: the agent has no tool {', '.join(sorted(unknown))}; "
                    f"it has {', '.join(sorted(tools))}"
                )

    async def _check_prices(self, ask: CheckAsk) -> None:
        spec = ask.spec
        limits = (spec.budget.total, spec.budget.per_variant, spec.budget.per_trial)
        if not any(limit.money for limit in limits):
            return
        for point in ask.points:
            state = (await self._get(point.checkpoint)).state
            for variant in spec.variants:
                asked = {**state, **variant.state_patch()}.get("model") or self._spec.model_name
                if cost_of(str(asked), 1, 1, spec.prices) is None:
                    raise InvalidRequest(f"variant {variant.name}: {unpriced(str(asked))}")

    @activity.defn(name="experiment_measure")
    async def measure(self, ask: MeasureAsk) -> Measured:
        """Return what a trial took, and whether it began as the seed plus exactly its override."""
        engine = self._engine()
        try:
            thread = await engine.get_thread(ask.thread)
            first = await engine.get(ask.first)
            final = await engine.get(thread.head or ask.first)
            own = await engine.path(final.id, limit=max(1, final.step - first.step + 1))
            problem = await _difference(engine, ask, first)
        except CheckpointError as err:
            raise _refused(err) from None
        kept = final.state.get("budget")
        if not isinstance(kept, dict) or kept.get("lease") != ask.thread:
            kept = {"tokens": 0, "nanos": 0}
        return Measured(
            head=final.id,
            answer=(last_text(final.messages) or "")[:_PREVIEW],
            spent=_spent([i for i in own if i.thread_id == ask.thread], ask),
            seconds=(final.created_at - first.created_at).total_seconds(),
            same_seed=not problem,
            problem=problem,
            settled=(kept["tokens"], kept["nanos"]),
        )

    @activity.defn(name="experiment_score")
    async def score(self, ask: ScoreAsk) -> Score:
        """Return the score of a trial, by comparison or by the user's function."""
        final, seed = await self._get(ask.head), await self._get(ask.seed)
        answer = last_text(final.messages)
        if isinstance(ask.scorer, ComparisonScorer):
            return compared(ask.scorer, answer, ask.expected)
        assert isinstance(ask.scorer, PythonScorer)
        request = ScoreRequest(
            final=final,
            seed=seed,
            answer=answer,
            variant=ask.variant,
            question=ask.question,
            expected=ask.expected,
            repeat=ask.repeat,
        )
        try:
            return await score_with(ask.scorer.function, request)
        except InvalidRequest as err:
            raise _refused(err) from None

    @activity.defn(name="experiment_judge")
    async def judge(self, ask: JudgeAsk) -> Judged:
        """Return which of two answers a model finds better."""
        assert isinstance(ask.scorer, JudgeScorer)
        first, second = await self._get(ask.first), await self._get(ask.second)
        answers = [last_text(first.messages) or "", last_text(second.messages) or ""]
        return await judge_between(self._models.get(ask.scorer.model), ask, answers)

    @activity.defn(name="experiment_verdict")
    async def verdict(self, ask: VerdictAsk) -> Verdict:
        """Return who won."""
        from ckpt_engine.experiments.verdict import decide

        trials = [
            Trial(variant=variant, question=question, repeat=repeat, score=score)
            for variant, question, repeat, score in ask.scores
        ]
        return decide(ask.design, trials)

    @activity.defn(name="experiment_promote")
    async def promote(self, ask: PromoteAsk) -> Promotion:
        """Promote a branch; asked again, it answers the same."""
        engine = self._engine()
        try:
            if ask.how == "merge":
                thread, checkpoint = await self._merge(engine, ask)
            else:
                thread, checkpoint = await self._rewind(engine, ask)
            await engine.tag(ask.checkpoint, f"promoted:{ask.experiment_id}")
        except CheckpointError as err:
            raise _refused(err) from None
        return Promotion(
            trial=ask.trial,
            how=ask.how,
            by=ask.by,
            why=ask.why,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            thread=thread,
            checkpoint=checkpoint,
        )

    async def _rewind(self, engine: CheckpointEngine, ask: PromoteAsk) -> tuple[str, str]:
        """Rewind a running session to the branch's head, or continue a closed one from there."""
        request_id = _key(ask)
        found = await engine.find_run(ask.session)
        if found is not None:
            active = await engine.active_thread(found[0].session_id)
            for info in await engine.list_time_travel_points(active.id, limit=1000):
                if info.thread_id == active.id and info.metadata.get("request_id") == request_id:
                    return active.id, info.id  # an earlier attempt did it
        child = await Sessions(activity.client(), engine).rewind(
            ask.session,
            RewindRequest(
                to=Target(checkpoint=ask.checkpoint), request_id=request_id, reason=_reason(ask)
            ),
        )
        return child.thread, (await engine.frontier_at(child.thread, _far))[0]

    async def _merge(self, engine: CheckpointEngine, ask: PromoteAsk) -> tuple[str, str]:
        """Merge the branch into a thread that no running workflow extends."""
        threads = await engine.list_threads(ask.thread)
        into = next((t for t in threads if ask.into in (t.id, t.branch)), None)
        if into is None:
            names = ", ".join(t.branch for t in threads[:20])
            raise InvalidRequest(f"the session has no thread {ask.into!r}; it has {names}")
        if await _runs(engine, into.id):
            raise InvalidRequest(
                f"thread {into.branch!r} is extended by a workflow that runs; promote by rewinding "
                "the session, or merge when it has ended"
            )
        merged = await engine.merge_branch(
            ask.thread,
            into.id,
            strategy=ask.strategy,
            metadata={
                "reason": _reason(ask),
                "promoted_by": ask.by,
                "experiment": ask.experiment_id,
            },
        )
        return into.id, merged.checkpoint_id

    async def _get(self, checkpoint_id: str) -> Checkpoint:
        try:
            return await self._engine().get(checkpoint_id)
        except CheckpointError as err:
            raise _refused(err) from None


_far = 2**31


def _refused(err: CheckpointError) -> ApplicationError:
    return ApplicationError(str(err), type=err.kind, non_retryable=not isinstance(err, Retryable))


def _check_budget(budget: Budget, ask: CheckAsk) -> None:
    limits = (budget.total, budget.per_variant, budget.per_trial)
    kept = any(limit.steps or limit.tokens or limit.money for limit in limits)
    others = {p.workflow_type for p in ask.points if p.workflow_type != _AGENT}
    if kept and others:
        raise InvalidRequest(
            f"budgets of steps, tokens and money are kept by {_AGENT}; {', '.join(others)} knows "
            "nothing of them: only a limit of seconds can be given"
        )


async def _difference(engine: CheckpointEngine, ask: MeasureAsk, first: Checkpoint) -> str:
    """Return in which way a trial did not begin as its seed plus its override; "" if it did."""
    seed = await engine.get_info(ask.seed)
    if seed.digest != ask.digest or first.parents != (seed.id,):
        return "it did not begin at the seed, or the seed is no longer what it was"
    found = await engine.diff(seed.id, first.id)
    if found.messages_removed or list(found.messages_added) != ask.messages:
        return "its messages differ from the seed's by something else than the override"
    changed = {change.key: change.after for change in found.state}
    if not changed.items() <= ask.state.items() or any(c.kind == "removed" for c in found.state):
        return "its state differs from the seed's by something else than the override"
    if any(first.state.get(key) != value for key, value in ask.state.items()):
        return "its override was not applied"
    return ""


def _spent(own: Sequence[CheckpointInfo], ask: MeasureAsk) -> Spent:
    """Add up what the steps of a trial say that they took."""
    total = Spent(steps=sum(1 for info in own if info.id != ask.first))
    for info in own:
        if "model" not in info.metadata or "input_tokens" not in info.metadata:
            continue
        reads, writes = info.metadata["input_tokens"], info.metadata.get("output_tokens", 0)
        cost = cost_of(str(info.metadata["model"]), reads, writes, ask.prices)
        total = total.plus(
            Spent(
                input_tokens=reads,
                output_tokens=writes,
                money=None if cost is None else float(cost),
            )
        )
    return total


async def _runs(engine: CheckpointEngine, thread_id: str) -> bool:
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.service import RPCError, RPCStatusCode

    run = (await engine.runs(thread_id)).get(thread_id)
    if run is None:
        return False
    try:
        found = await activity.client().get_workflow_handle(run.workflow_id).describe()
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return found.status == WorkflowExecutionStatus.RUNNING


def _key(ask: PromoteAsk) -> str:
    return f"promote {ask.experiment_id} {ask.checkpoint}"


def _reason(ask: PromoteAsk) -> str:
    return f"promoted by {ask.by}: {ask.why} (experiment {ask.experiment_id}, trial {ask.trial})"
