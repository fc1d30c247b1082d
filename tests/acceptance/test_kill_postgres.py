"""Killed and frozen workers again, with the checkpoints on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..postgres import url_in
from .test_kill import (  # noqa: F401  (run again here, on this module's database)
    test_a_killed_worker_leaves_no_trace_in_the_checkpoints,
)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return url_in(tmp_path)
