"""Messages of every kind in one line."""

from __future__ import annotations

from typing import Any

import pytest

from ckpt_engine.summaries import describe, labels_of

CALL = {"name": "search", "arguments": '{"query": "rain in Seattle", "limit": 3}'}
CALLED = "assistant calls search(query=rain in Seattle, limit=3)"
PNG = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo"}}
FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL} \N{ZERO WIDTH NON-JOINER}"
LONG = "word " * 100_000


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("hello\n  there", "hello there"),
        ({"role": "user", "content": "hello"}, "user: hello"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": CALL}]},
            CALLED,
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
        (b"raw", "3 bytes"),
        ({"role": "user", "content": b"raw"}, "user: 3 bytes"),
        ("", '""'),
        ({"role": "user", "content": " \n"}, 'user: ""'),
        ({"role": "assistant", "content": None}, 'assistant: ""'),
        ({"role": "assistant", "content": None, "refusal": "I cannot."}, "assistant: I cannot."),
        ({"role": "assistant", "function_call": CALL, "content": None}, CALLED),
        (
            {"type": "function_call", "call_id": "1", **CALL},
            "calls search(query=rain in Seattle, limit=3)",
        ),
        ({"type": "function_call_output", "call_id": "1", "output": "3 rows"}, "tool: 3 rows"),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            "reasoning: Hm.",
        ),
        (
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": "", "": 1}}}]},
            'model calls f(a="", ""=1)',
        ),
        (
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "response": {"rows": 3}}}],
            },
            'user: {"rows": 3}',
        ),
        ({"role": "user", "parts": [{"text": "see"}, PNG]}, "user: see [image]"),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}]},
            "assistant: Hm.",
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "Hm."}, {"text": "Yes."}],
            },
            "assistant: Yes. Hm.",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            "user: [image]",
        ),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "user: [file]"),
        (
            {
                "kind": "request",
                "parts": [
                    {
                        "part_kind": "user-prompt",
                        "content": ["see", {"kind": "binary", "media_type": "image/png"}],
                    }
                ],
            },
            "request: see [image]",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"type": "image", "source": {}}]}],
            },
            "user: [image]",
        ),
        ({"type": "human", "content": "hello"}, "human: hello"),
        ({"type": "tool", "name": "search", "content": "3 rows"}, "search: 3 rows"),
        (
            {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"a": 1}}]},
            "ai calls f(a=1)",
        ),
        ({"type": ["odd"], "name": {"odd": 1}}, '{"type": ["odd"], "name": {"odd": 1}}'),
        ("\ud800 alone", "\ufffd alone"),
        ("\x1b[1;31mred\x1b[0m \x00 \u202eleft", "\ufffdred\ufffd \ufffd \ufffdleft"),
        ({"role": "\ud800", "content": "a\x07"}, "\ufffd: a\ufffd"),
        (FAMILY, FAMILY),
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


@pytest.mark.parametrize("shape", ["content", "parts", "arguments"])
def test_what_is_deep_within_is_not_looked_for(shape: str) -> None:
    deep: Any = "x"
    for _ in range(120):
        deep = [{shape: deep}]
    assert len(describe({"role": "user", "content": deep})) <= 100
    call = {"name": "f", "arguments": "[" * 100_000}
    assert describe({"tool_calls": [call]}).startswith("calls f([[")


def test_what_is_special_is_named() -> None:
    assert labels_of({}, parents=1, edited=False) == ()
    assert labels_of({"exception": {"type": "E"}}, parents=1, edited=True) == ("edited", "error")
    assert labels_of({"late": True, "gap": ["x"]}, parents=2, edited=False) == (
        "joined",
        "late",
        "gap",
    )
