"""``experiment``: many variants from one checkpoint, scored, and the best promoted."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Address, Database, Home, Json, Namespace, TaskQueue, settings_from
from ..output import Output
from ..running import run as run_work

if TYPE_CHECKING:
    from temporalio.client import Client

    from ckpt_engine.experiments import Report

    from ..settings import Settings

__all__ = ["app"]

_EPILOG = (
    "Exit codes of run, status and report: 0 a variant has won · 6 no winner · 1 the experiment "
    "failed, was cancelled or has not ended · the others as everywhere (ckpt --help)"
)

app = typer.Typer(
    help="Try many variants from one checkpoint, compare them, and promote the best.",
    epilog=_EPILOG,
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The experiment's name.")]


@app.command(epilog=_EPILOG)
def run(
    spec: Annotated[Path, typer.Argument(help="The specification, YAML or JSON.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for it.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run it anew, where one of this name has ended.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the specification.")] = False,
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Run an experiment, or attach to the one that runs; it lives on without this command."""

    async def work() -> int:
        from ..agents import has_worker
        from ..experiments import attach, read_file

        out = Output(as_json)
        settings = settings_from(task_queue=task_queue, home=home, database_url=db)
        read = read_file(spec)
        if check:
            trials = len(read.variants) * len(read.rounds()) * read.repeats
            out.say(f"{spec}: {read.name}, {len(read.variants)} variants, {trials} trials")
            out.data({"name": read.name, "trials": trials, "digest": read.digest()})
            return 0
        client = await _client(settings, address, namespace)
        handle, new = await attach(client, read, settings, again=again)
        out.say(f"{'started' if new else 'attached to'} {handle.id}")
        if not await has_worker(client, settings.task_queue):
            out.say("no worker listens yet; start one in another terminal: ckpt worker", "yellow")
        if detach:
            out.data({"experiment_id": handle.id, "started": new})
            out.following(f"ckpt experiment status {quote(read.name)}")
            return 0
        return await _follow(out, client, handle)

    run_work(work(), as_json=as_json)


@app.command(epilog=_EPILOG)
def status(
    name: Name,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show how an experiment stands."""

    async def work() -> int:
        from ..at_work import at_work, board_of_work
        from ..experiments import code_of, standing
        from ..render import clean

        out, settings = Output(as_json), settings_from(home=home)
        client = await _client(settings, address, namespace)
        report = await standing(client, name)
        _print(out, report)
        if not as_json and (work := await at_work(client, report)):
            out.console.print(board_of_work(report, work))
        waiting = [t.name for t in report.trials if t.state == "scoring"]
        if waiting and report.scorer == "person":
            out.say(f"{len(waiting)} trials wait for a person's score, such as:", "yellow")
            if report.ask:
                out.say(clean(report.ask), "bold")
            out.following(
                *(f"ckpt experiment score {quote(name)} {quote(one)} 0.8" for one in waiting[:3])
            )
        return code_of(report)

    run_work(work(), as_json=as_json)


@app.command(epilog=_EPILOG)
def report(
    name: Name,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page to this file.")
    ] = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Report on an experiment, in the terminal, as JSON, or as a page."""

    async def work() -> int:
        from ..experiment_report import print_report, write_page
        from ..experiments import code_of, promotions, standing
        from ..opening import open_engine

        out, settings = Output(as_json), settings_from(home=home, database_url=db)
        client = await _client(settings, address, namespace)
        found = await standing(client, name)
        promoted = await promotions(client, found)
        out.data(
            {
                **found.model_dump(mode="json"),
                "promotions": [p.model_dump(mode="json") for p in promoted],
            }
        )
        if not as_json:
            print_report(out, found, promoted)
        if html is not None:
            async with open_engine(settings) as engine:
                await write_page(html, engine, found, promoted)
            out.say(f"page written: {html}")
        return code_of(found)

    run_work(work(), as_json=as_json)


@app.command()
def promote(
    name: Name,
    why: Annotated[str, typer.Option(help="Why; kept in the record.")],
    by: Annotated[str | None, typer.Option(help="Who decides; your user name.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="This variant's best trial; else the winner's.")
    ] = None,
    trial: Annotated[
        str | None, typer.Option(help="This trial, as VARIANT/QUESTION/REPEAT.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(help="Merge into this thread, instead of a rewind of the session.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="Conflicts of a merge: raise, ours or theirs.")
    ] = "raise",
    task_queue: TaskQueue = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a trial's branch the one that its session goes on with, or merge it."""

    async def work() -> int:
        from ..experiment_report import promote_trial
        from ..experiments import best_trial, standing

        out, settings = Output(as_json), settings_from(task_queue=task_queue, home=home)
        client = await _client(settings, address, namespace)
        found = await standing(client, name)
        chosen = best_trial(found, variant, trial)
        done = await promote_trial(
            client,
            found,
            chosen,
            task_queue=settings.task_queue,
            into=into or "",
            strategy=strategy,
            by=by,
            why=why,
        )
        verb = "merged into" if done.how == "merge" else "is what the session goes on with, as"
        out.say(f"{done.trial} {verb} thread {done.thread}")
        out.say(f"decided by {done.by} at {done.at}: {done.why}", "dim")
        out.data(done.model_dump(mode="json"))
        out.following(f"ckpt show {done.checkpoint[:7]}")
        return 0

    run_work(work(), as_json=as_json)


@app.command()
def score(
    name: Name,
    trial: Annotated[str, typer.Argument(help="The trial, as VARIANT/QUESTION/REPEAT.")],
    value: Annotated[float, typer.Argument(help="The score; more is better.")],
    why: Annotated[str, typer.Option(help="Why.")] = "",
    by: Annotated[str | None, typer.Option(help="Who judges; your user name.")] = None,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Give a trial that waits for a person its score."""

    async def work() -> int:
        from ..experiment_report import give_score
        from ..experiments import find

        out, settings = Output(as_json), settings_from(home=home)
        client = await _client(settings, address, namespace)
        given = await give_score(await find(client, name), trial, value, why=why, by=by)
        out.say(f"{given.name} scored {given.score:g} by {given.by}")
        out.data(given.model_dump(mode="json"))
        return 0

    run_work(work(), as_json=as_json)


@app.command()
def cancel(
    name: Name,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """End an experiment early; what has come of it so far stays, and is reported."""

    async def work() -> int:
        from ..experiments import find, result_of

        out, settings = Output(as_json), settings_from(home=home)
        client = await _client(settings, address, namespace)
        handle = await find(client, name)
        await handle.cancel()
        _print(out, await result_of(handle))
        return 0

    run_work(work(), as_json=as_json)


async def _client(settings: Settings, address: str | None, namespace: str | None) -> Client:
    from ..opening import connect
    from ..server.connection import choose

    return await connect(await choose(settings.home, address, namespace))


async def _follow(out: Output, client: Client, handle: object) -> int:
    from typing import Any, cast

    from ..at_work import at_work
    from ..experiments import code_of, current, result_of
    from ..scoreboard import watch

    known = cast("Any", handle)
    found = await watch(
        out, lambda: current(known), result_of(known), lambda report: at_work(client, report)
    )
    _print(out, found)
    if found.verdict is not None:
        choice = "" if found.verdict.winner else " --variant NAME"
        out.following(
            f"ckpt experiment report {quote(found.name)} --html report.html",
            f'ckpt experiment promote {quote(found.name)}{choice} --why "…"',
        )
    return code_of(found)


def _print(out: Output, found: Report) -> None:
    from ..render import clean
    from ..scoreboard import board, reasons, summary_line

    out.data(found.model_dump(mode="json"))
    if out.as_json:
        return
    out.console.print(board(found))
    for reason in reasons(found):
        out.say(clean(reason), "yellow")
    out.say(summary_line(found), "dim")
    if found.state == "canceled":
        out.say("it was cancelled", "yellow")
    if found.verdict is not None:
        out.say(found.verdict.why, "bold")
