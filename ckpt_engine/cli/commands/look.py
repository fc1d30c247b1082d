"""``list``, ``log``, ``show`` and ``tree``: look without changing anything."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Address, Database, Home, Json, Namespace, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from ...model import CheckpointInfo, CheckpointTree, Thread
    from ..opening import SessionRef

__all__ = ["Format", "list_", "log", "show", "tree", "version"]

Session = Annotated[
    str | None, typer.Argument(help="Workflow id (or the start of it); the newest when absent.")
]


class Format(StrEnum):
    """How a tree is written."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """List the sessions, newest first, and how their workflows stand."""

    async def work() -> None:
        from ..opening import open_engine
        from ..sessions import rows_of, statuses

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            rows = await rows_of(engine, limit)
        runs = {name: (name, "") for row in rows if (name := row["workflow_id"])}
        found = await statuses(settings.home, address, namespace, runs) if runs else {}
        for row in rows:
            row["status"] = found.get(row["workflow_id"]) if found is not None else None
        out.data(rows)
        if not as_json:
            _print_list(out, rows, found is not None)

    run(work(), as_json=as_json)


def log(
    session: Session = None,
    graph: Annotated[bool, typer.Option("--graph", help="Draw every thread.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show steps as they happen, until it ends.")
    ] = False,
    thread: Annotated[
        str | None, typer.Option(help="A thread, by branch name or id; else the active one.")
    ] = None,
    trigger: Annotated[str | None, typer.Option(help="Only of this trigger.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    before: Annotated[int | None, typer.Option(help="Only before this step.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 100,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Show the checkpoints of a thread (or, as a graph, of the session), newest first."""

    async def work() -> int:
        from ..opening import find_session, open_engine
        from ..sessions import current_thread, find_thread, statuses_of_threads

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            if follow:
                return await _follow(out, settings, engine, session, address, namespace)
            found = await find_session(engine, session)
            chosen = await current_thread(engine, found)
            if graph:
                whole = await engine.get_checkpoint_tree(found.id)
                stand = await statuses_of_threads(whole, settings.home, address, namespace)
                _print_graph(out, whole, stand, limit)
            else:
                if thread:
                    chosen = await find_thread(engine, found.id, thread)
                points = await engine.list_time_travel_points(
                    chosen.id, limit=limit, before=before, trigger=_trigger(trigger), tag=tag
                )
                names = {t.id: t.branch for t in await engine.list_threads(found.id)}
                _print_log(out, found, chosen, points, names)
            out.following(f"ckpt show {_example(chosen)}")
        return 0

    run(work(), as_json=as_json)


def show(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A checkpoint's id, or a session (the newest when absent): its head."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every message, no text cut.")] = False,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Show a checkpoint whole: where it stands, state, conversation, result."""

    async def work() -> None:
        from ..describe import describe
        from ..exports import checkpoint_json
        from ..opening import decoder, open_engine
        from ..sessions import find_checkpoint

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            info = await find_checkpoint(engine, checkpoint)
            whole = await engine.get(info.id)
            thread = await engine.get_thread(whole.thread_id)
            agents = await engine.runs(whole.session_id)
        decode = decoder(settings)
        out.data(checkpoint_json(whole, decode))
        if not as_json:
            out.lines(describe(whole, thread, everything=full, decode=decode))
        short = whole.id[:7]
        if agents:  # else no workflow can go on from it
            out.following(f'ckpt rewind {short} --say "…"', f"ckpt branch {short} --name other")

    run(work(), as_json=as_json)


def tree(
    session: Session = None,
    format_: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.TEXT,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Draw a session: its threads as lanes, where forks leave, which one goes on."""

    async def work() -> None:
        from ..exports import to_dot, to_mermaid, tree_json
        from ..opening import find_session, open_engine
        from ..sessions import statuses_of_threads

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json or format_ is Format.JSON, settings)
        async with open_engine(settings) as engine:
            found = await find_session(engine, session)
            whole = await engine.get_checkpoint_tree(found.id)
        if out.as_json or format_ is Format.TEXT:
            stand = await statuses_of_threads(whole, settings.home, address, namespace)
        if out.as_json:
            out.data(tree_json(whole, stand))
        elif format_ is Format.TEXT:
            _print_tree(out, whole, stand)
        else:
            print((to_mermaid if format_ is Format.MERMAID else to_dot)(whole), end="")

    run(work(), as_json=as_json)


def version(as_json: Json = False) -> None:
    """Print the versions of ckpt-engine and of Temporal's SDK."""
    from importlib.metadata import version as of

    out = Output(as_json)
    found = {name: of(name) for name in ("ckpt-engine", "temporalio")}
    out.data(found)
    if not as_json:
        out.say("\n".join(f"{name} {number}" for name, number in found.items()))


def _print_list(out: Output, rows: list[dict[str, Any]], asked: bool) -> None:
    from rich.text import Text

    from ..render import clean

    if not rows:
        out.say("no sessions yet")
        out.following("ckpt demo")
        return
    width = max(len(clean(row["workflow_id"] or row["session"])) for row in rows)
    for row in rows:
        name = clean(row["workflow_id"] or row["session"])
        status = row["status"] or "-"
        threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
        line = Text.assemble(
            (f"{name:<{width}}  ", "bold"),
            (f"{status:<10} ", "red" if status in {"failed", "timed_out"} else ""),
            (f"{_local(row['created_at'])}  ", "dim"),
            f"{threads:<10} {clean(row['active_branch'])} at step {row['step']}  ",
            (clean(row["about"]), "dim"),
        )
        if out.width is not None:
            line.truncate(out.width, overflow="ellipsis")
        line.rstrip()
        out.say(line)
    if not asked:
        out.say("(no Temporal server answers, so no status is known)", "dim")
    first = shlex.quote(rows[0]["workflow_id"] or rows[0]["session"])
    out.following(f"ckpt tree {first}", f"ckpt log {first}")


def _local(moment: str) -> str:
    from datetime import datetime

    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _print_log(
    out: Output,
    session: SessionRef,
    thread: Thread,
    points: list[CheckpointInfo],
    names: dict[str, str],
) -> None:
    from ..exports import info_json
    from ..render import short_ids, step_line

    out.data([info_json(info) for info in points])
    if out.as_json:
        return
    out.say(f"{session.name}, thread {thread.branch}, newest first", "dim")
    short = short_ids(info.id for info in points)
    for info in points:
        line = step_line(info, names.get(info.thread_id, ""), short=short[info.id])
        if out.width is not None:
            line.truncate(out.width, overflow="ellipsis")
        out.say(line)


def _print_tree(out: Output, whole: CheckpointTree, stand: Mapping[str, str]) -> None:
    from ..render import draw_tree, legend

    out.lines(draw_tree(whole, width=out.width, statuses=stand))
    out.say(legend(whole), "dim")
    active = next(t for t in whole.threads if t.id == whole.active_thread)
    failed = [
        f"ckpt log {shlex.quote(whole.runs[thread].workflow_id)} --follow"
        for thread, status in stand.items()
        if status in {"failed", "timed_out"}
    ]
    out.following(f"ckpt show {_example(active)}", *failed[:1])


def _print_graph(out: Output, whole: CheckpointTree, stand: Mapping[str, str], limit: int) -> None:
    from ..exports import tree_json
    from ..render import draw_tree

    out.data(tree_json(whole, stand))
    if not out.as_json:
        lines = draw_tree(whole, width=out.width, newest_first=True, statuses=stand)
        out.lines(lines[:limit])
        if len(lines) > limit:
            out.say(f"… {len(lines) - limit} more lines; all with --limit {len(lines)}", "dim")


async def _follow(
    out: Output,
    settings: Any,
    engine: CheckpointEngine,
    session: str | None,
    address: str | None,
    namespace: str | None,
) -> int:
    from ..opening import connect, find_session
    from ..server.connection import choose
    from .start import follow_agent

    client = await connect(await choose(settings.home, address, namespace))
    name = session
    if session is None or await engine.find_run(session) is None:
        name = (await find_session(engine, session)).name
    assert name is not None
    return await follow_agent(out, engine, client.get_workflow_handle(name))


def _trigger(name: str | None) -> Any:
    from ...model import SnapshotTrigger
    from ..errors import CliError, Exit
    from ..render import trigger_word

    if name is None:
        return None
    for trigger in SnapshotTrigger:
        if name.lower() in (trigger, trigger_word(trigger)):
            return trigger
    known = ", ".join(SnapshotTrigger)
    raise CliError(f"no trigger {name!r}", f"there are {known}", Exit.USAGE)


def _example(thread: Thread) -> str:
    return thread.head[:7] if thread.head else "CHECKPOINT"
