"""From a URL to an open engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import CheckpointEngine
from .errors import InvalidRequest
from .model import SnapshotConfig

if TYPE_CHECKING:
    from .keys import Keyring
    from .store import Store
    from .stores.postgres_store import PostgresStore

__all__ = ["create_checkpoint_engine", "is_postgres", "open_store", "postgres_store"]


async def create_checkpoint_engine(
    url: str, config: SnapshotConfig | None = None, *, keys: Keyring | None = None
) -> CheckpointEngine:
    """Open the engine at a URL; close it with ``await engine.close()`` or ``async with``.

    Args:
        url: ``sqlite:///path`` (or a bare path) for a file, ``postgresql://…`` for a server,
            ``memory:`` for none.
        config: How checkpoints are taken and kept.
        keys: Encrypts content at rest; a database is encrypted from its beginning or not at all.

    Raises:
        InvalidRequest: The URL names no kind of store that there is.
        StoreUnavailable: The file cannot be opened, or the server not be reached.
        SchemaMismatch: Another version of the schema wrote it.
        WrongKey: It is encrypted, and not with a key of these.
    """
    from .stores.encrypted import EncryptedStore, check_plain

    config = config or SnapshotConfig()
    store = await open_store(url, config)
    try:
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
    if url in ("memory:", "memory://"):
        from .stores.memory import MemoryStore

        return MemoryStore()
    options = {
        "synchronous": config.synchronous,
        "busy_timeout": config.busy_timeout,
        "group": config.group_size,
    }
    if is_postgres(url):
        return await postgres_store().open(url, readers=config.connections, **options)
    from .stores.sql import SqlStore, path_of

    return await SqlStore.open(path_of(url), **options)


def is_postgres(url: str) -> bool:
    """Tell whether a URL names a PostgreSQL database rather than a file.

    Raises:
        InvalidRequest: It names neither.
    """
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    if scheme.partition("+")[0] in ("postgres", "postgresql"):
        return True
    if scheme != "sqlite":
        raise InvalidRequest(
            f"{scheme}:// is not supported: give sqlite:///path, "
            "postgresql://user:password@host:port/database, or memory:"
        )
    return False


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
