"""What the commands ask of experiments: start or attach, how it stands, who won, promotions."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import CheckpointNotFound, Erased, NotInSession, ThreadNotFound
from .errors import CliError, Exit

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from ckpt_engine.experiments import ExperimentSpec, Report, Trial
    from ckpt_engine.experiments.report import Promotion
    from ckpt_engine.experiments.spec import Seed

    from .settings import Settings

__all__ = [
    "attach",
    "best_trial",
    "code_of",
    "current",
    "experiment_id",
    "find",
    "promotions",
    "read_file",
    "result_of",
    "standing",
]

_PATIENCE = 5.0
_MISSING = {kind.kind for kind in (CheckpointNotFound, Erased, NotInSession, ThreadNotFound)}
_AWAY = "the Temporal server does not answer; the experiment goes on when it is back"


def experiment_id(name: str) -> str:
    """Return the workflow id of an experiment, which its name decides."""
    return name if name.startswith("experiment-") else f"experiment-{name}"


def read_file(path: Path) -> ExperimentSpec:
    """Return the specification in a file.

    Raises:
        CliError: There is no such file, or a library is missing.
        SpecError: It is wrong; the message says where.
    """
    try:
        from ..experiments.reading import read_spec

        return read_spec(path.read_text(), source=str(path))
    except (OSError, UnicodeDecodeError) as err:
        raise CliError(f"cannot read {path}: {err}", "", Exit.USAGE) from None
    except ImportError as err:
        raise CliError(
            f"experiments need {err.name}", "pip install 'ckpt-engine[experiments]'", Exit.USAGE
        ) from None


async def attach(
    client: Client, spec: ExperimentSpec, settings: Settings, *, again: bool
) -> tuple[WorkflowHandle[Any, Report], bool]:
    """Start an experiment, or find the one that was started before; say whether it is new.

    Raises:
        CliError: One of this name was started with another specification.
        CheckpointError: It would begin where there is nothing; nothing was started.
    """
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

    from ckpt_agent.workflows.experiment import ExperimentWorkflow
    from ckpt_agent.workflows.experiment_messages import ExperimentInput

    name = experiment_id(spec.name)
    known = await _described(client, name)
    if known is not None:
        runs = known.status == WorkflowExecutionStatus.RUNNING
        ended = known.status in (
            WorkflowExecutionStatus.COMPLETED,
            WorkflowExecutionStatus.CONTINUED_AS_NEW,
        )
        same = await known.memo_value("spec", default=None) == spec.digest()
        if not same and (runs or (ended and not again)):
            what = "cancel it first" if runs else "or run it anew with --again"
            raise CliError(
                f"the experiment {spec.name!r} was started with another specification",
                f"give it another name, {what}",
                Exit.USAGE,
            )
        if runs or (ended and not again):
            return client.get_workflow_handle_for(ExperimentWorkflow.run, name), False
    await _check_beginnings(client, spec, settings)
    handle = await client.start_workflow(
        ExperimentWorkflow.run,
        ExperimentInput(spec=spec),
        id=name,
        task_queue=settings.task_queue,
        memo={"spec": spec.digest()},
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        static_summary=f"experiment {spec.name}",
    )
    return client.get_workflow_handle_for(ExperimentWorkflow.run, handle.id), True


async def _check_beginnings(client: Client, spec: ExperimentSpec, settings: Settings) -> None:
    """Look for the checkpoints that an experiment begins from, where their database is here."""
    from ..temporal.contract import FindPoint, Target
    from ..temporal.points import branch_point
    from .opening import open_engine

    seeds = {question.seed or spec.seed for question in spec.rounds()} - {None}
    try:
        async with open_engine(settings) as engine:
            for seed in cast("set[Seed]", seeds):
                at = Target.model_validate(seed.model_dump(exclude={"session"}))
                try:
                    await branch_point(engine, FindPoint(at=at, session=seed.session))
                except ThreadNotFound:  # of a worker with another database, if Temporal knows it
                    if seed.session is None or await _described(client, seed.session) is None:
                        raise
    except CliError as err:
        if err.code is not Exit.NO_DATABASE:  # else the worker looks
            raise


async def find(client: Client, name: str) -> WorkflowHandle[Any, Report]:
    """Return an experiment by its name.

    Raises:
        CliError: There is none.
    """
    from ckpt_agent.workflows.experiment import ExperimentWorkflow

    workflow_id = experiment_id(name)
    if await _described(client, workflow_id) is None:
        raise CliError(
            f"no experiment {name!r}", "start one: ckpt experiment run spec.yaml", Exit.NOT_FOUND
        )
    return client.get_workflow_handle_for(ExperimentWorkflow.run, workflow_id)


async def _described(client: Client, workflow_id: str) -> Any:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        return await client.get_workflow_handle(workflow_id).describe()
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return None
        raise CliError(f"the Temporal server did not answer: {err.message}", "") from None


async def current(handle: WorkflowHandle[Any, Report]) -> tuple[Report | None, str]:
    """Return how an experiment stands, or why that cannot be known right now."""
    from datetime import timedelta

    from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError
    from temporalio.service import RPCError

    from ckpt_engine.experiments import Report

    try:
        described = await handle.describe()
        if described.status == WorkflowExecutionStatus.COMPLETED:
            return await handle.result(), ""
        if described.status != WorkflowExecutionStatus.RUNNING:
            return None, f"it has ended: {described.status.name.lower()}"  # type: ignore[union-attr]
        patience = timedelta(seconds=_PATIENCE)
        report = await handle.query("report", result_type=Report, rpc_timeout=patience)
    except WorkflowQueryFailedError as err:
        return None, str(err)
    except RPCError as err:
        if "deadline" in str(err.message).lower() or "timed out" in str(err.message).lower():
            return None, "no worker answers; the experiment goes on when one is back: ckpt worker"
        return None, _AWAY
    return report, ""


async def standing(client: Client, name: str) -> Report:
    """Return how the experiment of a name stands.

    Raises:
        CliError: There is none, or that cannot be known right now; the message says why.
    """
    report, problem = await current(await find(client, name))
    if report is None:
        raise CliError(problem, "")
    return report


async def result_of(handle: WorkflowHandle[Any, Report]) -> Report:
    """Wait for an experiment's report, however often the server goes away meanwhile.

    Raises:
        CliError: It failed; the message says why.
    """
    from temporalio.client import WorkflowFailureError
    from temporalio.service import RPCError, RPCStatusCode

    while True:
        try:
            return await handle.result()
        except WorkflowFailureError as err:
            raise _failed(err) from None
        except RPCError as err:
            if err.status == RPCStatusCode.NOT_FOUND:
                raise CliError("the experiment is gone", "", Exit.NOT_FOUND) from None
            await asyncio.sleep(1)


def _failed(err: BaseException) -> CliError:
    while err.__cause__ is not None:
        err = err.__cause__
    missing = getattr(err, "type", None) in _MISSING
    return CliError(
        str(getattr(err, "message", None) or err),
        "correct it and run it again",
        Exit.NOT_FOUND if missing else Exit.FAILED,
    )


def code_of(report: Report) -> int:
    """Return the exit code that says winner, none, or that it did not end."""
    if report.state != "finished" or report.verdict is None:
        return Exit.FAILED
    return Exit.OK if report.verdict.winner is not None else Exit.NO_WINNER


def best_trial(report: Report, variant: str | None, trial: str | None) -> Trial:
    """Return the trial whose branch is to be promoted: the named one, or the variant's best.

    Raises:
        CliError: There is no such trial, no winner, or none that ended well.
    """
    if trial is not None:
        found = next((t for t in report.trials if t.name == trial), None)
        if found is None or not found.head:
            raise CliError(f"no trial {trial!r} that was run", "write VARIANT/QUESTION/REPEAT")
        return found
    variant = variant or (report.verdict.winner if report.verdict else None)
    if variant is None:
        raise CliError(
            "there is no winner to promote", "name a --variant or a --trial", Exit.NO_WINNER
        )
    scored = [t for t in report.trials if t.variant == variant and t.state == "scored"]
    if not scored:
        raise CliError(f"variant {variant!r} has no scored trial", "", Exit.NOT_FOUND)
    return max(scored, key=lambda t: (t.score or 0, -t.spent.output_tokens, -t.repeat))


async def promotions(client: Client, report: Report) -> list[Promotion]:
    """Return what was promoted out of this run of an experiment, newest first."""
    from temporalio.service import RPCError

    from ckpt_agent.workflows.promote import PromoteWorkflow

    found: list[Promotion] = []
    start = f"{report.experiment_id}/promote/"
    heads = {trial.head[:12] for trial in report.trials}
    query = f"WorkflowType = 'PromoteWorkflow' AND WorkflowId STARTS_WITH '{start}'"
    with contextlib.suppress(RPCError):
        async for one in client.list_workflows(f"{query} AND ExecutionStatus = 'Completed'"):
            if one.id.removeprefix(start)[:12] in heads:  # else of an earlier run of this name
                handle = client.get_workflow_handle_for(PromoteWorkflow.run, one.id)
                found.append(await handle.result())
    return found
