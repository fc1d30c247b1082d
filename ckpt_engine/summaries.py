"""One line for people about a checkpoint, and what is special about it, from its content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

__all__ = ["describe", "labels_of", "short"]

_LINE = 100  # characters
_PART = 60
_LOOK = 400  # characters of a text that are looked at


def describe(message: Any) -> str:
    """Return what a message says, in one line: who speaks, the tools called, or the text.

    The shapes of OpenAI's, Anthropic's and pydantic-ai's messages are known; anything else is shown
    as JSON.
    """
    if not isinstance(message, dict):
        return short(message, _LINE)
    role = message.get("role") or message.get("kind")
    who = f"{role}" if isinstance(role, str) else ""
    calls = ", ".join(_calls(message))
    if calls:
        return _cut(f"{who} calls {calls}".lstrip(), _LINE)
    text = _text(message)
    if text is None:
        return short(message, _LINE)
    name = message.get("name") or message.get("tool_name")
    who = name if isinstance(name, str) and who in ("tool", "function") else who
    return _cut(f"{who}: {text}" if who else text, _LINE)


def _calls(message: Mapping[str, Any]) -> Iterable[str]:
    """Yield the tools that a message calls, with what they are given."""
    for part in (*_list(message, "tool_calls"), *_list(message, "content"), *_parts(message)):
        function = part.get("function")
        called = function if isinstance(function, dict) else part
        name = called.get("name") or called.get("tool_name")
        kind = part.get("part_kind") or part.get("type") or "function"
        if isinstance(name, str) and kind in ("function", "tool_use", "tool-call", "tool_call"):
            yield f"{name}({_given(called)})"


def _given(called: Mapping[str, Any]) -> str:
    given = next((called[k] for k in ("arguments", "input", "args") if k in called), None)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return short(given, _PART)
    if isinstance(given, dict):
        return _cut(", ".join(f"{k}={short(v, _PART)}" for k, v in given.items()), _PART)
    return "" if given is None else short(given, _PART)


def _text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, str):
        return content[:_LOOK]
    found: list[str] = []
    for part in (*_list(message, "content"), *_parts(message)):
        inner = part.get("text", part.get("content"))
        if inner is not None:
            found.append(inner[:_LOOK] if isinstance(inner, str) else short(inner, _PART))
    return " ".join(found)[:_LOOK] if found else None


def _list(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = message.get(key)
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _list(message, "parts")


def short(value: Any, length: int = _PART) -> str:
    """Return a value in one line of at most ``length`` characters."""
    if isinstance(value, str):
        return _cut(value[:_LOOK], length)
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
