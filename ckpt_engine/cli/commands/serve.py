"""``up``, ``server`` and ``worker``: what has to run before agents can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import (
    Address,
    Agent,
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
from ..running import run

if TYPE_CHECKING:
    from temporalio.envconfig import ClientConnectConfig
    from temporalio.worker import Worker

    from ..reporter import Reporter
    from ..server.connection import Connection
    from ..server.process import Served
    from ..settings import Settings

SHIPPED = "ckpt_agent.activities.analyst:agent"

__all__ = ["a_server", "a_worker", "server", "until_one_ends", "up", "worker"]


def up(
    agent: Agent = None,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    temporal_cli: TemporalCli = None,
    port: Port = None,
    ui_port: UiPort = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Start a Temporal server and a worker; Ctrl-C stops both."""

    async def work() -> None:
        settings = settings_from(
            agent=agent,
            task_queue=task_queue,
            temporal_cli=temporal_cli,
            port=port,
            ui_port=ui_port,
            home=home,
            database_url=db,
        )
        out = Output(as_json, settings)
        from ..reporter import TextReporter

        check_agent(settings)
        async with (
            a_server(settings, TextReporter(), address, namespace) as (connection, served),
            a_worker(settings, connection) as running,
        ):
            _say_ready(out, settings, connection)
            out.following(_question(settings), "ckpt list")
            await until_one_ends(running, served)

    run(work(), as_json=as_json, stopped=0)


def server(
    locate: Annotated[
        bool,
        typer.Option("--locate", help="Only find or obtain the executable; print where it is."),
    ] = False,
    address: Address = None,
    namespace: Namespace = None,
    temporal_cli: TemporalCli = None,
    port: Port = None,
    ui_port: UiPort = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start a Temporal development server that keeps its data; Ctrl-C stops it."""

    async def work() -> None:
        settings = settings_from(temporal_cli=temporal_cli, port=port, ui_port=ui_port, home=home)
        out = Output(as_json, settings)
        from ..reporter import TextReporter

        if locate:
            from ..server.search import find_executable

            found = await find_executable(
                TextReporter(), cache=settings.cache, named=settings.temporal_cli
            )
            out.say(str(found))
            out.data({"executable": str(found)})
            return
        async with a_server(settings, TextReporter(), address, namespace) as (connection, served):
            if served is None:
                out.say(f"a Temporal server answers at {connection.address} already: nothing to do")
                out.data({"address": connection.address, "started": False})
            else:
                out.say(f"Temporal server at {connection.address}, web page {connection.ui}")
                out.say(f"it keeps its workflows in {served.server.database}; Ctrl-C stops it")
                out.data({**asdict(served.server), "started": True})
            out.following("ckpt worker")
            if served is not None:
                await until_one_ends(None, served)

    run(work(), as_json=as_json, stopped=None if locate else 0)


def worker(
    agent: Agent = None,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Start a worker for agents, yours or the shipped analyst; Ctrl-C stops it."""

    async def work() -> None:
        settings = settings_from(agent=agent, task_queue=task_queue, home=home, database_url=db)
        out = Output(as_json, settings)
        from ..server.connection import choose

        connection = await choose(settings.home, address, namespace)
        async with a_worker(settings, connection) as running:
            _say_ready(out, settings, connection)
            out.following(_question(settings))
            await until_one_ends(running, None)

    run(work(), as_json=as_json, stopped=0)


@contextlib.asynccontextmanager
async def a_server(
    settings: Settings, report: Reporter, address: str | None, namespace: str | None
) -> AsyncIterator[tuple[Connection, Served | None]]:
    """Have a server until the block is left: the given one, ours that runs, or a new one.

    Raises:
        CliError: The given one does not answer, or none can be found, obtained or started.
    """
    from ..opening import connect
    from ..server.connection import Connection, answers, given
    from ..server.process import recorded, serve
    from ..server.search import find_executable

    if named := given(address, namespace):
        report.line(f"temporal server: at {named.address}, given by {named.source}")
        await connect(named)
        yield named, None
        return
    report.line("temporal server: no address given (TEMPORAL_ADDRESS, TEMPORAL_PROFILE)")
    if (ours := recorded(settings.home)) and await answers(ours.address):
        report.line(f"temporal server: ckpt's own runs at {ours.address}")
        yield Connection(_config(ours.address, namespace), "ckpt's own server", ours.ui), None
        return
    executable = await find_executable(report, cache=settings.cache, named=settings.temporal_cli)
    async with serve(
        executable, settings.home, port=settings.port, ui_port=settings.ui_port
    ) as served:
        report.line(f"temporal server: started at {served.server.address}")
        config = _config(served.server.address, namespace)
        yield Connection(config, "ckpt's own server", served.server.ui), served


def check_agent(settings: Settings) -> None:
    """Refuse an agent that is not there, or that needs what is not, before a server starts.

    Raises:
        AgentNotLoaded: It cannot be loaded.
        ModuleNotFoundError: The extra with what runs agents is not installed.
    """
    import ckpt_agent.worker  # noqa: F401

    from ...contrib.agent import load_agent

    load_agent(settings.agent or SHIPPED)


@contextlib.asynccontextmanager
async def a_worker(settings: Settings, connection: Connection) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker until the block is left; the task ends early only where the worker fails.

    Raises:
        CliError: The server does not answer.
        CheckpointError: The agent cannot be loaded, or the checkpoints cannot be opened.
    """
    from ckpt_agent.worker import POLICIES, make_worker

    from ...contrib.agent import load_agent
    from ...temporal import CheckpointPlugin
    from ..opening import connect, open_engine

    spec = load_agent(settings.agent or SHIPPED)
    async with open_engine(settings, create=True):
        pass  # a database that cannot be opened is an error now, not in the first step
    plugin = CheckpointPlugin(settings.engine_url, policies=POLICIES, keys=settings.keyring)
    client = await connect(connection, plugins=[plugin])
    running = asyncio.create_task(_run(make_worker(client, spec, task_queue=settings.task_queue)))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until_one_ends(running: asyncio.Task[None] | None, served: Served | None) -> None:
    """Wait until the worker fails or the server ends, which is an error; or for ever.

    Raises:
        CliError: The server ended.
    """
    from ..errors import CliError, Exit

    ended = asyncio.ensure_future(served.process.wait()) if served is not None else None
    waits: list[asyncio.Future[Any]] = [w for w in (running, ended) if w is not None]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if ended is not None and ended.done():
            log = Path(served.server.database).with_name("server.log") if served else ""
            raise CliError("the Temporal server ended", f"see {log}", Exit.NO_SERVER)
        if running is not None:
            await running
    finally:
        if ended is not None:
            ended.cancel()


async def _run(worker: Worker) -> None:
    await worker.run()


def _config(address: str, namespace: str | None) -> ClientConnectConfig:
    config: ClientConnectConfig = {"target_host": address}
    if namespace:
        config["namespace"] = namespace
    return config


def _question(settings: Settings) -> str:
    asked = "How many rainy days are there a year?" if settings.agent is None else "…"
    queue = settings.task_queue
    other = f" --task-queue {quote(queue)}" if queue != type(settings)().task_queue else ""
    return f'ckpt run "{asked}"{other}'


def _say_ready(out: Output, settings: Settings, connection: Connection) -> None:
    agent = settings.agent or "the shipped analyst"
    out.say(f"worker started: task queue {settings.task_queue}, agent {agent}")
    out.say(f"Temporal server {connection.address}, namespace {connection.namespace}")
    if connection.ui:
        out.say(f"web page {connection.ui}")
    out.say(f"checkpoints in {settings.shown_url}")
    out.say("Ctrl-C stops")
    out.data(
        {
            "address": connection.address,
            "namespace": connection.namespace,
            "ui": connection.ui,
            "task_queue": settings.task_queue,
            "agent": settings.agent,
            "database": settings.shown_url,
        }
    )
