"""Stored messages come back equal, and what goes to a provider keeps the providers' rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ckpt_agent.activities.conversation import (
    NOT_RUN,
    answer_of,
    find_call,
    from_stored,
    in_order,
    resume,
    said_by_people,
    to_stored,
    user_message,
)
from ckpt_engine.errors import InvalidRequest


def said(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


def calls(*ids: str, text: str = "") -> ModelResponse:
    words = [TextPart(text)] if text else []
    return ModelResponse(parts=[*words, *(ToolCallPart("look", {"at": i}, i) for i in ids)])


def returned(call_id: str, content: Any = "seen") -> ModelRequest:
    return ModelRequest(parts=[ToolReturnPart("look", content, call_id)])


def final(text: str) -> ModelResponse:
    return ModelResponse(parts=[TextPart(text)])


def shape(messages: list[ModelMessage]) -> list[list[str]]:
    """Each message as the words, call ids and answered ids in it."""
    shown = []
    for message in messages:
        line = []
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                line.append(f"call {part.tool_call_id}")
            elif isinstance(part, ToolReturnPart):
                line.append(f"return {part.tool_call_id}")
            else:
                line.append(str(getattr(part, "content", part)))
        shown.append(line)
    return shown


@pytest.mark.parametrize(
    "message",
    [
        said("what?"),
        calls("a", text="I look"),
        ModelResponse(parts=[ToolCallPart("t", {"none": None, "list": []}, "a")]),
        ModelResponse(parts=[ThinkingPart("hm", signature="s"), TextPart("yes")]),
        returned("a", {"rows": [[None, 1.5, "x"]], "note": None, "empty": []}),
        returned("a", None),
        returned("a", []),
        ModelRequest(parts=[ToolReturnPart("t", "no such tool", "a", outcome="retried")]),
        ModelRequest(parts=[SystemPromptPart("be brief"), UserPromptPart("now")]),
    ],
)
def test_a_stored_message_reads_back_equal(message: ModelMessage) -> None:
    assert from_stored([to_stored(message)]) == [message]


def test_empty_fields_are_not_stored() -> None:
    stored = user_message("what?")
    assert set(stored) == {"parts", "kind", "state"}
    assert None not in stored["parts"][0].values()


def test_messages_of_people_are_understood() -> None:
    messages = from_stored(
        [
            {"role": "user", "content": "only 2014"},
            {"role": "system", "content": "be brief"},
            {"role": "assistant", "content": "yes"},
        ]
    )
    assert shape(messages) == [["only 2014"], ["be brief"], ["yes"]]
    assert isinstance(messages[1].parts[0], SystemPromptPart)
    assert isinstance(messages[2], ModelResponse)


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        {},
        {"role": "user"},
        {"role": "user", "content": 5},
        {"role": "tool", "content": "x"},
        {"kind": "request", "parts": [{"part_kind": "nothing"}]},
    ],
)
def test_a_message_nobody_understands_is_named_by_its_place(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="message 2"):
        from_stored([user_message("q"), wrong])


def test_answers_follow_their_calls_whatever_was_inserted() -> None:
    ordered = in_order([said("q"), calls("a", "b"), said("hurry"), returned("b"), returned("a")])
    assert shape(ordered) == [
        ["q"],
        ["call a", "call b"],
        ["return a", "return b", "hurry"],
    ]


def test_a_call_without_an_answer_is_sent_as_not_run() -> None:
    ordered = in_order([said("q"), calls("a", "b"), returned("a"), said("only 2014")])
    assert shape(ordered)[2] == ["return a", "return b", "only 2014"]
    part = ordered[2].parts[1]
    assert isinstance(part, ToolReturnPart)
    assert (part.content, part.outcome) == (NOT_RUN, "interrupted")


def test_ids_that_a_server_uses_again_in_each_turn_do_not_mix() -> None:
    messages: list[ModelMessage] = [
        calls("0"),
        returned("0", "first"),
        calls("0"),
        returned("0", "second"),
    ]
    parts = [m.parts[0] for m in in_order(messages) if isinstance(m, ModelRequest)]
    assert [p.content for p in parts if isinstance(p, ToolReturnPart)] == ["first", "second"]


def test_an_answer_given_twice_is_sent_once_and_one_to_nothing_not_at_all() -> None:
    messages: list[ModelMessage] = [
        said("q"),
        returned("ghost"),
        calls("a"),
        returned("a", 1),
        returned("a", 2),
    ]
    ordered = in_order(messages)
    assert shape(ordered) == [["q"], ["call a"], ["return a"]]
    assert ordered[2].parts[0].content == 1  # type: ignore[union-attr]


_ID = st.sampled_from(["a", "b", "c"])
_MESSAGE = st.one_of(
    st.sampled_from("uvw").map(said),
    st.lists(_ID, unique=True, min_size=1).map(lambda ids: calls(*ids)),
    _ID.map(returned),
    st.just(final("done")),
)


@given(st.lists(_MESSAGE, max_size=12))
def test_any_history_is_sent_as_providers_ask(messages: list[ModelMessage]) -> None:
    ordered = in_order(messages)
    for before, message in zip([None, *ordered], ordered, strict=False):
        called = (
            [p.tool_call_id for p in before.parts if isinstance(p, ToolCallPart)] if before else []
        )
        parts = message.parts
        answered = [p.tool_call_id for p in parts if isinstance(p, ToolReturnPart)]
        assert answered == called
        assert all(isinstance(p, ToolReturnPart) for p in parts[: len(answered)])
        if isinstance(message, ModelRequest):
            assert not isinstance(before, ModelRequest)
    if ordered and isinstance(ordered[-1], ModelResponse):
        assert not ordered[-1].tool_calls
    assert list(said_by_people(ordered)) == list(said_by_people(messages))
    assert in_order(ordered) == ordered


def test_a_seed_goes_on_where_it_stopped() -> None:
    question, two = said("q"), calls("a", "b")
    assert resume([question]).node == "model"
    assert [c.id for c in resume([question, two]).tool_calls] == ["a", "b"]
    half = resume([question, two, returned("b"), said("hurry")])
    assert (half.node, [c.id for c in half.tool_calls]) == ("tools", ["a"])
    assert resume([question, two, returned("b"), returned("a")]).node == "model"
    end = resume([question, two, returned("a"), returned("b"), final("42")])
    assert (end.node, end.answer) == ("end", "42")
    assert resume([question, final("42"), said("and now?")]).node == "model"


def test_calls_are_found_by_id_the_newest_first() -> None:
    old, new = calls("0"), ModelResponse(parts=[ToolCallPart("tell", {}, "0")])
    assert find_call([old, new], "0").tool_name == "tell"
    with pytest.raises(InvalidRequest, match="'9'"):
        find_call([old, new], "9")


def test_the_answer_is_the_text_of_a_response() -> None:
    assert answer_of(ModelResponse(parts=[TextPart("a"), TextPart("b")])) == "a\n\nb"
    assert answer_of(ModelResponse(parts=[ThinkingPart("hm")])) is None
