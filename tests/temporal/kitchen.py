"""Workflows that call workflows: a dinner of courses, each cooked by a sub-workflow."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError

from ckpt_engine.temporal import NotAStep, Rewindable, current_step

BODIES: Counter[str] = Counter()
"""By ``dinner/what``: how often the body of an activity has run."""

GATES: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
"""By ``dinner/what``: set when the body is there, and what it waits for."""

QUICK: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=30)}


@activity.defn
async def do(dinner: str, what: str) -> list[str]:
    """Do something; return what had been said before."""
    BODIES[f"{dinner}/{what}"] += 1
    if (gate := GATES.pop(f"{dinner}/{what}", None)) is not None:
        gate[0].set()
        await gate[1].wait()
    step = await current_step()
    heard = [str(message["content"]) for message in step.messages]
    step.append({"role": "cook", "content": what})
    step.state[what] = "done"
    return heard


async def act(dinner: str, what: str) -> list[str]:
    return await workflow.execute_activity(do, args=[dinner, what], **QUICK)


@workflow.defn
class Cook(Rewindable):
    """Two steps; what the second has heard is the result."""

    @workflow.run
    async def run(self, dinner: str, course: str) -> list[str]:
        await act(dinner, f"chop {course}")
        return await act(dinner, f"fry {course}")


@workflow.defn
class Dinner(Rewindable):
    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        await act(dinner, "shop")
        heard = await workflow.execute_child_workflow(
            Cook.run, args=[dinner, "fish"], id=f"{dinner}/fish"
        )
        assert heard == ["shop", "chop fish"], heard
        await act(dinner, "serve")
        return await act(dinner, "clear")


@workflow.defn
class Feast(Rewindable):
    """Side by side: neither course hears of the other, whoever serves hears of both."""

    def __init__(self) -> None:
        self.asked = False

    @workflow.signal
    def lay(self) -> None:
        self.asked = True

    @workflow.run
    async def run(self, dinner: str) -> list[list[str]]:
        async def course(name: str) -> list[str]:
            return await workflow.execute_child_workflow(Cook.run, args=[dinner, name])

        async def table() -> list[str]:
            await workflow.wait_condition(lambda: self.asked)
            return await act(dinner, "lay the table")

        await act(dinner, "shop")
        first, second, alone = await asyncio.gather(course("soup"), course("roast"), table())
        return [first, second, alone, await act(dinner, "serve")]


@workflow.defn
class Caterer:
    """Calls workflows that call workflows, does nothing itself, and is not rewindable."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        return await workflow.execute_child_workflow(Dinner.run, dinner, id=f"{dinner}/dinner")


@workflow.defn
class Thinker:
    @workflow.run
    async def run(self, thought: str) -> str:
        return f"thought of {thought}"


@workflow.defn
class Planner:
    """Calls a sub-workflow that does no step."""

    @workflow.run
    async def run(self, dinner: str) -> str:
        thought = await workflow.execute_child_workflow(Thinker.run, "salt")
        await act(dinner, thought)
        return thought


@workflow.defn
class Clumsy:
    """Fails at its first attempt, after a step."""

    @workflow.run
    async def run(self, dinner: str) -> int:
        await act(dinner, f"try {workflow.info().attempt}")
        if workflow.info().attempt == 1:
            raise ApplicationError("dropped it")
        return workflow.info().attempt


@workflow.defn
class Patient:
    """Calls a sub-workflow that fails once and is tried again."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        attempt = await workflow.execute_child_workflow(
            Clumsy.run,
            dinner,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )
        assert attempt == 2
        return await act(dinner, "serve")


@workflow.defn
class Daily:
    @workflow.run
    async def run(self, dinner: str) -> None:
        await act(dinner, f"day {workflow.info().run_id}")


@workflow.defn(name="Dinner")
class DinnerWithoutCook(Rewindable):
    """The code of a dinner after somebody put a step in the place of the call."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        await act(dinner, "shop")
        return await act(dinner, "fry fish")


@workflow.defn(name="Dinner")
class DinnerOfMeat(Rewindable):
    """The code of a dinner after somebody changed what is cooked."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        await act(dinner, "shop")
        return await workflow.execute_child_workflow(Cook.run, args=[dinner, "meat"])


@workflow.defn(name="Dinner")
class DinnerCookedFirst(Rewindable):
    """The code of a dinner after somebody put a call in the place of a step."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        return await workflow.execute_child_workflow(Cook.run, args=[dinner, "fish"])


@workflow.defn
class Waiter:
    """Waits to be told, or to be cancelled; continues as new once before."""

    def __init__(self) -> None:
        self.told: str | None = None

    @workflow.run
    async def run(self, dinner: str, again: bool = True, told: str | None = None) -> str:
        self.told = self.told or told
        if again:
            await act(dinner, "dress")
            workflow.continue_as_new(args=[dinner, False, self.told])
        await act(dinner, "wait")
        await workflow.wait_condition(lambda: self.told is not None)
        return f"told {self.told}"

    @workflow.signal
    def tell(self, what: str) -> None:
        self.told = what


@workflow.defn
class Host:
    """Handles a sub-workflow in every way that its handle offers."""

    @workflow.run
    async def run(self, dinner: str) -> list[str]:
        waiter = await workflow.start_child_workflow(Waiter.run, dinner, id=f"{dinner}/waiter")
        await waiter.signal(Waiter.tell, "dinner is served")
        sent_home = await workflow.start_child_workflow(
            Waiter.run, args=[dinner, False], id=f"{dinner}/home"
        )
        sent_home.cancel()
        outcome = "stayed"
        try:
            await sent_home
        except ChildWorkflowError as err:
            outcome = type(err.cause).__name__
        try:
            await workflow.execute_child_workflow(Clumsy.run, dinner)
        except ChildWorkflowError as err:
            outcome += f", {err.cause}"
        await workflow.start_child_workflow(
            Waiter.run,
            args=[dinner, False],
            id=f"{dinner}/left",
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
        assert waiter.id == f"{dinner}/waiter"
        assert waiter.first_execution_run_id
        return [await waiter, outcome, *await act(dinner, "thank")]


@workflow.defn
class Elsewhere:
    """Calls a sub-workflow, and an activity, of workers that know no plugin."""

    @workflow.run
    async def run(self, dinner: str, queue: str) -> list[Any]:
        thought = await workflow.execute_child_workflow(Thinker.run, "salt", task_queue=queue)
        heard = await workflow.execute_activity(
            "forgetful", thought, task_queue=queue, result_type=str, **QUICK
        )
        return [thought, heard, *await act(dinner, "serve")]


@activity.defn
async def forgetful(what: str) -> str:
    return f"forgot {what}"


@activity.defn
async def is_step() -> str:
    try:
        await current_step()
    except NotAStep:
        return "no step"
    return "a step"


@workflow.defn
class Visitor:
    @workflow.run
    async def run(self, queue: str) -> str:
        return await workflow.execute_activity(is_step, task_queue=queue, **QUICK)


WORKFLOWS = [
    Elsewhere,
    Host,
    Waiter,
    Caterer,
    Clumsy,
    Cook,
    Daily,
    Dinner,
    Feast,
    Patient,
    Planner,
    Thinker,
]
