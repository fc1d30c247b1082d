"""A small rewindable application: walks from node to node, each step a message and a state key."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from ckpt_engine.temporal import Rewindable, current_step

GATES: dict[str, asyncio.Event] = {}
"""By ``workflow id of the root/step number``: a step that finds a gate waits until it opens."""

REACHED: dict[str, asyncio.Event] = {}
"""By the same key: set when the step's body has begun to wait."""

BODIES: Counter[str] = Counter()
"""By ``root/thread/node``: how often the body of a step has run."""


def gate(root: str, node: int) -> tuple[asyncio.Event, asyncio.Event]:
    """Make the step wait; returns what is set when it is there, and what lets it go."""
    reached, opened = asyncio.Event(), asyncio.Event()
    REACHED[f"{root}/{node}"], GATES[f"{root}/{node}"] = reached, opened
    return reached, opened


@activity.defn
async def walk(root: str, node: int) -> str:
    step = await current_step()
    BODIES[f"{root}/{step.thread_id}/{node}"] += 1
    step.append({"role": "walker", "content": f"at {node}", "boot": "x" * 20})
    step.state["last"] = node
    step.next_node = str(node + 1)
    key = f"{root}/{node}"
    if (opened := GATES.pop(key, None)) is not None:
        REACHED[key].set()
        while not opened.is_set():
            activity.heartbeat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(opened.wait(), timeout=1)
    return f"done {node}"


@activity.defn
async def recite() -> list[str]:
    """Return what the conversation says, in order."""
    step = await current_step()
    return [str(message.get("content")) for message in step.messages]


@activity.defn
async def fail() -> None:
    raise ApplicationError("broken on purpose", non_retryable=True)


@workflow.defn
class Walker(Rewindable, resume="next_node"):
    """Walks ``nodes`` nodes, then recites the conversation."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    @workflow.run
    async def run(self, root: str, nodes: int, fail_at: int = -1) -> list[str]:
        at = int(self.seed.next_node) if self.seed and self.seed.next_node else 0
        while at < nodes:
            if at == fail_at:
                await workflow.execute_activity(fail, start_to_close_timeout=timedelta(seconds=10))
            await workflow.execute_activity(
                walk,
                args=[root, at],
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=5),
            )
            at += 1
        words: list[str] = await workflow.execute_activity(
            recite, start_to_close_timeout=timedelta(seconds=10)
        )
        return words + self.noted

    @workflow.signal
    def note(self, text: str) -> None:
        self.noted.append(text)

    @workflow.update
    def note_and_count(self, text: str) -> int:
        self.noted.append(text)
        return len(self.noted)


ACTIVITIES: list[Callable[..., Any]] = [walk, recite, fail]
