"""Where a database cannot be, said plainly."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt_engine import InvalidRequest, StoreUnavailable, create_checkpoint_engine
from ckpt_engine.temporal import line


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a folder: name a file in it"):
        await create_checkpoint_engine(f"sqlite:///{tmp_path}")
    assert list(tmp_path.iterdir()) == []


async def test_a_line_is_for_a_workflows_code() -> None:
    with pytest.raises(InvalidRequest, match="for a workflow's code"):
        async with line("researcher"):
            pass
