"""``key``: what content and payloads are encrypted with."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Json
from ..output import Output
from ..running import run

__all__ = ["key"]


def key(
    name: Annotated[str, typer.Argument(help="What to call it; the name is stored in the clear.")],
    as_json: Json = False,
) -> None:
    """Make a new encryption key and print it; nothing keeps it but you.

    Content and payloads are encrypted where CKPT_KEYS is set, for the worker and for every
    command. To take up a new key, put it first and keep the older ones behind it:
    CKPT_KEYS=new:...,old:...
    """

    async def work() -> None:
        from ...keys import Keyring, new_key

        made = new_key(name)
        Keyring.parse(made)
        out = Output(as_json)
        out.say(made)
        out.data({"name": name, "key": made})
        aside = Output(as_json=True)  # on stderr, so that $(ckpt key ...) is the key alone
        aside.following("export CKPT_KEYS='the line above'; a new database is then encrypted")

    run(work(), as_json=as_json)
