"""``diff``: two checkpoints or threads side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Database, Home, Json, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

__all__ = ["diff"]

Side = Annotated[
    str,
    typer.Argument(
        help="A checkpoint's id, a thread (its id, or its branch name in the newest session), or a "
        "session; of a thread or session its head is meant."
    ),
]


def diff(
    a: Side,
    b: Side,
    full: Annotated[bool, typer.Option("--full", help="No text cut.")] = False,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints or threads: messages from where they part, state, cost and time."""

    async def work() -> int:
        from ..diffing import difference, tables
        from ..opening import open_engine

        settings, out = settings_from(home=home, database_url=db), Output(as_json)
        async with open_engine(settings) as engine:
            found = await difference(engine, await _head(engine, a), await _head(engine, b))
        out.data(found.as_json())
        if as_json:
            return 0
        if found.base is None:
            out.say("they have no common ancestor", "dim")
        else:
            out.say(f"they part after step {found.base.step} ({found.base.id[:7]})", "dim")
        for table in tables(found, everything=full):
            out.console.print(table)
        return 0

    run(work(), as_json=as_json)


async def _head(engine: CheckpointEngine, name: str) -> str:
    """Return the checkpoint that a checkpoint's id, a thread or a session names."""
    from ...errors import ThreadNotFound
    from ..errors import CliError
    from ..sessions import find_checkpoint

    thread = None
    try:
        thread = await engine.get_thread(name)
    except ThreadNotFound:
        newest = await engine.list_sessions(limit=1)
        threads = await engine.list_threads(newest[0].id) if newest else []
        thread = next((t for t in threads if t.branch == name), None)
    if thread is None:
        return (await find_checkpoint(engine, name)).id
    if thread.head is None:
        raise CliError(f"thread {name!r} has no checkpoint yet", "")
    return thread.head
