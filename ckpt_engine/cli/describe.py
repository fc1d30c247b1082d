"""A whole checkpoint in words: facts, state, result and conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..model import Checkpoint, Thread
from ..temporal.payloads import readable
from .render import clean

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload

__all__ = ["describe", "message_lines"]

_LONGEST = 400
"""Characters of one text that are shown unless everything is asked for."""


def describe(
    checkpoint: Checkpoint,
    thread: Thread,
    *,
    everything: bool = False,
    decode: Callable[[Payload], Payload] | None = None,
) -> Iterator[Text]:
    """Yield the lines that show a checkpoint.

    Args:
        checkpoint: It.
        thread: Its thread.
        everything: Leave no message out and cut no text.
        decode: Undoes the encryption of payloads.
    """
    yield Text.assemble(("checkpoint ", "yellow"), (checkpoint.id, "bold yellow"))
    yield from _facts(checkpoint, thread)
    yield Text("state", "bold")
    for key, value in sorted(checkpoint.state.items()):
        yield Text(f"  {clean(key)} = {_short(value, everything)}")
    shown = checkpoint.messages if everything else checkpoint.messages[-6:]
    skipped = len(checkpoint.messages) - len(shown)
    hint = f" (the newest {len(shown)}; all with --full)" if skipped else ""
    yield Text(f"messages: {len(checkpoint.messages)}{hint}", "bold")
    for number, message in enumerate(shown, skipped + 1):
        for line in message_lines(message, everything):
            yield Text(f"  {number:>3} ").append_text(line)
    result = readable(checkpoint.tools_result, decode)
    if result is not None:
        yield Text("result", "bold")
        yield Text(f"  {_short(result, everything)}")


def message_lines(message: Any, everything: bool) -> Iterator[Text]:
    """Yield the lines of one message, in whatever of the usual forms it is."""
    if isinstance(message, Mapping) and isinstance(message.get("parts"), list):
        for part in message["parts"]:
            yield _part(part, str(message.get("kind", "")), everything)
    elif isinstance(message, Mapping) and "role" in message:
        yield _line(str(message["role"]), _short(message.get("content"), everything))
    else:
        yield Text(_short(message, everything))


def _facts(checkpoint: Checkpoint, thread: Thread) -> Iterator[Text]:
    facts = {
        "session": checkpoint.session_id,
        "thread": f"{thread.branch} ({thread.id})",
        "step": str(checkpoint.step),
        "parents": " ".join(checkpoint.parents) or "none",
        "trigger": str(checkpoint.trigger),
        "node": checkpoint.node or "",
        "next node": checkpoint.next_node or "",
        "taken": checkpoint.created_at.isoformat(sep=" ", timespec="milliseconds"),
        "tags": " ".join(checkpoint.tags),
        "metadata": _short(dict(checkpoint.metadata), False) if checkpoint.metadata else "",
        "summary": checkpoint.summary,
    }
    for name, value in facts.items():
        if value:
            yield Text.assemble((f"{name:<10} ", "dim"), clean(value))


def _part(part: Any, kind: str, everything: bool) -> Text:
    if not isinstance(part, Mapping):
        return _line(kind, _short(part, everything))
    name = str(part.get("part_kind", kind))
    if name == "tool-call":
        args = _short(part.get("args") or {}, everything)
        return _line("calls", f"{clean(str(part.get('tool_name')))}({args})")
    if name in ("tool-return", "retry-prompt"):
        content = _short(part.get("content"), everything)
        return _line("tool", f"{clean(str(part.get('tool_name')))}: {content}")
    names = {"user-prompt": "user", "text": "model", "system-prompt": "system"}
    return _line(names.get(name, name), _short(part.get("content"), everything))


def _line(who: str, text: str) -> Text:
    return Text.assemble((f"{clean(who):<7} ", "cyan"), text)


def _short(value: Any, everything: bool) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = clean(text)
    return shown if everything or len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
