"""One PostgreSQL server for the whole run, and a schema in it for each test."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
from pathlib import Path

import pytest

from ckpt_engine.testing.postgres import NoPostgresError, PostgresServer

__all__ = ["server", "url_in"]


@functools.cache
def _started() -> PostgresServer | NoPostgresError:
    try:
        made = PostgresServer(fsync="off", max_connections="300")
    except NoPostgresError as err:
        return err
    atexit.register(made.stop)
    return made


def server() -> PostgresServer:
    """Return the server; where there can be none, skip, or fail as CI has it (CKPT_POSTGRES)."""
    found = _started()
    if isinstance(found, PostgresServer):
        return found
    if os.environ.get("CKPT_POSTGRES") == "required":
        raise found
    pytest.skip(str(found))


def url_in(folder: Path) -> str:
    """Return the URL of a schema that belongs to a test's folder."""
    return server().url("t" + hashlib.blake2b(str(folder).encode(), digest_size=12).hexdigest())
