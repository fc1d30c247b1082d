"""Coroutines side by side that do several steps each, with and without lines of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

from ckpt_engine.temporal import Rewindable, current_step, line

BODIES: Counter[str] = Counter()
"""By ``crew/what``: how often the body of an activity has run."""

GATES: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
"""By ``crew/what``: set when the body is there, and what it waits for."""

OPTIONS: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=30)}


async def enter(crew: str, what: str) -> None:
    BODIES[f"{crew}/{what}"] += 1
    if (gate := GATES.pop(f"{crew}/{what}", None)) is not None:
        gate[0].set()
        await gate[1].wait()


@activity.defn
async def work(crew: str, what: str, before: str) -> str:
    """Do something; fail if it is ``broken``."""
    await enter(crew, what)
    if what.endswith("broken"):
        raise ApplicationError(f"{what}!", non_retryable=True)
    return f"{before}, {what}" if before else what


@activity.defn
async def speak(crew: str, what: str) -> list[str]:
    """Say something; return what could be heard before."""
    await enter(crew, what)
    if what.endswith("broken"):
        raise ApplicationError(f"{what}!", non_retryable=True)
    step = await current_step()
    heard = [str(message["content"]) for message in step.messages]
    step.append({"role": "crew", "content": what})
    return heard


@activity.defn
async def draw(crew: str) -> int:
    """Return another number each time."""
    BODIES[f"{crew}/draw"] += 1
    return BODIES[f"{crew}/draw"]


async def working(crew: str, what: str, before: str = "") -> str:
    return await workflow.execute_activity(work, args=[crew, what, before], **OPTIONS)


async def speaking(crew: str, what: str) -> list[str]:
    return await workflow.execute_activity(speak, args=[crew, what], **OPTIONS)


@workflow.defn
class Crew(Rewindable):
    """Each member does three steps, of which each needs the one before; no lines."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        await working(crew, "begin")
        done = await asyncio.gather(*(self._member(crew, name) for name in members))
        return [*done, await working(crew, "end")]

    async def _member(self, crew: str, name: str) -> str:
        done = ""
        for turn in range(3):
            done = await working(crew, f"{name}{turn}", done)
        return done


@workflow.defn(name="Crew")
class CrewOfOthers(Crew):
    """Bob's second step is another one."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        return await super().run(crew, members)

    async def _member(self, crew: str, name: str) -> str:
        if name != "b":
            return await super()._member(crew, name)
        done = await working(crew, "b0")
        await self._second(crew)
        return await working(crew, "b2", done)

    async def _second(self, crew: str) -> None:
        await speaking(crew, "b1")


@workflow.defn(name="Crew")
class CrewWithALocalStep(CrewOfOthers):
    """Bob's second step is another one, and a local activity."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        return await super().run(crew, members)

    async def _second(self, crew: str) -> None:
        await workflow.execute_local_activity(speak, args=[crew, "b1"], **OPTIONS)


@workflow.defn(name="Crew")
class CrewInOtherWords(CrewOfOthers):
    """Bob's second step has other arguments."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        return await super().run(crew, members)

    async def _member(self, crew: str, name: str) -> str:
        if name != "b":
            return await super()._member(crew, name)
        return await working(crew, "b2", await working(crew, "b1", "in other words"))


@workflow.defn(name="Crew")
class CrewTurnedRound(Crew):
    """The last is first."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        return await super().run(crew, members[::-1])


@workflow.defn(name="Crew")
class CrewWithoutBob(Crew):
    """Bob is gone."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[str]:
        return await super().run(crew, [name for name in members if name != "b"])


@workflow.defn
class Gamblers(Rewindable):
    """Both draw a number, with the same arguments: nothing tells whose draw is whose."""

    @workflow.run
    async def run(self, crew: str) -> list[str]:
        return await asyncio.gather(*(self._play(crew, name) for name in ("a", "b")))

    async def _play(self, crew: str, name: str) -> str:
        await working(crew, f"{name} sits down")
        drawn = await workflow.execute_activity(draw, crew, **OPTIONS)
        return await working(crew, f"{name} has drawn {drawn}")


@workflow.defn
class Race(Rewindable):
    """Goes on with whoever is first."""

    @workflow.run
    async def run(self, crew: str) -> str:
        racing = {asyncio.create_task(working(crew, name)) for name in ("a", "b")}
        done, _ = await workflow.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        won = await working(crew, f"{next(iter(done)).result()} wins")
        await workflow.wait(racing)
        return won


@workflow.defn
class Noted(Rewindable):
    """Does a step of its own for each note that it is sent."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    @workflow.run
    async def run(self, crew: str) -> list[str]:
        await working(crew, "begin")
        await workflow.wait_condition(lambda: len(self.noted) > 1)
        return [*self.noted, await working(crew, "end")]

    @workflow.signal
    async def note(self, text: str) -> None:
        self.noted.append(await working(workflow.info().task_queue, text))


@workflow.defn
class Mishap(Rewindable):
    """Fails in one of the coroutines, which go on."""

    @workflow.run
    async def run(self, crew: str) -> list[str]:
        return await asyncio.gather(*(self._member(crew, name) for name in ("a", "b")))

    async def _member(self, crew: str, name: str) -> str:
        done = await working(crew, f"{name}0")
        try:
            await working(crew, f"{name} {'broken' if name == 'a' else 'fine'}")
        except ActivityError as err:
            done += f", {err.cause}"
        return await working(crew, f"{name}1", done)


@workflow.defn
class Helper(Rewindable):
    """A sub-workflow of two steps."""

    @workflow.run
    async def run(self, crew: str, name: str) -> list[str]:
        await speaking(crew, f"{name} helps")
        if name.endswith("broken"):
            raise ApplicationError(f"{name}!")
        return await speaking(crew, f"{name} helped")


@workflow.defn
class Beside(Rewindable):
    """A step fails beside a sub-workflow, whose steps have the same numbers."""

    @workflow.run
    async def run(self, crew: str) -> list[str]:
        helping = workflow.execute_child_workflow(Helper.run, args=[crew, "a"])
        helped, failed = await asyncio.gather(helping, self._late(crew), return_exceptions=True)
        return [str(helped), str(failed), *await speaking(crew, "b"), *await speaking(crew, "c")]

    async def _late(self, crew: str) -> list[str]:
        return await speaking(crew, "broken")


@workflow.defn(name="Beside")
class BesideSomethingElse(Beside):
    """The step after both is another one."""

    @workflow.run
    async def run(self, crew: str) -> list[str]:
        await asyncio.gather(
            workflow.execute_child_workflow(Helper.run, args=[crew, "a"]),
            self._late(crew),
            return_exceptions=True,
        )
        return await speaking(crew, "something else")


@workflow.defn
class Lines(Rewindable):
    """On each line a step, the call of a sub-workflow, and a step; then one that hears all."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[list[str]]:
        await speaking(crew, "begin")
        heard = await asyncio.gather(*(self._member(crew, name) for name in members))
        return [*(one for each in heard for one in each), await speaking(crew, "end")]

    async def _member(self, crew: str, name: str) -> Sequence[list[str]]:
        async with line(name):
            return [
                await speaking(crew, f"{name}0"),
                await self._call(crew, name),
                await speaking(crew, f"{name}1"),
            ]

    async def _call(self, crew: str, name: str) -> list[str]:
        return await workflow.execute_child_workflow(Helper.run, args=[crew, name])


@workflow.defn(name="Lines")
class LinesWithOtherHelp(Lines):
    """Bob calls for somebody else's help."""

    @workflow.run
    async def run(self, crew: str, members: list[str]) -> list[list[str]]:
        return await super().run(crew, members)

    async def _call(self, crew: str, name: str) -> list[str]:
        return await super()._call(crew, "eve" if name == "b" else name)


@workflow.defn
class LinesWithMishaps(Rewindable):
    """On each line something fails in the midst: an activity, or a sub-workflow."""

    @workflow.run
    async def run(self, crew: str) -> list[list[str]]:
        await speaking(crew, "begin")
        heard = await asyncio.gather(*(self._member(crew, name) for name in ("a", "b")))
        return [*(one for each in heard for one in each), await speaking(crew, "end")]

    async def _member(self, crew: str, name: str) -> Sequence[list[str]]:
        async with line(name):
            heard = [await speaking(crew, f"{name}0")]
            try:
                if name == "a":
                    await speaking(crew, "a broken")
                else:
                    await workflow.execute_child_workflow(Helper.run, args=[crew, "b broken"])
            except (ActivityError, ChildWorkflowError) as err:
                heard.append([str(err.cause)])
            return [*heard, await speaking(crew, f"{name}1"), await speaking(crew, f"{name}2")]


WORKFLOWS = [
    Beside,
    Crew,
    Gamblers,
    Mishap,
    Helper,
    Lines,
    LinesWithMishaps,
    Noted,
    Race,
]
ACTIVITIES: list[Callable[..., Any]] = [work, speak, draw]
