"""What the parts of the engine's contract share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from ..config import SnapshotConfig
    from ..engine import CheckpointEngine
    from ..model import Checkpoint

__all__ = ["ContractBase", "OpenEngine", "contents", "say"]

OpenEngine = Callable[..., Awaitable["CheckpointEngine"]]
"""Opens an engine of the test's own store with the given configuration."""


def say(text: str, role: str = "user") -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "content": text}


def contents(checkpoint: Checkpoint) -> list[Any]:
    """Return what the messages of :func:`say` say."""
    return [message["content"] for message in checkpoint.messages]


class ContractBase(ABC):
    """How the engine under test is opened.

    Attributes:
        durable: Whether an engine that is opened again has what was written.
        shrinks: Whether a collection makes the files smaller, or only free for new rows.
    """

    durable: ClassVar[bool] = True
    shrinks: ClassVar[bool] = True

    @abstractmethod
    async def open_engine(
        self, folder: Path, config: SnapshotConfig | None = None
    ) -> CheckpointEngine:
        """Open the engine that lives in ``folder``; a second call opens the same one again."""

    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[OpenEngine]:
        """Opens engines, all of one store, and closes them at the end of the test."""
        engines: list[CheckpointEngine] = []

        async def opened(config: SnapshotConfig | None = None) -> CheckpointEngine:
            engines.append(await self.open_engine(tmp_path, config))
            return engines[-1]

        yield opened
        for engine in engines:
            await engine.close()

    @pytest.fixture
    async def engine(self, opened: OpenEngine) -> CheckpointEngine:
        """An open engine without checkpoints."""
        return await opened()
