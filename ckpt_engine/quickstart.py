"""From a URL to an open engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import CheckpointEngine
from .errors import InvalidRequest
from .model import SnapshotConfig

if TYPE_CHECKING:
    from .keys import Keyring
    from .store import Store

__all__ = ["create_checkpoint_engine"]


async def create_checkpoint_engine(
    url: str, config: SnapshotConfig | None = None, *, keys: Keyring | None = None
) -> CheckpointEngine:
    """Open the engine at a URL; close it with ``await engine.close()`` or ``async with``.

    Args:
        url: ``sqlite:///path`` (or a bare path) for a file, ``memory:`` for none.
        config: How checkpoints are taken and kept.
        keys: Encrypts content at rest; a database is encrypted from its beginning or not at all.

    Raises:
        InvalidRequest: The URL names no kind of store that there is.
        StoreUnavailable: The file cannot be opened.
        SchemaMismatch: Another version of the schema wrote it.
        WrongKey: It is encrypted, and not with a key of these.
    """
    from .stores.encrypted import EncryptedStore, check_plain

    config = config or SnapshotConfig()
    store = await _open(url, config)
    try:
        if keys is not None:
            store = await EncryptedStore.over(store, keys)
        else:
            await check_plain(store)
    except BaseException:
        await store.close()
        raise
    return CheckpointEngine(store, config)


async def _open(url: str, config: SnapshotConfig) -> Store:
    if url in ("memory:", "memory://"):
        from .stores.memory import MemoryStore

        return MemoryStore()
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    if scheme.startswith("postgres"):
        raise InvalidRequest("PostgreSQL is not supported yet: use sqlite:///path")
    if scheme != "sqlite":
        raise InvalidRequest(f"{url!r}: give sqlite:///path or memory:")
    from .stores.sql import SqlStore, path_of

    return await SqlStore.open(
        path_of(url),
        synchronous=config.synchronous,
        busy_timeout=config.busy_timeout,
        group=config.group_size,
    )
