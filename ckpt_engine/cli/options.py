"""The options that several commands share, and the settings they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .settings import Settings

__all__ = [
    "Address",
    "Agent",
    "Database",
    "Home",
    "Json",
    "Namespace",
    "Port",
    "TaskQueue",
    "TemporalCli",
    "UiPort",
    "settings_from",
]

_SERVER, _KEPT = "Temporal server", "Where things are"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
]
Home = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoints and of the development server's database. [CKPT_HOME]",
        rich_help_panel=_KEPT,
    ),
]
Database = Annotated[
    str | None,
    typer.Option("--db", help="URL of the checkpoints. [CKPT_DATABASE_URL]", rich_help_panel=_KEPT),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Host and port of a running server. [TEMPORAL_ADDRESS, TEMPORAL_PROFILE]",
        rich_help_panel=_SERVER,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(help="Temporal namespace. [TEMPORAL_NAMESPACE]", rich_help_panel=_SERVER),
]
TaskQueue = Annotated[
    str | None,
    typer.Option(help="Task queue. [CKPT_TASK_QUEUE]", rich_help_panel=_SERVER),
]
TemporalCli = Annotated[
    str | None,
    typer.Option(
        help="A `temporal` executable to use and no other. [CKPT_TEMPORAL_CLI]",
        rich_help_panel=_SERVER,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(help="The server's port; 7233, or a free one. [CKPT_PORT]", min=1, max=65_535),
]
UiPort = Annotated[
    int | None,
    typer.Option(
        help="The web page's port; port + 1000, or a free one. [CKPT_UI_PORT]", min=1, max=65_535
    ),
]
Agent = Annotated[
    str | None,
    typer.Option(help="Your agent, as module:object; else the shipped analyst. [CKPT_AGENT]"),
]


def settings_from(**options: object) -> Settings:
    """Return the settings: options that were given, over the environment, over the defaults.

    Raises:
        CliError: An environment variable has an impossible value.
    """
    from pydantic import ValidationError

    from .errors import CliError, Exit
    from .settings import Settings

    try:
        settings = Settings.model_validate(
            {**Settings().model_dump(), **{k: v for k, v in options.items() if v is not None}}
        )
    except ValidationError as err:
        wrong = "; ".join(
            f"CKPT_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in err.errors()
        )
        raise CliError(f"a setting is wrong: {wrong}", "", Exit.USAGE) from None
    return settings
