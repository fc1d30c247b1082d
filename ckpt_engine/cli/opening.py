"""Open what a command needs: the checkpoints, a client, a session by any of its names."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ThreadNotFound
from ..model import Thread, WorkflowRun
from .errors import CliError, Exit
from .server.connection import CONNECT_SECONDS, Connection

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

    from .settings import Settings

__all__ = ["SessionRef", "connect", "database_path", "decoder", "find_session", "open_engine"]


@dataclass(frozen=True)
class SessionRef:
    """A session.

    Attributes:
        id: Its id.
        root: Its root thread.
        run: The workflow of its root thread, which is its address; ``None`` without one.
        line: The thread that was named, where it is not the root's.
        line_run: The workflow of that thread.
    """

    id: str
    root: Thread
    run: WorkflowRun | None
    line: Thread | None = None
    line_run: WorkflowRun | None = None

    @property
    def name(self) -> str:
        """What to call it on the command line: its workflow id."""
        return self.run.workflow_id if self.run else self.id

    @property
    def address(self) -> WorkflowRun | None:
        """The workflow to ask: that of the named branch, else of the session."""
        line = self.line_run
        return line if line is not None and line.supervisor is None else self.run


@contextlib.asynccontextmanager
async def open_engine(
    settings: Settings, *, create: bool = False
) -> AsyncIterator[CheckpointEngine]:
    """Open the checkpoints; close them when the block is left.

    Args:
        settings: Where they are.
        create: Make a new database where there is none.

    Raises:
        CliError: There is none.
    """
    from ckpt_engine import create_checkpoint_engine

    path = database_path(settings.engine_url)
    if path is not None and create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif path is not None and not path.exists():
        raise CliError(
            f"there is no checkpoint database {path}",
            "run an agent first (`ckpt demo`), or name another with --db or CKPT_DATABASE_URL",
            Exit.NO_DATABASE,
        )
    async with await create_checkpoint_engine(settings.engine_url, keys=settings.keyring) as engine:
        yield engine


def decoder(settings: Settings) -> Callable[[Payload], Payload] | None:
    """Return what undoes the encryption of payloads, where there are keys."""
    keys = settings.keyring
    if keys is None:
        return None
    from ..temporal.encryption import EncryptionCodec

    return EncryptionCodec(keys).opened


def database_path(url: str) -> Path | None:
    """Return the file of a SQLite URL (or bare path); ``None`` for any other database."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).expanduser()
    return None if ":" in url else Path(url).expanduser()


async def connect(connection: Connection, **more: Any) -> Client:
    """Return a client of a server.

    Args:
        connection: The server.
        more: Further arguments of ``Client.connect``, such as ``plugins``.

    Raises:
        CliError: It does not answer.
    """
    from temporalio.client import Client
    from temporalio.service import RPCError

    from ..temporal.encryption import data_converter
    from .settings import Settings

    converter = data_converter(Settings().keyring)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Client.connect(**connection.config, data_converter=converter, **more)
    except (RuntimeError, TimeoutError, OSError, ValueError, RPCError) as err:
        if wrong := re.search(r"InvalidCertificate\((.+?)\)", str(err)):
            raise CliError(
                f"the certificate of the Temporal server at {connection.address} is not trusted "
                f"({wrong[1]})",
                "set tls.server_ca_cert_path and tls.server_name in Temporal's configuration file",
                Exit.NO_SERVER,
            ) from None
        raise CliError(
            f"no Temporal server answers at {connection.address} ({connection.source}): "
            f"{_reason(err)}",
            "start one with `ckpt up`, or correct the address",
            Exit.NO_SERVER,
        ) from None


def _reason(err: Exception) -> str:
    """Return the operating system's words out of the many layers of a connection error."""
    text = str(err) or "it took too long"
    inner = re.findall(r'(?:message|error): "([^"]+)"', text)
    return inner[-1] if inner else text.splitlines()[0][:200]


async def find_session(engine: CheckpointEngine, name: str | None) -> SessionRef:
    """Return the session that a workflow id, the start of one, or a thread id names.

    Args:
        engine: The checkpoints.
        name: What was given; the newest session when absent.

    Raises:
        CliError: None, or several.
    """
    if name is None:
        newest = await engine.list_sessions(limit=1)
        if not newest:
            raise CliError("there are no sessions yet", "start one: ckpt demo", Exit.NOT_FOUND)
        return await _reference(engine, newest[0].session_id)
    if found := await engine.find_run(name):
        return await _with_line(engine, *found)
    with contextlib.suppress(ThreadNotFound):
        thread = await engine.get_thread(name)
        return await _with_line(
            engine, thread, (await engine.runs(thread.session_id)).get(thread.id)
        )
    sessions = [await _reference(engine, t.id) for t in await engine.list_sessions(limit=1000)]
    alike = [s for s in sessions if s.name.startswith(name) or s.id.startswith(name)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        names = ", ".join(s.name for s in alike[:5])
        raise CliError(f"{name!r} is the start of several sessions: {names}", "", Exit.USAGE)
    hint = "see what there is: ckpt list"
    with contextlib.suppress(CheckpointError):
        info = await engine.resolve(name)
        of = await _reference(engine, info.session_id)
        see = f"ckpt show {name}, or ckpt tree {quote(of.name)}"
        hint = f"it is a checkpoint of session {of.name}: {see}"
    raise CliError(f"no session {name!r}", hint, Exit.NOT_FOUND)


async def _with_line(
    engine: CheckpointEngine, thread: Thread, run: WorkflowRun | None
) -> SessionRef:
    """Return the session of a thread, and the thread itself where another workflow runs it."""
    found = await _reference(engine, thread.session_id)
    if run is None or run.workflow_id == found.name:
        return found
    return replace(found, line=thread, line_run=run)


async def _reference(engine: CheckpointEngine, session_id: str) -> SessionRef:
    root = await engine.get_thread(session_id)
    return SessionRef(session_id, root, (await engine.runs(session_id)).get(root.id))
