"""From a URL to an open engine."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .checks import check_text
from .config import SnapshotConfig
from .engine import CheckpointEngine
from .errors import InvalidRequest, shown

if TYPE_CHECKING:
    from .keys import Keyring
    from .store import Store
    from .stores.copying import Progress
    from .stores.postgres_store import PostgresStore

__all__ = [
    "check_url",
    "copy_database",
    "create_checkpoint_engine",
    "database_contents",
    "database_version",
    "hide_password",
    "is_postgres",
    "newest_version",
    "open_store",
    "postgres_store",
]

_LONGEST_NAME = 240  # of the 255 that file systems take: the log beside it has a longer one
_MEMORY = ("memory:", "memory://")
_KINDS = (
    "give sqlite:///path (or a bare path), postgresql://user:password@host:port/database, "
    "or memory: for none"
)


async def create_checkpoint_engine(
    url: str | os.PathLike[str],
    config: SnapshotConfig | None = None,
    *,
    keys: Keyring | None = None,
) -> CheckpointEngine:
    """Open the engine at a URL; close it with ``await engine.close()`` or ``async with``.

    Args:
        url: ``sqlite:///path`` (or a path as it is) for a file, ``postgresql://…`` for a server,
            ``memory:`` for none.
        config: How checkpoints are taken and kept.
        keys: Encrypts content at rest; a database is encrypted from its beginning or not at all.

    Raises:
        InvalidRequest: The URL names no kind of store that there is, or the configuration is none.
        StoreUnavailable: The file cannot be opened, or the server not be reached.
        SchemaMismatch: Another version of the schema wrote it.
        WrongKey: It is encrypted, and not with a key of these.

    Example:
        async with await create_checkpoint_engine("memory:") as engine:
            first = await engine.snapshot("chat", append=["hello"])
            await engine.snapshot("chat", append=["hi"])
            await engine.rewind(first)
            assert (await engine.get_latest("chat")).messages == ["hello"]
    """
    from .keys import Keyring
    from .stores.copying import check_copied
    from .stores.encrypted import EncryptedStore, check_plain

    if not isinstance(url, (str, os.PathLike)):
        raise InvalidRequest(f"{shown(url)} is no URL: {_KINDS}")
    if keys is not None and not isinstance(keys, Keyring):
        raise InvalidRequest(f"keys is a Keyring, not a {type(keys).__name__}")
    config = SnapshotConfig() if config is None else config
    if not isinstance(config, SnapshotConfig):
        raise InvalidRequest(f"config is a SnapshotConfig(...), not {shown(config)}")
    store = await open_store(os.fspath(url), config)
    try:
        await check_copied(store)
        if keys is not None:
            store = await EncryptedStore.over(store, keys)
        else:
            await check_plain(store)
    except BaseException:
        await store.close()
        raise
    return CheckpointEngine(store, config)


async def open_store(url: str, config: SnapshotConfig) -> Store:
    """Open the store at a URL, as it is: what is encrypted stays so."""
    if url in _MEMORY:
        from .stores.memory import MemoryStore

        return MemoryStore()
    options = {
        "synchronous": config.synchronous,
        "busy_timeout": config.busy_timeout,
        "group": config.group_size,
    }
    if is_postgres(url):
        return await postgres_store().open(url, readers=config.connections, **options)
    from .stores.sql import SqlStore

    return await SqlStore.open(_path_of(url), in_place=config.in_place, **options)


async def database_version(url: str, *, upgrade: bool = False) -> str | None:
    """Return the version of a database's schema, ``None`` where it has no tables of ours yet.

    Args:
        url: As for :func:`create_checkpoint_engine`.
        upgrade: Bring it to the newest first.

    Raises:
        InvalidRequest: The URL names no database.
        StoreUnavailable: It cannot be used.
        SchemaMismatch: To be upgraded, but written by a newer release, or not ours at all.
    """
    if is_postgres(url):
        return await postgres_store().version(url, upgrade=upgrade)
    from .stores.sql import SqlStore

    return await SqlStore.version(_path_of(url), upgrade=upgrade)


async def database_contents(url: str) -> dict[str, int]:
    """Return how many threads and checkpoints a database has, and how many bytes it takes."""
    from .store import CheckpointRow, ThreadRow

    store = await open_store(url, SnapshotConfig())
    try:
        threads, checkpoints = await store.read(
            lambda tx: (tx.count(ThreadRow), tx.count(CheckpointRow))
        )
        return {"threads": threads, "checkpoints": checkpoints, "bytes": await store.size()}
    finally:
        await store.close()


def newest_version() -> str:
    """Return the version of the schema that this release reads and writes."""
    from .stores.schema import NEWEST

    return NEWEST


async def copy_database(
    source: str, target: str, progress: Progress, *, keys: Keyring | None = None
) -> dict[str, int]:
    """Copy everything of a database into an empty one, or go on with that; ids stay.

    Args:
        source: As for :func:`create_checkpoint_engine`.
        target: Likewise; made where there is none.
        progress: Is told of a table how many of its rows were copied, and of how many.
        keys: Encrypt the copy of a database that is not; an encrypted one is copied as it is.

    Returns:
        Table -> rows in it; every row was compared.

    Raises:
        InvalidRequest: The target has checkpoints of its own, or is a copy of another database.
        WrongKey: The target is an encrypted copy that was begun with other keys.
        StoreUnavailable: There is no such source; nothing is made.
        StoreBusy: The source is being written.
    """
    from .stores.copying import check_copied, copy_store

    await database_version(source)  # opening it would make one where there is none
    config = SnapshotConfig()
    async with contextlib.AsyncExitStack() as stack:
        old = await open_store(source, config)
        stack.push_async_callback(old.close)
        await check_copied(old)
        new = await open_store(target, config)
        stack.push_async_callback(new.close)
        return await copy_store(old, new, progress, keys)


def hide_password(url: str) -> str:
    """Return a URL fit to be shown."""
    return re.sub(
        r"(://[^/@:]*):[^@]*@", r"\1:***@", re.sub(r"password=[^&]*", "password=***", url)
    )


def check_url(url: object) -> None:
    """Refuse what :func:`create_checkpoint_engine` could never open; nothing is opened or made.

    Raises:
        InvalidRequest: It is no text, or names no kind of store; the message says what would.
    """
    if not isinstance(url, str):
        raise InvalidRequest(f"the URL has to be a text, not {shown(url)}: {_KINDS}")
    if url in _MEMORY:
        return
    if is_postgres(url):
        from .stores.postgres_url import parse_url

        parse_url(url)
    else:
        _path_of(url)


def is_postgres(url: str) -> bool:
    """Tell whether a URL names a PostgreSQL database rather than a file.

    Raises:
        InvalidRequest: It names neither.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)  # one letter is a drive's
    scheme = found[1] if found else "sqlite"
    if "://" in url and scheme.partition("+")[0] in ("postgres", "postgresql"):
        return True
    if scheme != "sqlite":
        raise InvalidRequest(f"{hide_password(url)!r} names no kind of database there is: {_KINDS}")
    return False


def _path_of(url: str) -> str:
    """Return the file that a ``sqlite:///`` URL, or a bare path, names.

    Raises:
        InvalidRequest: It names no file.
    """
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:") else url
    check_text(path, "the path of a database")
    if "\0" in path or len(Path(path).name) > _LONGEST_NAME:
        raise InvalidRequest(f"{shown(path)} cannot be the name of a file")
    if not path or ":memory:" in path or path.startswith("sqlite:"):
        raise InvalidRequest(f"{url!r} names no file: {_KINDS}")
    if path != url and re.search(r"\?\w+=", path):
        raise InvalidRequest(
            f"{url!r} has options, which no sqlite:/// URL has: give them to SnapshotConfig, "
            "such as SnapshotConfig(busy_timeout=5)"
        )
    return str(Path(path).expanduser())


def postgres_store() -> type[PostgresStore]:
    """Load the PostgreSQL backend.

    Raises:
        InvalidRequest: Its driver is not installed.
    """
    try:
        from .stores.postgres_store import PostgresStore
    except ImportError as err:
        raise InvalidRequest(
            "PostgreSQL needs a driver that is not installed: pip install 'ckpt-engine[postgres]' "
            f"({err})"
        ) from None
    return PostgresStore
