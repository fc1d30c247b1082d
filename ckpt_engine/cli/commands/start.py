"""``run`` and ``demo``: start an agent and follow it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...model import CheckpointInfo, Thread
from ..options import (
    Address,
    Database,
    Home,
    Json,
    Namespace,
    Port,
    TaskQueue,
    TemporalCli,
    UiPort,
    settings_from,
)
from ..output import Output
from ..running import run as run_work

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from ckpt_engine import CheckpointEngine

    from ..follow import Follower
    from ..settings import Settings

__all__ = ["demo", "follow_agent", "run", "show_step", "steps_of"]


def run(
    question: Annotated[str, typer.Argument(help="What the agent is asked.")],
    workflow_id: Annotated[
        str | None, typer.Option("--id", help="Workflow id, the session's address.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Such as openai:gpt-5.6-sol or scripted.")
    ] = None,
    instructions: Annotated[str | None, typer.Option(help="System instructions.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="CSV or SQLite file for the shipped analyst.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="State, KEY=JSON or KEY=TEXT; repeatable.")
    ] = None,
    settings_: Annotated[
        str | None,
        typer.Option("--settings", help="Model settings, such as '{\"temperature\":0}'."),
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Most steps it may take.")] = 50,
    again: Annotated[
        bool, typer.Option("--again", help="Begin another session under --id, where one has ended.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for it.")] = False,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Start an agent, show its steps as they happen, and print its answer."""

    async def work() -> int:
        from ckpt_agent.workflows.messages import AgentInput

        from ..agents import name_taken
        from ..opening import connect
        from ..server.connection import choose
        from ..values import key_values, object_of

        settings = settings_from(task_queue=task_queue, home=home, database_url=db)
        _check(question, workflow_id, again)
        state = key_values(set_ or [])
        if data is not None:
            state["data"] = str(_existing(data))
        start = AgentInput(
            question=question,
            model=model,
            instructions=instructions,
            settings=object_of("--settings", settings_),
            state=state,
            max_steps=max_steps,
        )
        out = Output(as_json, settings)
        client = await connect(await choose(settings.home, address, namespace))
        if workflow_id is not None and not again and await _is_known(settings, workflow_id):
            raise await name_taken(client, workflow_id, known=True)
        begin = partial(_started, out, client, start, workflow_id, settings.task_queue, again)
        return await _run(out, settings, begin, workflow_id, detach)

    run_work(work(), as_json=as_json)


def demo(
    home: Home = None,
    db: Database = None,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    temporal_cli: TemporalCli = None,
    port: Port = None,
    ui_port: UiPort = None,
    as_json: Json = False,
) -> None:
    """See it all at once: an agent at work, rewound and branched while it runs."""

    async def work() -> int:
        from ..demo import run_demo

        settings = settings_from(
            home=home,
            database_url=db,
            task_queue=task_queue,
            temporal_cli=temporal_cli,
            port=port,
            ui_port=ui_port,
        )
        return await run_demo(Output(as_json, settings), settings, address, namespace)

    run_work(work(), as_json=as_json)


def steps_of(out: Output, engine: CheckpointEngine, workflow_id: str) -> Follower:
    """Return a follower that prints the steps of a session."""
    from ..follow import Follower

    return Follower(engine, workflow_id, lambda info, thread: show_step(out, info, thread))


def show_step(out: Output, info: CheckpointInfo, thread: Thread) -> None:
    """Print the line of a new checkpoint."""
    from ..render import step_line

    line = step_line(info, thread.branch, short=info.id[:7])
    if out.width is not None:
        line.truncate(out.width, overflow="ellipsis")
    out.say(line)


def _check(question: str, workflow_id: str | None, again: bool) -> None:
    from ..errors import CliError, Exit

    if not question.strip():
        raise CliError("the question is empty", 'ask something: ckpt run "…"', Exit.USAGE)
    if workflow_id is not None and not workflow_id.strip():
        raise CliError("--id is empty", "leave it away, and an id is drawn", Exit.USAGE)
    if again and workflow_id is None:
        raise CliError("--again needs --id", "without one every session is new", Exit.USAGE)


async def _is_known(settings: Settings, workflow_id: str) -> bool:
    """Tell whether the checkpoints have a session that Temporal itself may have forgotten."""
    from ..errors import CliError
    from ..opening import open_engine

    try:
        async with open_engine(settings) as engine:
            return await engine.find_run(workflow_id) is not None
    except CliError:  # there is no database yet
        return False


async def _run(
    out: Output,
    settings: Settings,
    begin: Callable[[], Awaitable[WorkflowHandle[Any, Any]]],
    workflow_id: str | None,
    detach: bool,
) -> int:
    from ..opening import open_engine

    if detach:
        handle = await begin()
        out.data({"workflow_id": handle.id, "run_id": handle.first_execution_run_id})
        out.following(f"ckpt log {quote(handle.id)} --follow")
        return 0
    async with open_engine(settings, create=True) as engine:  # before anything is started
        follower = None
        if workflow_id is not None:
            follower = steps_of(out, engine, workflow_id)
            await follower.await_another()
        return await follow_agent(out, engine, await begin(), follower)


async def _started(
    out: Output, client: Client, start: Any, workflow_id: str | None, task_queue: str, again: bool
) -> WorkflowHandle[Any, Any]:
    from ..agents import has_worker, start_agent

    handle = await start_agent(client, start, workflow_id, task_queue, again=again)
    out.say(f"started {handle.id}")
    if not await has_worker(client, task_queue):
        out.say(
            f"no worker listens to the task queue {task_queue} yet; "
            "start one in another terminal: ckpt worker",
            "yellow",
        )
    return handle


async def follow_agent(
    out: Output,
    engine: CheckpointEngine,
    handle: WorkflowHandle[Any, Any],
    follower: Follower | None = None,
) -> int:
    """Show an agent's steps until it ends, then its answer; return the exit code."""
    from ..agents import Outcome, outcome_of

    follower = follower or steps_of(out, engine, handle.id)
    async with _telling_if_stuck(out, handle):
        outcome: Outcome = await follower.until(outcome_of(engine, handle))
    out.say()
    if outcome.error is None:
        out.say(outcome.answer or "(no answer)")
    else:
        out.say(f"the agent failed: {outcome.error}", "red")
    out.data(
        {
            "workflow_id": handle.id,
            "ok": outcome.error is None,
            "answer": outcome.answer,
            "error": outcome.error,
            "checkpoint": outcome.checkpoint,
            "checkpoints": [info.id for info in follower.seen],
        }
    )
    name = quote(handle.id)
    if outcome.error is None:
        again = f'ckpt rewind {name} --back 1 --say "look again"'
    else:
        again = f"ckpt rewind {name} --back 0 --follow"
    out.following(f"ckpt tree {name}", again)
    return 0 if outcome.error is None else 1


@contextlib.asynccontextmanager
async def _telling_if_stuck(out: Output, handle: WorkflowHandle[Any, Any]) -> AsyncIterator[None]:
    """Say once, while the block is at work, that the workflow's code fails and with what."""
    from ..agents import why_stuck

    async def tell() -> None:
        reason = await why_stuck(handle)
        out.say(
            f"the workflow's code fails, and is tried again: {reason} (mend it and start its "
            "worker again)",
            "yellow",
        )

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)  # a server that is away tells itself


def _existing(data: Path) -> Path:
    from ..errors import CliError, Exit

    if not data.exists():
        raise CliError(f"there is no file {data}", "", Exit.USAGE)
    return data.resolve()
