"""When a snapshot is taken."""

from __future__ import annotations

from typing import Any

import pytest

from ckpt_engine.config import SnapshotConfig
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.model import SnapshotTrigger
from ckpt_engine.triggers import interval_wait, parse_trigger

ENABLED = SnapshotConfig().triggers


def test_the_default_takes_everything_but_boundaries_and_intervals() -> None:
    assert set(SnapshotTrigger) - ENABLED == {
        SnapshotTrigger.TASK_BOUNDARY,
        SnapshotTrigger.INTERVAL,
    }


def test_triggers_are_known_by_name_in_any_spelling() -> None:
    triggers: Any = ["TOOL_CALL", "llm-call", SnapshotTrigger.MANUAL]
    assert SnapshotConfig(triggers=triggers).triggers == {
        SnapshotTrigger.TOOL_CALL,
        SnapshotTrigger.LLM_CALL,
        SnapshotTrigger.MANUAL,
    }
    assert parse_trigger("LLM-CALL") is SnapshotTrigger.LLM_CALL


@pytest.mark.parametrize("bad", ["often", "", 3, None])
def test_an_unknown_trigger_is_refused_with_the_known_ones(bad: object) -> None:
    with pytest.raises(InvalidRequest, match="task_boundary"):
        SnapshotConfig(triggers=[bad])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="task_boundary"):
        parse_trigger(bad)  # type: ignore[arg-type]


def test_the_wait_for_an_interval_counts_from_the_newest_snapshot() -> None:
    assert interval_wait(last=10.0, now=12.0, every=5.0) == 3.0
    assert interval_wait(last=10.0, now=15.0, every=5.0) == 0.0
    assert interval_wait(last=10.0, now=99.0, every=5.0) == 0.0


@pytest.mark.parametrize("every", [0, -1, float("nan")])
def test_an_interval_that_never_passes_is_refused(every: float) -> None:
    with pytest.raises(InvalidRequest, match="greater than 0"):
        interval_wait(0, 0, every)
