"""The failure of code that is run again and does not lead to its seed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from temporalio.exceptions import ApplicationError

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["diverged"]


async def diverged(
    engine: CheckpointEngine, thread: str, step: int, was: str, now: str
) -> ApplicationError:
    """Return the failure, which names the step.

    Args:
        engine: Where the checkpoints are.
        thread: The thread of the code.
        step: Number of the step that should have been asked for.
        was: What it was.
        now: What is asked for instead.
    """
    advice = ""
    if await _side_by_side(engine, thread):
        advice = (
            " If the code is the same, and its coroutines side by side do several steps each, who "
            "is first among them decides what they ask for: give each a line of its own "
            '(async with line("name")).'
        )
    return ApplicationError(
        f"step {step} was {was}, and {now}: it no longer leads to the seed. Rewind to before step "
        f"{step}, or run the code that the session was started with.{advice}",
        type="diverged",
        non_retryable=True,
    )


async def _side_by_side(engine: CheckpointEngine, thread: str) -> bool:
    """Say whether steps on the main line of a thread have followed the same step."""
    head = (await engine.get_thread(thread)).head
    path = await engine.path(head) if head else []
    main = [info for info in path if info.parents and not info.metadata.get("line", [""])[0]]
    first = Counter(info.parents[0] for info in main)
    return any(count > 1 for count in first.values())
