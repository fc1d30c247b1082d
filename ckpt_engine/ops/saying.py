"""Summaries of checkpoints that were given none: made when they are shown, and never stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import codec
from ..errors import CheckpointError
from ..store import CheckpointRow
from ..summaries import describe, short
from .prepare import STORED, log_lengths
from .source import MESSAGES, Source

__all__ = ["changes", "last_messages", "summary"]

_NEAR = 16  # places for each row, up to which all that lies between them is read
_LITTLE = 4096  # bytes of a stored result that are looked into
_SHOWN = 40  # bytes of a packed value of the state that is shown, not only its key


def last_messages(source: Source, rows: Sequence[CheckpointRow]) -> dict[int, Any]:
    """Return cid -> the last message, of those that have changed the conversation.

    What cannot be read is left out: a list must not fail for it.
    """
    lineages: dict[int, list[CheckpointRow]] = defaultdict(list)
    for row in rows:
        if row.own and row.length:
            lineages[row.lineage].append(row)
    found: dict[int, Any] = {}
    for lineage, some in lineages.items():
        places = [row.length - 1 for row in some]
        near = max(places) - min(places) <= _NEAR * len(some)
        for group in [some] if near else [[row] for row in some]:
            try:
                found.update(_read(source, lineage, group))
            except (CheckpointError, KeyError):
                continue
    return found


def _read(source: Source, lineage: int, rows: list[CheckpointRow]) -> dict[int, Any]:
    places = [row.length - 1 for row in rows]
    low = min(places)
    items = source.items(lineage, MESSAGES, low, max(places) + 1)
    return {row.cid: codec.unpack(items[row.length - 1 - low], source.blobs) for row in rows}


def changes(source: Source, row: CheckpointRow, parent: CheckpointRow | None) -> str | None:
    """Return what a checkpoint changed in the state, in one line; ``None`` if nothing, or unread.

    Args:
        source: Where the states are found.
        row: The checkpoint.
        parent: Its parent, ``None`` for a first one.
    """
    try:
        line = ", ".join(_changed(source, row, parent))
    except (CheckpointError, KeyError):
        return None
    return short(line, 100) if line else None


def _changed(source: Source, row: CheckpointRow, parent: CheckpointRow | None) -> Iterator[str]:
    for name, (_, _, own) in log_lengths(row).items():
        if own and name != MESSAGES:
            yield f"{short(name)} +{own}" if own > 0 else f"{short(name)} replaced"
    if row.state == (parent.state if parent else None):
        return
    before = source.state(parent.state).values if parent else {}
    after = source.state(row.state).values
    for key, packed in after.items():
        if before.get(key) == packed or packed == codec.LOG_PLACE:
            continue
        plain = len(packed) <= _SHOWN and not codec.references(packed)
        yield f"{short(key)} = {short(codec.unpack(packed, {}))}" if plain else short(key)
    yield from (f"no {short(key)}" for key in before if key not in after)


def summary(
    row: CheckpointRow,
    trigger: str,
    said: dict[int, Any],
    metadata: Mapping[str, Any],
    changed: Callable[[], str | None],
) -> str:
    """Return one line about a checkpoint.

    Args:
        row: The checkpoint.
        trigger: Why it was taken, for want of anything better.
        said: Its last message, if it is known, under its cid.
        metadata: Its metadata.
        changed: Returns what it changed in the state; asked where there is nothing better.
    """
    node = short(row.node, 100) if row.node else None
    error = metadata.get("exception")
    if isinstance(error, dict):
        return short(f"{node or trigger}: {error.get('type')}: {error.get('message')}", 100)
    edited = row.own < 0 and row.nparents < 2
    if row.cid in said:
        line = describe(said[row.cid])
        if edited:
            return f"conversation replaced ({row.length}): {line}"
        return line if row.own <= 1 else f"{line} (+{row.own - 1})"
    if edited:
        return f"conversation replaced ({row.length})"
    if (result := _result(row)) is not None:
        return f"{node}: {result}" if node else result
    line, phase = node or trigger.replace("_", " "), metadata.get("phase")
    if isinstance(phase, str):
        return f"{line}: {short(phase, 40)}"
    if (state := changed()) is not None:
        return f"{node or 'state'}: {state}"
    return line


def _result(row: CheckpointRow) -> str | None:
    if row.result is None or codec.kind_of(row.fmt) != STORED or len(row.result) > _LITTLE:
        return None
    try:
        packed = codec.decompress(row.result[0], row.result[1:])
        value = codec.unpack(packed, {})
    except (CheckpointError, KeyError):
        return None
    if isinstance(value, dict) and "kept" in value:
        value = _unwrapped(value)
        if value is None:
            return None
    return short(value)


def _unwrapped(kept: dict[str, Any]) -> Any:
    """Return what a workflow's step returned, if it was kept and can be read as JSON."""
    encoding = (kept.get("metadata") or {}).get("encoding")
    if kept["kept"] != "all" or encoding != b"json/plain":
        return None
    try:
        return json.loads(kept["data"])
    except ValueError:
        return None
