"""Workflows that continue as new, in both ways of finding a seed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable, current_step

from .app import Walker, fail, recite, walk

QUICKLY: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=20)}


@workflow.defn
class LongWalker(Rewindable, resume="next_node"):
    """Walks ``nodes`` nodes and continues as new whenever the server suggests it."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    @workflow.run
    async def run(self, root: str, nodes: int, fail_at: int = -1) -> list[str]:
        at = int(self.seed.next_node) if self.seed and self.seed.next_node else 0
        while at < nodes:
            if at == fail_at:
                await workflow.execute_activity(fail, **QUICKLY)
            await workflow.execute_activity(
                walk,
                args=[root, at],
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=3),
            )
            at += 1
            self.continue_if_suggested(str(at))
        words: list[str] = await workflow.execute_activity(recite, **QUICKLY)
        return words + self.noted

    @workflow.signal
    def note(self, text: str) -> None:
        self.noted.append(text)

    @workflow.update
    def note_and_count(self, text: str) -> int:
        self.noted.append(text)
        return len(self.noted)


@workflow.defn
class Watched(LongWalker):
    """The same, looking every second whether its stand-in was terminated."""

    ckpt_look_every = timedelta(seconds=1)

    @workflow.run
    async def run(self, root: str, nodes: int, fail_at: int = -1) -> list[str]:
        return await super().run(root, nodes, fail_at)


@activity.defn
async def add(total: int, more: int) -> int:
    step = await current_step()
    step.append({"role": "adder", "content": f"{total}+{more}"})
    return total + more


@workflow.defn
class Chapters(Rewindable):
    """Straight-line code in chapters of two steps: each is a run, given what came before."""

    def __init__(self) -> None:
        self.bonus: list[int] = []

    @workflow.run
    async def run(self, chapter: int, total: int) -> int:
        total = await workflow.execute_activity(add, args=[total, chapter], **QUICKLY)
        await workflow.wait_condition(lambda: len(self.bonus) > 0)
        total = await workflow.execute_activity(add, args=[total, self.bonus[0]], **QUICKLY)
        if chapter < 3:
            workflow.continue_as_new(args=[chapter + 1, total])
        return total

    @workflow.signal
    def extra(self, amount: int) -> None:
        self.bonus.append(amount)


WORKFLOWS = [LongWalker, Watched, Chapters, Walker]
