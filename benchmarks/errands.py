"""The workflow that runs with the plugin and without it; it imports nothing else.

A sandboxed workflow imports its module anew for each run, which must cost both sides the same.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

__all__ = ["Errand", "work"]


@activity.defn
async def work(number: int, size: int) -> dict[str, Any]:
    """Return a result of some ``size`` characters."""
    return {"number": number, "said": "word " * (size // 5)}


@workflow.defn
class Errand:
    """Straight-line code that knows nothing of checkpoints."""

    def __init__(self) -> None:
        self._free = False

    @workflow.run
    async def run(self, steps: int, waits: bool) -> int:
        """Do so many steps; half-way, wait to be let go if that is wanted."""
        for number in range(steps):
            if waits and number == steps // 2:
                await workflow.wait_condition(lambda: self._free)
            await workflow.execute_activity(
                work, args=[number, 1000], start_to_close_timeout=timedelta(seconds=60)
            )
        return steps

    @workflow.signal
    def go_on(self) -> None:
        """Let it go."""
        self._free = True
