"""The workflows whose histories are measured: ours, and plain ones that carry the conversation."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable, current_step

with workflow.unsafe.imports_passed_through():
    from .common import text

__all__ = ["ACTIVITIES", "WORKFLOWS", "PlainTalk", "Talk"]

_TIMES: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=60)}


def message(number: int, size: int) -> dict[str, Any]:
    """Return the message of one step: about ``size`` characters, another one for each number."""
    return {"role": "tool", "content": text(random.Random(number), size)}


@activity.defn
async def say(number: int, size: int, first: int) -> int:
    """Add a message to the agent's memory; the very first adds ``first`` characters as well."""
    step = await current_step()
    if number == 0 and first:
        step.append({"role": "user", "content": text(random.Random(-1), first)})
    step.append(message(number, size))
    step.state["said"] = number
    step.next_node = "say"
    return len(step.messages)


@activity.defn
async def say_plainly(conversation: list[dict[str, Any]], number: int, size: int) -> dict[str, Any]:
    """Return the next message; the conversation travels as an argument."""
    assert len(conversation) >= number
    return message(number, size)


@workflow.defn
class Talk(Rewindable, resume="next_node"):
    """So many steps, each with a message; the conversation stays in the checkpoints."""

    @workflow.run
    async def run(self, steps: int, size: int, first: int) -> int:
        """Talk."""
        while (done := self.checkpoint_session.step) < steps:
            await workflow.execute_activity(say, args=[done, size, first], **_TIMES)
            self.continue_if_suggested("say")
        return done


@workflow.defn
class PlainTalk:
    """The same in the usual way: the workflow has the conversation and hands it to each step."""

    @workflow.run
    async def run(self, steps: int, size: int, first: int) -> int:
        """Talk."""
        conversation: list[dict[str, Any]] = []
        if first:
            conversation.append({"role": "user", "content": text(random.Random(-1), first)})
        for number in range(steps):
            conversation.append(
                await workflow.execute_activity(
                    say_plainly, args=[conversation, number, size], **_TIMES
                )
            )
        return steps


WORKFLOWS: list[type] = [Talk, PlainTalk]
ACTIVITIES: list[Callable[..., Any]] = [say, say_plainly]
