"""A workflow with a rewindable child of its own, and one with parallel lines."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable, current_step, line

from .app import GATES, REACHED, Walker

QUICKLY: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=30)}


@workflow.defn
class Parent:
    """Waits for a walker, and passes what it hears on to it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.passed = 0

    @workflow.run
    async def run(self, root: str, nodes: int) -> list[str]:
        child = await workflow.start_child_workflow(Walker.run, args=[root, nodes, -1], id=root)
        passing = asyncio.create_task(self._pass_on(child))
        words = await child
        passing.cancel()
        return ["parent", *words]

    async def _pass_on(self, child: workflow.ChildWorkflowHandle[Any, Any]) -> None:
        while True:
            await workflow.wait_condition(lambda: len(self.heard) > self.passed)
            await child.signal("note", self.heard[self.passed])
            self.passed += 1

    @workflow.signal
    def hear(self, text: str) -> None:
        self.heard.append(text)

    @workflow.query
    def passed_on(self) -> int:
        return self.passed


@activity.defn
async def think(who: str, turn: int) -> list[str]:
    """Say something, and return what the thinker could read before."""
    step = await current_step()
    seen = [message["content"] for message in step.messages]
    step.append({"role": who, "content": f"{who} {turn}"})
    step.state[who] = turn
    key = f"{step.session_id.rsplit('.', 1)[0]}/{who}/{turn}"
    if (opened := GATES.pop(key, None)) is not None:
        REACHED[key].set()
        await opened.wait()
    return seen


@workflow.defn
class Researchers(Rewindable):
    """Sub-agents side by side, each on a line of its own, and a writer who reads them all."""

    @workflow.run
    async def run(self, who: list[str], turns: int) -> dict[str, list[list[str]]]:
        await workflow.execute_activity(think, args=["asker", 0], **QUICKLY)
        found = await asyncio.gather(*(self._research(name, turns) for name in who))
        seen = await workflow.execute_activity(think, args=["writer", 0], **QUICKLY)
        return dict(zip([*who, "writer"], [*found, [seen]], strict=True))

    async def _research(self, name: str, turns: int) -> list[list[str]]:
        async with line(name):
            return [
                await workflow.execute_activity(think, args=[name, turn], **QUICKLY)
                for turn in range(turns)
            ]


@workflow.defn
class Talk(Rewindable):
    """Straight-line code that repeats what it is told, by signal or update, until "bye"."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answers: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        while True:
            await workflow.wait_condition(lambda: len(self.said) > 0)
            text = self.said.pop(0)
            if text == "bye":
                return self.answers
            await workflow.execute_activity(think, args=[text, 0], **QUICKLY)
            self.answers.append(text)

    @workflow.signal
    def say(self, text: str) -> None:
        self.said.append(text)

    @workflow.update
    async def ask(self, text: str) -> int:
        self.said.append(text)
        await workflow.wait_condition(lambda: text in self.answers)
        return len(self.answers)
