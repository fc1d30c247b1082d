"""One line for people about a checkpoint, and what is special about it, from its content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

__all__ = ["describe", "labels_of", "short"]

_LINE = 100  # characters
_PART = 60
_LOOK = 400  # characters of a text, or items of a list, that are looked at
_DEEP = 8  # levels of parts within parts that are looked at

_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # a whole escape sequence, as for colours
    r"|[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What steers a terminal, turns the order of what follows, or cannot be encoded."""

# The shapes of messages: OpenAI's (both interfaces), Anthropic's, Gemini's, LangChain's, and
# pydantic-ai's. Some say "type" for who speaks, others for what a part is.
_SPEAKERS = {
    **{who: who for who in ("human", "ai", "system", "tool", "function", "reasoning")},
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), "tool"),
}
_CALLS = (
    *("function_call", "custom_tool_call", "mcp_call", "tool_use", "server_tool_use"),
    *("tool-call", "builtin-tool-call", "tool_call"),
)
_CALLED = ("function", "functionCall", "function_call")
_GIVEN = ("arguments", "input", "args")
_SAID = (
    *("text", "content", "parts", "output", "refusal", "thinking", "reasoning", "summary"),
    *("functionResponse", "function_response", "response"),
)
_THOUGHTS = ("thinking", "reasoning")
_FILES = ("inlineData", "inline_data", "fileData", "file_data")
_MIME = ("mimeType", "mime_type", "media_type")
_FILE = re.compile(r"(?:input_)?(image|audio|video|document|file)(?:[_-]url|/.*)?")


def describe(message: Any) -> str:
    """Return what a message says, in one line: who speaks, the tools called, or the text.

    What has no shape that is known is shown as JSON.
    """
    if not isinstance(message, dict):
        return short(message, _LINE)
    who = _word(message, "role", "kind") or _SPEAKERS.get(_word(message, "type"), "")
    calls = ", ".join(_calls(message))
    if calls:
        return _cut(f"{who} calls {calls}".lstrip(), _LINE)
    known = who or isinstance(message.get("content", message.get("parts")), (str, list))
    said = _said(message, _DEEP) if known else None
    if said is None:
        return short(message, _LINE)
    if who in ("tool", "function"):
        who = _word(message, "name", "tool_name") or who
    said = said.strip() or '""'
    return _cut(f"{who}: {said}" if who else said, _LINE)


def _calls(message: Mapping[str, Any]) -> Iterable[str]:
    """Yield the tools that a message calls, with what they are given."""
    parts = (message, *_list(message, "content"), *_list(message, "parts"))
    calls = (p for p in parts if _word(p, "type", "part_kind") in _CALLS or _inner(p, _CALLED))
    for part in (*_list(message, "tool_calls"), *calls):
        called = _inner(part, _CALLED) or part
        if name := _word(called, "name", "tool_name"):
            yield f"{name}({_given(called)})"


def _given(called: Mapping[str, Any]) -> str:
    given = next((called[k] for k in _GIVEN if k in called), None)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return short(given, _PART)
    if isinstance(given, dict):
        some = islice(given.items(), _PART)
        return _cut(", ".join(f"{short(k)}={short(v)}" for k, v in some), _PART)
    return "" if given is None else short(given, _PART)


def _said(part: Mapping[str, Any], deep: int) -> str | None:
    """Return what a message or a part of one says; ``None`` where it has no shape that is known."""
    known = False
    for key in _SAID:
        if key in part:
            known = True
            if text := _text(part[key], deep):
                return text
    return _file(part) or ("" if known else None)


def _text(value: Any, deep: int) -> str | None:
    if isinstance(value, str):
        return value[:_LOOK]
    if isinstance(value, list) and deep:
        parts = sorted(value[:_LOOK], key=_is_thought)  # what is thought, after what is said
        return " ".join(filter(None, (_text(part, deep - 1) for part in parts)))[:_LOOK]
    said = _said(value, deep - 1) if isinstance(value, dict) and deep else None
    return short(value) if said is None and value is not None else said


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and (part.get("type") or part.get("part_kind")) in _THOUGHTS


def _file(part: Mapping[str, Any]) -> str | None:
    """Return what a part without text is, such as ``[image]``."""
    inner = _inner(part, _FILES)
    mime, kind = _word(inner or part, *_MIME), _word(part, "type", "kind")
    for word in (kind, mime):
        if known := _FILE.fullmatch(word):
            return f"[{known[1]}]"
    return "[file]" if inner or mime else None


def _word(part: Mapping[str, Any], *keys: str) -> str:
    """Return the first text that stands under one of these keys, else an empty one."""
    for key in keys:
        if isinstance(value := part.get(key), str) and value:
            return value
    return ""


def _inner(part: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any] | None:
    """Return the first object that stands under one of these keys."""
    for key in keys:
        if isinstance(value := part.get(key), dict) and value:
            return value
    return None


def _list(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = message.get(key)
    if not isinstance(found, list):
        return []
    return [part for part in found[:_LOOK] if isinstance(part, dict)]


def short(value: Any, length: int = _PART) -> str:
    """Return a value in one line of at most ``length`` characters, and of one at least."""
    if isinstance(value, str):
        return _cut(value[:_LOOK], length) or '""'
    if isinstance(value, bytes):
        return _other(value)
    if isinstance(value, (list, dict)) and len(value) > _PART:
        return f"{len(value)} {'items' if isinstance(value, list) else 'keys'}"
    try:
        text = json.dumps(_begun(value), ensure_ascii=False, default=_other)
    except ValueError:  # Python turns no integer of over 4,300 digits into text
        return f"{'a number' if isinstance(value, int) else 'something'} of very many digits"
    return _cut(text[:_LOOK], length)


def _begun(value: Any) -> Any:
    """Return the value without what cannot be among the first :data:`_LOOK` characters of it."""
    if isinstance(value, str):
        return value[:_LOOK]
    if isinstance(value, list):
        return [_begun(item) for item in value[:_LOOK]]
    if isinstance(value, dict):
        return {key: _begun(item) for key, item in islice(value.items(), _LOOK)}
    return value


def _other(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    if not line.isprintable():
        line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def labels_of(metadata: Mapping[str, Any], *, parents: int, edited: bool) -> tuple[str, ...]:
    """Return what is special about a checkpoint, in words.

    Args:
        metadata: Its metadata.
        parents: How many parents it has.
        edited: Whether it replaced the conversation.
    """
    found = ["joined"] if parents > 1 else ["edited"] if edited else []
    known = {"exception": "error", "late": "late", "gap": "gap", "disputed": "disputed"}
    found += [word for key, word in known.items() if metadata.get(key)]
    return tuple(found)
