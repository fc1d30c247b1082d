"""Messages of every kind in one line."""

from __future__ import annotations

from typing import Any

import pytest

from ckpt_engine.summaries import describe, labels_of

CALL = {"name": "search", "arguments": '{"query": "rain in Seattle", "limit": 3}'}
LONG = "word " * 100_000


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("hello\n  there", "hello there"),
        ({"role": "user", "content": "hello"}, "user: hello"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": CALL}]},
            "assistant calls search(query=rain in Seattle, limit=3)",
        ),
        ({"role": "tool", "name": "search", "content": "3 rows"}, "search: 3 rows"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "Let me look."}]},
            "assistant: Let me look.",
        ),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "1", "name": "search", "input": {"q": [1, 2]}},
                ],
            },
            "assistant calls search(q=[1, 2])",
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": "3 rows"}]},
            "user: 3 rows",
        ),
        (
            {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "hello"}]},
            "request: hello",
        ),
        (
            {
                "kind": "response",
                "parts": [{"part_kind": "tool-call", "tool_name": "f", "args": {"a": 1}}],
            },
            "response calls f(a=1)",
        ),
        ({"n": 1}, '{"n": 1}'),
        ([1, b"xyz", None], '[1, "3 bytes", null]'),
        ({"role": 7, "content": {"deep": 1}}, '{"role": 7, "content": {"deep": 1}}'),
        (None, "null"),
        ("\ud800 alone", "\ud800 alone"),
    ],
)
def test_a_message_in_one_line(message: Any, line: str) -> None:
    assert describe(message) == line


@pytest.mark.parametrize(
    "message",
    [
        LONG,
        {"role": "user", "content": LONG},
        {"role": "user", "content": [{"text": LONG}] * 50},
        {"tool_calls": [{"function": {"name": "f", "arguments": LONG}}] * 9},
        [LONG] * 10,
        {"a": {"b": LONG}},
    ],
    ids=range(6),
)
def test_long_messages_are_cut(message: Any) -> None:
    line = describe(message)
    assert 40 < len(line) <= 100
    assert line.endswith("…")


def test_what_is_special_is_named() -> None:
    assert labels_of({}, parents=1, edited=False) == ()
    assert labels_of({"exception": {"type": "E"}}, parents=1, edited=True) == ("edited", "error")
    assert labels_of({"late": True, "gap": ["x"]}, parents=2, edited=False) == (
        "joined",
        "late",
        "gap",
    )
