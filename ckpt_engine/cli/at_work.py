"""What the running trials of an experiment are doing, as Temporal sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .render import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from temporalio.client import Client, WorkflowHandle

    from ckpt_engine.experiments import Report, Trial

__all__ = ["AtWork", "at_work", "board_of_work"]

_MOST = 8
_PATIENCE = timedelta(seconds=2)


@dataclass(frozen=True)
class AtWork:
    """A running trial.

    Attributes:
        trial: Its name.
        step: How many steps of its own it has begun; ``None`` where nobody answers.
        doing: The activities in flight, with their seconds.
    """

    trial: str
    step: int | None
    doing: str


async def at_work(client: Client, report: Report) -> list[AtWork]:
    """Return what the first few running trials are doing; the server's silence is no error."""
    running = [trial for trial in report.trials if trial.state == "running"]
    return list(await asyncio.gather(*(_look(client, report, t) for t in running[:_MOST])))


def board_of_work(report: Report, found: Sequence[AtWork]) -> RenderableType:
    """Return the lines about what running trials are doing, each on one line."""
    from rich.console import Group
    from rich.text import Text

    width = max((len(one.trial) for one in found), default=0)
    lines = [
        f"{clean(one.trial):{width}}  {'' if one.step is None else f'step {one.step}':>8}  "
        + clean(one.doing)
        for one in found
    ]
    running = sum(row.states.get("running", 0) for row in report.variants)
    if found and running > len(found):
        lines.append(f"… and {running - len(found)} more that run")
    return Group(*(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines))


async def _look(client: Client, report: Report, trial: Trial) -> AtWork:
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.service import RPCError, RPCStatusCode

    handle = client.get_workflow_handle(trial.workflow_id)
    try:
        found = await handle.describe(rpc_timeout=_PATIENCE)
    except (RPCError, ValueError) as err:
        begins = not isinstance(err, RPCError) or err.status == RPCStatusCode.NOT_FOUND
        return AtWork(trial.name, None, "begins" if begins else "")
    if found.status != WorkflowExecutionStatus.RUNNING:
        return AtWork(trial.name, None, "is measured")
    doing = ", ".join(_said(one) for one in found.raw_description.pending_activities)
    return AtWork(trial.name, await _step(handle, report, trial), doing)


async def _step(handle: WorkflowHandle[Any, Any], report: Report, trial: Trial) -> int | None:
    from temporalio.client import WorkflowQueryFailedError
    from temporalio.service import RPCError

    seed = next((s for s in report.seeds if trial.question in s.questions), None)
    try:
        status = await handle.query("checkpoint_status", rpc_timeout=_PATIENCE)
    except (RPCError, WorkflowQueryFailedError):
        return None
    first = 1 if seed is None else seed.step + 1  # the seed with the override
    return max(0, int(status["step"]) - first)


def _said(activity: Any) -> str:
    from temporalio.api.enums.v1 import PendingActivityState

    name = activity.activity_type.name
    if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
        began = activity.last_started_time.ToDatetime(UTC)
        return f"{name} for {(datetime.now(UTC) - began).total_seconds():.0f}s"
    if activity.HasField("last_failure"):
        return f"{name} is tried again: {activity.last_failure.message[:80]}"
    return f"{name} waits for a worker"
