"""``db``: the database itself: its version, its upgrade, its copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Database, Home, Json, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="The database itself: its version, its upgrade, its copy.", no_args_is_help=True
)


def _is_empty(version: str | None, settings: Settings) -> bool:
    """Tell whether a database without a version has nothing of ours, or is older than versions."""
    from ...quickstart import is_postgres

    return version is None and is_postgres(settings.engine_url)  # which had them from its first day


@app.command()
def status(home: Home = None, db: Database = None, as_json: Json = False) -> None:
    """Say which version the database has, and what is in it."""

    async def work() -> None:
        from ...quickstart import database_contents, database_version, newest_version

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        found = await database_version(settings.engine_url)
        newest = newest_version()
        facts: dict[str, Any] = {
            "url": settings.shown_url,
            "version": found,
            "newest": newest,
        }
        if found == newest:
            facts |= await database_contents(settings.engine_url)
        out.data(facts)
        if as_json:
            return
        empty = _is_empty(found, settings)
        none = "nothing there yet" if empty else "from before versions were kept"
        facts["version"] = found or f"none: {none}"
        for name, value in facts.items():
            out.say(f"{name:12}{value:,}" if isinstance(value, int) else f"{name:12}{value}")
        if found != newest and not empty:
            out.say("stop its workers before you upgrade it")
            out.following("ckpt db upgrade")

    run(work(), as_json=as_json)


@app.command()
def upgrade(home: Home = None, db: Database = None, as_json: Json = False) -> None:
    """Bring the database to the version of this release; all of it, or nothing."""

    async def work() -> None:
        from ...quickstart import database_version

        settings = settings_from(home=home, database_url=db)
        out = Output(as_json, settings)
        before = await database_version(settings.engine_url)
        after = await database_version(settings.engine_url, upgrade=True)
        out.data({"url": settings.shown_url, "before": before, "after": after})
        if as_json:
            return
        if _is_empty(before, settings):
            out.say(f"nothing was there yet; made the tables of version {after}")
            return
        was = f"version {before}" if before else "from before versions were kept"
        out.say(f"{was} already" if before == after else f"upgraded from {was} to {after}")

    run(work(), as_json=as_json)


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="URL of the database, or a file.")],
    target: Annotated[str, typer.Argument(help="URL of an empty one, or a new file.")],
    as_json: Json = False,
) -> None:
    """Copy everything into another database, of the same kind or not; ids stay.

    Stop the workers first. What was interrupted goes on where it was when it is run again. A
    password is better kept in PGPASSWORD or ~/.pgpass than in a URL here. With CKPT_KEYS set, a
    database that is not encrypted gets a copy that is.
    """

    async def work() -> None:
        from ...quickstart import copy_database, hide_password

        out, keys = Output(as_json), settings_from().keyring
        with _progress(out) as told:
            rows = await copy_database(source, target, told, keys=keys)
        out.data({"source": hide_password(source), "target": hide_password(target), "rows": rows})
        if as_json:
            return
        count = rows["checkpoint"]
        out.say(f"copied {count:,} checkpoints ({sum(rows.values()):,} rows), compared row by row")
        out.following(f"ckpt verify --db {quote(hide_password(target))}")

    run(work(), as_json=as_json)


@contextlib.contextmanager
def _progress(out: Output) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar a table on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, console=Console(stderr=True), disable=out.as_json)
    tasks: dict[str, Any] = {}

    with contextlib.ExitStack() as stack:

        def told(table: str, copied: int, total: int) -> None:
            if not tasks:  # not before: it would print an empty line where there is nothing to show
                stack.enter_context(shown)
            if table not in tasks:
                tasks[table] = shown.add_task(table, total=total)
            shown.update(tasks[table], completed=copied, total=total)

        yield told
