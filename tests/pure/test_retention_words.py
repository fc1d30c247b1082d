"""Policies in words mean what the policies mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ckpt_engine import InvalidRequest
from ckpt_engine.retention import (
    KEEP_ALL,
    Candidate,
    Candidates,
    KeepAge,
    KeepLastN,
    KeepMilestones,
    RetentionPolicy,
)
from ckpt_engine.retention_words import parse_retention

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("all", KEEP_ALL),
        ("last:100", KeepLastN(100)),
        (" last:3/session ", KeepLastN(3, "session")),
        ("milestones:20", KeepMilestones(20)),
        ("age:30d", KeepAge(timedelta(days=30))),
        ("age:90s", KeepAge(timedelta(seconds=90))),
        ("last:1|age:1w", KeepLastN(1) | KeepAge(timedelta(weeks=1))),
        (
            "last:1 | age:1h & milestones:2",
            KeepLastN(1) | (KeepAge(timedelta(hours=1)) & KeepMilestones(2)),
        ),
    ],
)
def test_words_and_policies_are_the_same(text: str, policy: RetentionPolicy) -> None:
    assert parse_retention(text) == policy


def test_and_binds_before_or() -> None:
    line = [
        Candidate(str(n), "t", n, (str(n - 1),) if n else (), NOW - timedelta(days=30 - n))
        for n in range(31)
    ]
    kept = parse_retention("last:5 & age:3d | milestones:2").kept(Candidates.of(line), NOW)
    assert kept == {0, 27, 28, 29, 30}


@pytest.mark.parametrize("text", ["", "last", "last:0", "last:x", "age:3y", "last:3|", "age:0d"])
def test_other_words_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"retention policy|at least 1|greater than 0"):
        parse_retention(text)


@pytest.mark.parametrize("text", [None, 5, b"last:3"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be text"):
        parse_retention(text)


def test_an_age_beyond_counting_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="longer than"):
        parse_retention("age:99999999999w")
