"""Reports of experiments, and what people decide about them: scores and promotions."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CliError, Exit

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from ckpt_engine import CheckpointEngine
    from ckpt_engine.experiments import Report, Trial
    from ckpt_engine.experiments.report import Promotion

    from .output import Output

__all__ = ["give_score", "print_report", "promote_trial", "write_page"]


def print_report(out: Output, report: Report, promoted: Sequence[Promotion]) -> None:
    """Print a report for people."""
    from .scoreboard import board, summary_line

    out.say(f"experiment {report.name}, {report.state}", "bold")
    for seed in report.seeds:
        count = f"{len(seed.questions)} question" + ("s" if len(seed.questions) != 1 else "")
        out.say(
            f"{count} from checkpoint {seed.checkpoint[:8]} (step {seed.step} of "
            f"{seed.workflow_id}), digest {seed.digest}"
        )
    out.say(_honesty(report))
    out.console.print(board(report))
    for row in report.variants:
        out.say(f"{row.name}: {_override(row.differs)}", "dim")
    for trial in report.trials:
        if trial.state not in ("scored", "stopped", "waiting"):
            out.say(f"{trial.name} {trial.state}: {trial.why}", "yellow")
    for note in report.notes:
        out.say(note, "yellow")
    out.say(summary_line(report), "dim")
    if report.verdict is not None:
        out.say(report.verdict.why, "bold")
    for one in promoted:
        out.say(f"promoted: {one.trial} ({one.how}), by {one.by} at {one.at}: {one.why}", "green")
    if (pair := _telling_pair(report)) is not None:
        out.say(f"side by side: {pair[0].name} and {pair[1].name}", "dim")
        out.following(f"ckpt diff {pair[0].head[:12]} {pair[1].head[:12]}")


def _honesty(report: Report) -> str:
    looked = [t for t in report.trials if t.same_seed is not None]
    same = sum(1 for t in looked if t.same_seed)
    return f"{same} of {len(looked)} trials began as exactly that checkpoint plus their override"


def _override(differs: dict[str, Any]) -> str:
    parts = [f"{key} = {value}" for key, value in differs.items()]
    return "; ".join(parts) or "no override"


async def write_page(
    path: Path, engine: CheckpointEngine, report: Report, promoted: Sequence[Promotion]
) -> None:
    """Write a report as one self-contained page.

    Raises:
        CliError: The file cannot be written, or a library is missing.
    """
    try:
        from ..experiments.page import render_page
    except ImportError as err:
        raise CliError(
            f"pages need {err.name}", "pip install 'ckpt-engine[experiments]'", Exit.USAGE
        ) from None
    from .diffing import difference

    pair = _telling_pair(report)
    diff = None if pair is None else await difference(engine, pair[0].head, pair[1].head)
    text = render_page(report, promoted, None if diff is None else diff.as_json(), pair)
    try:
        path.write_text(text)
    except OSError as err:
        raise CliError(f"cannot write {path}: {err}", "", Exit.USAGE) from None


def _telling_pair(report: Report) -> tuple[Trial, Trial] | None:
    """Return the baseline's and the winner's trial of a question on which they differ most.

    Without a winner it is the variant that came closest.
    """
    verdict = report.verdict
    if verdict is None:
        return None
    known = [c for c in verdict.comparisons if c.difference is not None]
    closest = max(known, key=lambda c: c.difference or 0).variant if known else None
    winner = verdict.winner or closest
    pairs = [
        (base, other)
        for base in report.trials
        for other in report.trials
        if base.variant == report.baseline
        and other.variant == winner
        and (base.question, base.repeat) == (other.question, other.repeat)
        and base.head
        and other.head
    ]
    return max(pairs, key=lambda pair: (pair[1].score or 0) - (pair[0].score or 0), default=None)


async def promote_trial(
    client: Client,
    report: Report,
    trial: Trial,
    *,
    task_queue: str,
    into: str,
    strategy: str,
    by: str | None,
    why: str,
) -> Promotion:
    """Promote a trial's branch, once however often it is asked for.

    Raises:
        CliError: It was refused; the message says why.
    """
    from pydantic import ValidationError
    from temporalio.client import WorkflowFailureError
    from temporalio.common import WorkflowIDReusePolicy
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from ckpt_agent.workflows.experiment_messages import PromoteAsk
    from ckpt_agent.workflows.promote import PromoteWorkflow

    seed = next(s for s in report.seeds if trial.question in s.questions)
    try:
        ask = PromoteAsk.model_validate(
            {
                "experiment_id": report.experiment_id,
                "trial": trial.name,
                "session": seed.workflow_id,
                "thread": trial.workflow_id,
                "checkpoint": trial.head,
                "how": "merge" if into else "rewind",
                "into": into,
                "strategy": strategy,
                "by": by or getpass.getuser(),
                "why": why,
            }
        )
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CliError(f"--{where}: {first['msg']}", "", Exit.USAGE) from None
    name = f"{report.experiment_id}/promote/{trial.head[:12]}{'/' + into if into else ''}"
    # where it was promoted before, or is being promoted, the record says by whom
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(
            PromoteWorkflow.run,
            ask,
            id=name,
            task_queue=task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            static_summary=f"promote {trial.name}: {why}",
        )
    try:
        return await client.get_workflow_handle_for(PromoteWorkflow.run, name).result()
    except WorkflowFailureError as err:
        raise CliError(_innermost(err), "", Exit.USAGE) from None


async def give_score(
    handle: WorkflowHandle[Any, Report], trial: str, value: float, *, why: str, by: str | None
) -> Trial:
    """Give a trial a person's score.

    Raises:
        CliError: The trial does not wait for one.
    """
    from pydantic import ValidationError
    from temporalio.client import WorkflowUpdateFailedError
    from temporalio.service import RPCError

    from ckpt_agent.workflows.experiment import ExperimentWorkflow
    from ckpt_agent.workflows.experiment_messages import GivenScore
    from ckpt_engine.experiments import Score

    try:
        score = Score(value=value, why=why, by=by or getpass.getuser())
    except ValidationError:
        raise CliError(f"a score is a finite number, not {value}", "", Exit.USAGE) from None
    try:
        return await handle.execute_update(
            ExperimentWorkflow.score, GivenScore(trial=trial, score=score)
        )
    except WorkflowUpdateFailedError as err:
        raise CliError(_innermost(err), "", Exit.USAGE) from None
    except RPCError as err:
        raise CliError(f"it cannot be scored: {err.message}", "", Exit.USAGE) from None


def _innermost(err: BaseException) -> str:
    while err.__cause__ is not None:
        err = err.__cause__
    return str(getattr(err, "message", None) or err)
