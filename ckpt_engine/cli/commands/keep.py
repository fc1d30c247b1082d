"""``gc``, ``verify`` and ``forget``: what is kept, whether it is sound, and what must not be."""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Database, Home, Json, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine, CollectReport, ForgetReport, Thread

    from ..opening import SessionRef

__all__ = ["forget", "gc", "verify"]

SessionName = Annotated[
    str | None, typer.Argument(help="Workflow id (or the start of it); every session when absent.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it, without asking.")]


def gc(
    context: typer.Context,
    keep: Annotated[
        str,
        typer.Option(
            help="What to keep: all, last:N, milestones:N, age:30d; /session after a number for "
            "the session as a whole; combined with | and &."
        ),
    ] = "",
    session: Annotated[
        str | None,
        typer.Option(help="Workflow id (or the start of it); every session when absent."),
    ] = None,
    thread: Annotated[
        str | None,
        typer.Option(help="Only this thread of it (of the newest session, if none is named)."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; else only say what.")] = False,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Remove checkpoints that need not be kept; without --yes, only say which.

    Heads, branch points, merge bases, tagged and pinned checkpoints always stay.
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> None:
        from ...retention_words import parse_retention
        from ..errors import CliError, Exit
        from ..opening import open_engine

        if not keep:
            raise CliError("nothing says what to keep", "such as --keep 'last:100'", Exit.USAGE)
        policy = parse_retention(keep)
        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            places = await _places(engine, session, thread)
            reports = await _collect_all(engine, policy, places, dry_run=not yes)
        _print_collected(out, reports, None if yes else _command(keep, session, thread))

    run(work(), as_json=as_json)


def _command(keep: str, session: str | None, thread: str | None) -> str:
    """Return the command that does what was only said."""
    words = ["ckpt", "gc", "--keep", keep]
    for option, value in (("--session", session), ("--thread", thread)):
        words += [option, value] if value is not None else []
    return shlex.join([*words, "--yes"])


async def _places(
    engine: CheckpointEngine, session: str | None, thread: str | None
) -> list[dict[str, str]]:
    """Return what each collection is of, as arguments of ``collect``."""
    from ..opening import find_session

    if thread is not None or session is not None:
        found = await find_session(engine, session)
        line = await _line(engine, found, session, thread)
        return [{"session_id": found.id} if line is None else {"thread_id": line.id}]
    return [{"session_id": root.id} for root in await engine.list_sessions(limit=sys.maxsize)]


async def _line(
    engine: CheckpointEngine, found: SessionRef, session: str | None, thread: str | None
) -> Thread | None:
    """Return the one thread that is meant; ``None`` for the whole session."""
    from ...errors import ThreadNotFound
    from ..sessions import find_thread

    if thread is not None:
        return await find_thread(engine, found.id, thread)
    if found.line is not None or session is None:
        return found.line
    with contextlib.suppress(ThreadNotFound):
        named = await engine.get_thread(session)
        return named if named.id != found.root.id else None
    return None


async def _collect_all(
    engine: CheckpointEngine, policy: Any, places: list[dict[str, str]], *, dry_run: bool
) -> list[CollectReport]:
    from ..reporter import TextReporter

    reporter = TextReporter()
    reports: list[CollectReport] = []
    for number, place in enumerate(places, 1):
        reports.append(await engine.collect(policy, dry_run=dry_run, **place))
        if sys.stderr.isatty():
            dropped = sum(len(report.dropped) for report in reports)
            reporter.progress(
                f"{number} of {len(places)} sessions, {dropped} checkpoints to remove"
            )
    if sys.stderr.isatty():
        reporter.progress("")
    return reports


def _print_collected(out: Output, reports: list[CollectReport], to_do_it: str | None) -> None:
    dry_run = to_do_it is not None
    dropped = [checkpoint_id for report in reports for checkpoint_id in report.dropped]
    kept: dict[str, int] = {}
    for report in reports:
        for reason, count in report.kept.items():
            kept[reason] = kept.get(reason, 0) + count
    freed = sum(report.bytes_freed for report in reports)
    messages = sum(report.messages_kept for report in reports)
    out.data(
        {
            "dropped": dropped,
            "kept": kept,
            "bytes_freed": freed,
            "messages_kept": messages,
            "dry_run": dry_run,
        }
    )
    if out.as_json:
        return
    out.say(f"{'would remove' if dry_run else 'removed'} {_count(len(dropped), 'checkpoint')}")
    for reason, count in kept.items():
        out.say(f"kept {count}: {reason}")
    if messages:
        stay = _count(messages, "message")
        out.say(f"{stay} of checkpoints that are gone stay: later ones have them, or their rows")
    if to_do_it is not None and dropped:
        out.following(to_do_it)
    elif not dry_run:
        out.say(f"{freed:,} bytes given back")


def verify(home: Home = None, db: Database = None, as_json: Json = False) -> None:
    """Check every checkpoint and everything it stands on; exit with 1 if something is wrong."""

    async def work() -> int:
        from ..opening import open_engine

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            report = await engine.verify()
        problems = [asdict(problem) for problem in report.problems]
        out.data(
            {
                "ok": report.ok,
                "checkpoints": report.checkpoints,
                "threads": report.threads,
                "problems": problems,
            }
        )
        if not as_json:
            for problem in report.problems:
                of = f" ({', '.join(problem.threads)})" if problem.threads else ""
                out.say(f"{problem.kind} {problem.where}{of}: {problem.what}")
            looked = f"{_count(report.checkpoints, 'checkpoint')} of "
            looked += _count(report.threads, "thread")
            out.say(f"{looked}: {'sound' if report.ok else _count(len(problems), 'problem')}")
        return 0 if report.ok else 1

    run(work(), as_json=as_json)


def forget(
    session: Annotated[str, typer.Argument(help="Workflow id (or the start of it).")],
    thread: Annotated[
        str | None,
        typer.Option(help="Only this thread and those that began in it, by branch name or id."),
    ] = None,
    yes: Yes = False,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Erase a session, or a thread of it, for good: no byte of its content is left.

    It cannot be undone. A workflow that still runs an erased thread fails at its next step.
    Temporal's own histories (inputs and results of workflows) are not touched.
    """

    async def work() -> int:
        from ...errors import Erased
        from ..opening import find_session, open_engine

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        async with open_engine(settings) as engine:
            try:
                found = await find_session(engine, session)
            except Erased:  # but old bytes of it may be left
                given, what = {"thread_id": session}, f"what was left of {session}"
            else:
                chosen = await _line(engine, found, session, thread)
                given, what = {"session_id": found.id}, f"session {found.name}"
                if chosen is not None:
                    given = {"thread_id": chosen.id}
                    what = f"thread {chosen.branch} of {found.name}"
            if not yes:
                _confirm(what)
            report = await engine.forget(**given)
        _print_forgotten(out, what, report)
        if report.pending:
            out.following(f"ckpt forget {shlex.quote(next(iter(given.values())))} --yes")
        return 1 if report.pending else 0

    run(work(), as_json=as_json)


def _confirm(what: str) -> None:
    from ..errors import CliError, Exit

    if not sys.stdin.isatty():
        raise CliError("this cannot be undone", "say that you mean it: --yes", Exit.USAGE)
    if not typer.confirm(f"Erase {what} for good?", err=True):
        raise CliError("nothing was erased")


def _print_forgotten(out: Output, what: str, report: ForgetReport) -> None:
    out.data(
        {
            "erased": list(report.erased),
            "kept": dict(report.kept),
            "pending": report.pending,
        }
    )
    if out.as_json:
        return
    out.say(f"erased {what}: {_count(len(report.erased), 'checkpoint')}")
    for checkpoint_id, why in report.kept.items():
        out.say(f"kept {checkpoint_id[:7]}: {why}")
    if report.pending:
        out.say("old bytes are still in the file, since a reader holds them; do it again later")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
