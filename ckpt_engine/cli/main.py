"""The ``ckpt`` command: rewind and branch for durable AI agents."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from .commands import compare, db, experiment, keep, keys, look, schedule, serve, start, travel

__all__ = ["app", "main"]

_HELP = (
    "Rewind and branch for durable AI agents on Temporal.\n\n"
    "Checkpoints are named by id, as short as is unique (four digits or more); sessions by the id "
    "of their workflow, or the start of it; without one, the newest session is meant."
)
_EPILOG = (
    "Exit codes: 0 done · 1 the work failed · 2 the request is wrong · 3 no such session, "
    "checkpoint or tag · 4 no Temporal server · 5 no usable checkpoint database · 6 an experiment "
    "without a winner · 130 interrupted"
)


def _version(asked: bool) -> None:
    if asked:
        look.version()
        raise typer.Exit


app = typer.Typer(
    name="ckpt",
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_RUN, _LOOK, _TRAVEL, _OPERATE = "Run", "Look", "Travel in time", "Operate"

app.command(rich_help_panel=_RUN)(start.demo)
app.command(rich_help_panel=_RUN)(serve.up)
app.command(rich_help_panel=_RUN)(serve.server)
app.command(rich_help_panel=_RUN)(serve.worker)
app.command(rich_help_panel=_RUN)(start.run)
app.command("list", rich_help_panel=_LOOK)(look.list_)
app.command(rich_help_panel=_LOOK)(look.log)
app.command(rich_help_panel=_LOOK)(look.show)
app.command(rich_help_panel=_LOOK)(look.tree)
app.command(rich_help_panel=_LOOK)(compare.diff)
app.command(rich_help_panel=_LOOK)(look.version)
app.command(rich_help_panel=_TRAVEL)(travel.rewind)
app.command(rich_help_panel=_TRAVEL)(travel.branch)
app.add_typer(experiment.app, name="experiment", rich_help_panel=_TRAVEL)
_gc = typer.Typer(invoke_without_command=True)
_gc.callback()(keep.gc)
_gc.command()(schedule.schedule)
app.add_typer(_gc, name="gc", rich_help_panel=_OPERATE)
app.command(rich_help_panel=_OPERATE)(keep.verify)
app.command(rich_help_panel=_OPERATE)(keep.forget)
app.command(rich_help_panel=_OPERATE)(keys.key)
app.add_typer(db.app, name="db", rich_help_panel=_OPERATE)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the versions.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as done:
        if "temporalio.bridge" not in sys.modules or not isinstance(done.code, int):
            raise
        # Threads of the SDK's may still be letting go of an answer, which crashes an interpreter
        # that is being taken down. Everything of ours is closed by now.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(done.code)
