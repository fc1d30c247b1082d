"""What is to befall a worker process, and where: set once, when the process begins."""

from __future__ import annotations

import signal
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from sqlalchemy import event
from sqlalchemy.pool import Pool

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


@dataclass
class Doom:
    """At a point of a node's step, once, the process is killed or frozen, or the body is held.

    Attributes:
        point: ``before-attempt``, ``before-body``, ``in-body``, ``after-body``,
            ``in-transaction`` (the checkpoint's row is written, not committed), ``at-commit``,
            ``after-commit``.
        node: Of which node.
        fate: What happens there; a hold ends when the file ``let_go`` is there.
        let_go: See ``fate``.
    """

    point: str = ""
    node: int = -1
    fate: Literal["", "kill", "freeze", "hold"] = ""
    let_go: str = ""

    def holds(self, point: str, node: int) -> bool:
        hit = self.fate == "hold" and (self.point, self.node) == (point, node)
        return hit and not Path(self.let_go).exists()


DOOM = Doom()
_armed = False


def set_doom(doom: Doom) -> None:
    DOOM.__dict__.update(doom.__dict__)
    if DOOM.point in ("in-transaction", "at-commit"):
        event.listen(Pool, "connect", _watch)
        _watch_postgres()


def _watch(database: Any, _: object) -> None:
    if isinstance(database, sqlite3.Connection):
        database.set_trace_callback(_at_statement)


def _watch_postgres() -> None:
    execute = psycopg.Connection.execute

    def watched(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        _at_statement(query)
        return execute(self, query, *args, **options)

    psycopg.Connection.execute = watched  # type: ignore[method-assign]


def at_point(point: str, node: int) -> None:
    """Meet one's fate, if this is the place."""
    global _armed
    if node == DOOM.node and point == "after-body":
        _armed = True
    if (point, node) == (DOOM.point, DOOM.node) and DOOM.fate in SIGNALS:
        DOOM.point = "past"
        # to this very thread: by way of another one, it would go on for a moment
        signal.pthread_kill(threading.get_ident(), SIGNALS[DOOM.fate])


def _at_statement(sql: str) -> None:
    if _armed and DOOM.point == "in-transaction" and 'INSERT INTO "checkpoint"' in sql:
        at_point("in-transaction", DOOM.node)
    if _armed and DOOM.point == "at-commit" and sql == "COMMIT":
        at_point("at-commit", DOOM.node)
