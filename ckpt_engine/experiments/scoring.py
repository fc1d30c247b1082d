"""Answers compared with what is expected, and what a scorer of yours is given."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import Checkpoint
from .report import Score
from .spec import ComparisonScorer

__all__ = ["ScoreRequest", "compared", "last_text", "to_score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """What a scorer is given.

    Attributes:
        final: The newest checkpoint of the trial.
        seed: The checkpoint that it started from.
        answer: The last text in the conversation; ``None`` when there is none.
        variant: The variant.
        question: The question's name.
        expected: What the question expects.
        repeat: Which repeat, from 1.
    """

    final: Checkpoint
    seed: Checkpoint
    answer: str | None
    variant: str
    question: str
    expected: Any
    repeat: int


def to_score(value: Any) -> Score:
    """Return what a scorer returned as a score: a number, a truth value, or a ``Score``.

    Raises:
        InvalidRequest: It is something else.
    """
    if isinstance(value, Score):
        return value
    if isinstance(value, Mapping) and "value" in value:
        value, why = value["value"], str(value.get("why", ""))
    else:
        why = ""
    if isinstance(value, int | float) and math.isfinite(value):
        return Score(value=float(value), why=why)
    raise InvalidRequest(f"a scorer returns a finite number, or a Score, not {value!r:.100}")


def compared(scorer: ComparisonScorer, answer: str | None, expected: Any) -> Score:
    """Return 1 where the answer is the expected one, else 0, with what was expected."""
    if answer is None:
        return Score(value=0, why="there is no answer")
    if scorer.kind == "json":
        right = any(
            _equal(found, expected, scorer.tolerance, scorer.ignore_case)
            for found in _json_in(answer)
        )
    else:
        right = _found(scorer, answer, str(expected))
    return Score(value=float(right), why="" if right else f"expected {_brief(expected)}")


def _found(scorer: ComparisonScorer, answer: str, expected: str) -> bool:
    if scorer.kind == "regex":
        flags = re.IGNORECASE if scorer.ignore_case else 0
        return re.search(expected, answer, flags) is not None
    if scorer.ignore_case:
        answer, expected = answer.casefold(), expected.casefold()
    return expected in answer if scorer.kind == "contains" else answer.strip() == expected.strip()


def _json_in(text: str) -> list[Any]:
    """Return the JSON values in a text: the whole of it, or those that stand in it."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        start = re.compile(r"[\[{\"\d-]|\b(?:true|false|null)\b").search(text, at)
        if start is None:
            break
        try:
            value, at = decoder.raw_decode(text, start.start())
        except ValueError:
            at = start.start() + 1
        else:
            found.append(value)
    return found


def _equal(a: Any, b: Any, tolerance: float, ignore_case: bool) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=tolerance)
    if isinstance(a, str) and isinstance(b, str):
        return a.casefold() == b.casefold() if ignore_case else a == b
    if isinstance(a, list) and isinstance(b, list):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(_equal(x, y, tolerance, ignore_case) for x, y in pairs)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k], tolerance, ignore_case) for k in a)
    return bool(a == b)


def last_text(messages: list[Any]) -> str | None:
    """Return the last text in a conversation, in whatever of the usual forms it is."""
    for message in reversed(messages):
        if not isinstance(message, Mapping):
            continue
        if isinstance(content := message.get("content"), str) and content:
            return content
        parts = [p for p in message.get("parts") or () if isinstance(p, Mapping)]
        texts = [str(p.get("content")) for p in parts if p.get("part_kind") == "text"]
        if texts:
            return "\n\n".join(texts)
    return None


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
