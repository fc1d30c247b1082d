"""Killed and frozen workers again, with the checkpoints on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..postgres import url_in as postgres_in
from .test_kill import (  # noqa: F401  (run again here, on this module's database)
    test_a_killed_worker_leaves_no_trace_in_the_checkpoints,
)


@pytest.fixture
def url_in() -> Callable[[Path], str]:
    return postgres_in
