"""``gc schedule``: retention that Temporal carries out at regular times."""

from __future__ import annotations

from shutil import which
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Address, Home, Json, Namespace, TaskQueue, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from temporalio.client import ScheduleHandle

__all__ = ["schedule"]

_ID = "ckpt-gc"


def schedule(
    keep: Annotated[
        str, typer.Option(help="What to keep, as for `ckpt gc`; needed unless --delete.")
    ] = "",
    every: Annotated[str, typer.Option(help="How often, such as 30m, 6h or 1d.")] = "1h",
    name: Annotated[str, typer.Option("--id", help="The schedule's id.")] = _ID,
    now: Annotated[bool, typer.Option("--now", help="Also collect at once.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the schedule.")] = False,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Have a worker collect at regular times, by a schedule of Temporal's.

    Said again, the schedule is changed. Its runs are workflows, whose results say what went.
    """

    async def work() -> None:
        from ...errors import InvalidRequest
        from ..opening import connect
        from ..server.connection import choose

        settings = settings_from(task_queue=task_queue, home=home)
        out = Output(as_json, settings)
        if not keep and not delete:
            raise InvalidRequest("say what to keep, such as --keep 'last:100'; or --delete")
        made = None if delete else _schedule(keep, every, name, settings.task_queue)
        client = await connect(await choose(settings.home, address, namespace))
        handle = client.get_schedule_handle(name)
        if made is None:
            await _delete(handle)
            out.say(f"schedule {name} removed; what was kept stays kept")
            out.data({"id": name, "deleted": True})
            return
        if not await _update(handle, made):
            await client.create_schedule(name, made, trigger_immediately=now)
        elif now:
            await handle.trigger()
        out.say(f"schedule {name}: every {every}, keep {keep}, on task queue {settings.task_queue}")
        out.data({"id": name, "every": every, "keep": keep, "task_queue": settings.task_queue})
        look = f"temporal schedule describe --schedule-id {name}"
        other = "" if name == _ID else f" --id {name}"
        out.following(*([look] if which("temporal") else []), f"ckpt gc schedule{other} --delete")

    run(work(), as_json=as_json)


def _schedule(keep: str, every: str, name: str, queue: str) -> Any:
    from temporalio.client import (
        Schedule,
        ScheduleActionStartWorkflow,
        ScheduleIntervalSpec,
        ScheduleOverlapPolicy,
        SchedulePolicy,
        ScheduleSpec,
    )

    from ...retention_words import parse_duration, parse_retention
    from ...temporal.collect import CollectRequest, CollectWorkflow

    parse_retention(keep)
    action = ScheduleActionStartWorkflow(
        CollectWorkflow.run, CollectRequest(keep=keep).model_dump(), id=name, task_queue=queue
    )
    return Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=parse_duration(every))]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )


async def _update(handle: ScheduleHandle, made: Any) -> bool:
    """Change the schedule; ``False`` where there is none."""
    from temporalio.client import ScheduleUpdate
    from temporalio.service import RPCError, RPCStatusCode

    try:
        await handle.update(lambda _: ScheduleUpdate(schedule=made))
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def _delete(handle: ScheduleHandle) -> None:
    from temporalio.service import RPCError, RPCStatusCode

    from ..errors import CliError, Exit

    try:
        await handle.delete()
    except RPCError as err:
        if err.status != RPCStatusCode.NOT_FOUND:
            raise
        raise CliError(f"no schedule {handle.id!r}", "", Exit.NOT_FOUND) from None
