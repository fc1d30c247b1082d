"""Answers against what is expected."""

from __future__ import annotations

from typing import Any

import pytest

from ckpt_engine.errors import InvalidRequest
from ckpt_engine.experiments import Score
from ckpt_engine.experiments.scoring import compared, last_text, to_score
from ckpt_engine.experiments.spec import ComparisonScorer


def value(kind: Any, answer: str | None, expected: Any, **more: Any) -> float:
    return compared(ComparisonScorer(kind=kind, **more), answer, expected).value


def test_exact_contains_and_regex() -> None:
    assert value("exact", " 42 \n", "42") == 1
    assert value("exact", "It is 42", "42") == 0
    assert value("exact", "YES", "yes") == 0
    assert value("exact", "YES", "yes", ignore_case=True) == 1
    assert value("contains", "It is 42.", "42") == 1
    assert value("contains", None, "42") == 0
    assert value("regex", "It is 42.", r"\b4\d\b") == 1
    assert value("regex", "It is 142.", r"\b4\d\b") == 0
    assert value("exact", "7", 7) == 1


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ('{"rain": 3, "sun": [1, 2]}', {"sun": [1, 2], "rain": 3}, True),
        ('The counts:\n```json\n{"rain": 3.0000000001}\n```', {"rain": 3}, True),
        ('{"rain": 3.1}', {"rain": 3}, False),
        ('{"rain": 3, "sun": 1}', {"rain": 3}, False),
        ("[1, 2, 3]", [1, 2], False),
        ("It is 42, I think.", 42, True),
        ("It is -4.5e1.", -45, True),
        ("true", True, True),
        ("1", True, False),
        ('He said "yes".', "yes", True),
        ("no json { at all", {"a": 1}, False),
        ("null", None, True),
    ],
)
def test_json(answer: str, expected: Any, right: bool) -> None:
    assert value("json", answer, expected) == right


def test_json_numbers_within_a_tolerance() -> None:
    assert value("json", "3.14", 3.14159) == 0
    assert value("json", "3.14", 3.14159, tolerance=0.01) == 1


def test_what_scorers_may_return() -> None:
    assert to_score(0.5) == Score(value=0.5)
    assert to_score(True) == Score(value=1)
    assert to_score({"value": 2, "why": "good"}) == Score(value=2, why="good")
    assert to_score(Score(value=3)).value == 3
    for wrong in ("high", None, float("nan"), [1], {"value": "x"}):
        with pytest.raises(InvalidRequest, match="a scorer returns a finite number"):
            to_score(wrong)


def test_the_last_text_of_a_conversation() -> None:
    tool = {"parts": [{"part_kind": "tool-return", "content": "rows"}]}
    model = {"parts": [{"part_kind": "text", "content": "So"}, {"part_kind": "tool-call"}]}
    assert last_text([{"role": "user", "content": "hi"}, model, tool]) == "So"
    assert last_text([{"role": "assistant", "content": "Yes."}]) == "Yes."
    assert last_text([tool, 3]) is None
