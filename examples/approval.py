"""A request that waits for a person: remind after a day, give up after a week."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable

TIMEOUT = timedelta(seconds=30)


@activity.defn
async def submit(what: str) -> str:
    """File the request."""
    return f"submitted {what}"


@activity.defn
async def remind(what: str) -> str:
    """Write to the person again."""
    return f"reminded about {what}"


@activity.defn
async def carry_out(what: str, by: str) -> str:
    """Do what was approved."""
    return f"{what} done, approved by {by}"


@activity.defn
async def archive(what: str) -> str:
    """File it away."""
    return f"{what} archived"


@workflow.defn
class ApprovalWorkflow(Rewindable):
    """Timers and a human in straight-line code."""

    def __init__(self) -> None:
        self._approved_by: str | None = None

    @workflow.signal
    def approve(self, by: str) -> None:
        """Say yes."""
        self._approved_by = by

    @workflow.run
    async def run(self, what: str, patience_seconds: float) -> list[str]:
        """Return what happened, in order."""
        done = [await workflow.execute_activity(submit, what, start_to_close_timeout=TIMEOUT)]
        await workflow.sleep(timedelta(seconds=patience_seconds))
        done.append(await workflow.execute_activity(remind, what, start_to_close_timeout=TIMEOUT))
        try:
            await workflow.wait_condition(
                lambda: self._approved_by is not None, timeout=timedelta(days=7)
            )
        except TimeoutError:
            return [*done, "given up"]
        done.append(
            await workflow.execute_activity(
                carry_out, args=[what, self._approved_by], start_to_close_timeout=TIMEOUT
            )
        )
        done.append(await workflow.execute_activity(archive, what, start_to_close_timeout=TIMEOUT))
        return done


ACTIVITIES: list[Callable[..., Any]] = [submit, remind, carry_out, archive]
