"""From a URL to an open engine."""

from __future__ import annotations

from .engine import CheckpointEngine
from .errors import InvalidRequest
from .model import SnapshotConfig

__all__ = ["create_checkpoint_engine"]


async def create_checkpoint_engine(
    url: str, config: SnapshotConfig | None = None
) -> CheckpointEngine:
    """Open the engine at a URL; close it with ``await engine.close()`` or ``async with``.

    Args:
        url: ``sqlite:///path`` (or a bare path) for a file, ``memory:`` for none.
        config: How checkpoints are taken and kept.

    Raises:
        InvalidRequest: The URL names no kind of store that there is.
        StoreUnavailable: The file cannot be opened.
        SchemaMismatch: Another version of the schema wrote it.
    """
    config = config or SnapshotConfig()
    if url in ("memory:", "memory://"):
        from .stores.memory import MemoryStore

        return CheckpointEngine(MemoryStore(), config)
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    if scheme.startswith("postgres"):
        raise InvalidRequest("PostgreSQL is not supported yet: use sqlite:///path")
    if scheme != "sqlite":
        raise InvalidRequest(f"{url!r}: give sqlite:///path or memory:")
    from .stores.sql import SqlStore, path_of

    store = await SqlStore.open(
        path_of(url),
        synchronous=config.synchronous,
        busy_timeout=config.busy_timeout,
        group=config.group_size,
    )
    return CheckpointEngine(store, config)
