"""From what a caller gives to a :class:`Draft`: everything of a checkpoint but where it goes."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

import msgspec

from .. import codec
from ..checks import check_list
from ..delta import base_depth, diff
from ..errors import Corrupted
from ..model import SnapshotTrigger
from ..store import CheckpointRow
from .damaged import called
from .source import EMPTY_STATE, MESSAGES, LoadedState, Source

__all__ = [
    "NO_RESULT",
    "STORED",
    "TRIGGERS",
    "Draft",
    "Given",
    "LogDraft",
    "Run",
    "finish",
    "log_lengths",
]

TRIGGERS = tuple(SnapshotTrigger)
"""Stored as the place in this order: only ever append to the enumeration."""

NO_RESULT, STORED, PART, AGAINST = range(4)
"""How a checkpoint's ``result`` column is to be read.

Nothing; a codec byte and a body; start and length of the packed result within the messages that the
step appended itself; or compressed against those messages.
"""

_encode = msgspec.msgpack.Encoder().encode
_decode_logs = msgspec.msgpack.Decoder(dict[str, tuple[int, bytes, int]]).decode
_SHORT = 24  # bytes up to which a result is stored as it is
_LARGE = 64_000  # bytes from which on a result is stored apart: its row is read for much else

_HUGE = 4_000_000  # bytes from which on a result is not compared with its step's messages
_MANY = 2_000  # messages that take about as long to pack as others should have to wait
_TAG = 100  # bytes that a tag takes, about
_WORTH = 64  # bytes above which a run of old items is pointed at, rather than stored again


class Run(NamedTuple):
    """Packed items that are new, and then the first parent's from ``start`` to before ``stop``."""

    fresh: list[bytes]
    start: int
    stop: int


@dataclass(slots=True, kw_only=True)
class Given:
    """The content that a caller hands over, named as in ``snapshot`` and ``StepCommit``."""

    messages: Sequence[Any] | None = None
    append: Sequence[Any] = ()
    state: Mapping[str, Any] | None = None
    state_set: Mapping[str, Any] | None = None
    state_delete: Sequence[str] = ()
    tools_result: Any = None
    next_node: str | None = None
    summary: str | None = None
    metadata: Mapping[str, Any] | None = None
    node: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        """Whether these are so many messages that packing them takes long."""
        return len(self.append if self.messages is None else self.messages) > _MANY

    def check(self) -> None:
        """Refuse messages that are no list.

        Raises:
            InvalidRequest: They are something else.
        """
        check_list(self.messages, "messages", "messages", optional=True)
        check_list(self.append, "append", "messages")

    def settle(self) -> None:
        """Take the values as they are now: what the caller holds may change at any ``await``."""
        same = bool(self.append) and self.tools_result is self.append[-1]  # packed once then
        if self.messages is not None:
            self.messages = _own(list, self.messages)
        self.append = _own(list, self.append)
        if self.state is not None:
            self.state = _own(dict, self.state)
        if self.state_set is not None:
            self.state_set = _own(dict, self.state_set)
        if self.metadata is not None:
            self.metadata = _own(dict, self.metadata)
        self.tools_result = self.append[-1] if same else codec.settled(self.tools_result)


def _own(kind: type[Any], values: Any) -> Any:
    return codec.settled(values if type(values) is kind else kind(values))


@dataclass(slots=True)
class LogDraft:
    """A log after the step: what is kept of the first parent's, and the items after that.

    Attributes:
        keep: How many leading items are the first parent's.
        base: How many items the first parent has.
        items: Packed items that follow, after the runs.
        own: How many of those the step itself appended, -1 if it replaced the log.
        length: Items in all.
        chain: Digest chain over all of them.
        blobs: Large values in the items.
        runs: What stands between those that are kept and ``items``, where the log was rewritten.
    """

    keep: int
    base: int
    items: list[bytes]
    own: int
    length: int
    chain: bytes
    blobs: codec.Blobs = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    @property
    def fresh(self) -> list[bytes]:
        """The new items that stand among the runs."""
        return [item for run in self.runs for item in run.fresh]


@dataclass(slots=True, kw_only=True)
class Draft:
    """A checkpoint, ready to be placed.

    ``kind``: it goes behind the head (and is prepared anew if that has moved), behind a parent
    that a caller names (which turns the thread there), or is a step of a workflow.
    """

    parents: list[CheckpointRow]
    prefix: CheckpointRow | None
    logs: dict[str, LogDraft]
    state: LoadedState
    state_row: tuple[int | None, bytes] | None
    state_blobs: codec.Blobs
    at: int
    meta: bytes | None
    result: bytes | None
    fmt: int
    blobs: codec.Blobs
    id: bytes = b""
    thread: str = ""
    step: int = 0
    trigger: SnapshotTrigger = SnapshotTrigger.MANUAL
    node: str | None = None
    tags: tuple[str, ...] = ()
    kind: Literal["head", "parent", "step"] = "head"
    first: bool = True
    late: bool = False

    @property
    def size(self) -> int | None:
        """Bytes that it adds, mostly before compression; ``None`` where it does more than that."""
        if len(self.parents) > 1 or self.kind == "parent":
            return None
        size = len(self.result or b"") + len(self.meta or b"") + len(self.node or "")
        size += _TAG * len(self.tags)
        apart = [self.blobs, self.state_blobs]
        if self.state_row is not None:
            size += len(self.state_row[1])
        for log in self.logs.values():
            if log.keep < log.base:
                return None
            size += sum(map(len, log.items))
            apart.append(log.blobs)
        return size + sum(len(value) for blobs in apart for value in blobs.values())


def log_lengths(row: CheckpointRow | None) -> dict[str, tuple[int, bytes, int]]:
    """Return log -> (length, chain, own) of a checkpoint.

    Raises:
        Corrupted: What it says of its logs is damaged.
    """
    if row is None:
        return {}
    own = {MESSAGES: (row.length, row.chain, row.own)}
    if row.logs is None:
        return own
    try:
        return own | _decode_logs(row.logs)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as err:
        raise Corrupted(f"the logs of {called(row)} cannot be read: {err}") from err


def _log_end(row: CheckpointRow | None, name: str) -> tuple[int, bytes]:
    """Return the length and chain of a checkpoint's log."""
    if row is None:
        return 0, codec.EMPTY_CHAIN
    if name == MESSAGES:
        return row.length, row.chain
    length, chain, _ = log_lengths(row).get(name, (0, codec.EMPTY_CHAIN, 0))
    return length, chain


def appended(
    parent: CheckpointRow | None,
    name: str,
    copied: Sequence[bytes],
    values: Iterable[Any],
    where: str,
) -> LogDraft:
    """Return a log to which the step appends ``values`` (after what a join copies)."""
    length, chain = _log_end(parent, name)
    blobs: codec.Blobs = {}
    items = [codec.pack_item(v, blobs, where, i) for i, v in enumerate(values)]
    own = len(items)
    if copied:
        items = [*copied, *items]
    return LogDraft(
        length, length, items, own, length + len(items), codec.chain_over(chain, items), blobs
    )


def replaced(
    source: Source, name: str, parent: CheckpointRow | None, values: Sequence[Any], where: str
) -> LogDraft:
    """Return a log given in full: what it shares with the parent's is kept."""
    blobs: codec.Blobs = {}
    items = [codec.pack_item(v, blobs, where, i) for i, v in enumerate(values)]
    return _made_anew(source, name, parent, items, blobs)


def rejoined(
    source: Source,
    name: str,
    parent: CheckpointRow | None,
    whole: list[bytes],
    values: Iterable[Any],
    where: str,
) -> LogDraft:
    """Return a log that a join made anew of ``whole``, to which the step appends ``values``."""
    blobs: codec.Blobs = {}
    items = [codec.pack_item(v, blobs, where, i) for i, v in enumerate(values)]
    log = _made_anew(source, name, parent, whole, blobs)
    log.items, log.own = [*log.items, *items], len(items)
    log.length, log.chain = log.length + len(items), codec.chain_over(log.chain, items)
    return log


def _made_anew(
    source: Source,
    name: str,
    parent: CheckpointRow | None,
    items: list[bytes],
    blobs: codec.Blobs,
) -> LogDraft:
    length, parent_chain = _log_end(parent, name)
    chain = codec.chain_over(codec.EMPTY_CHAIN, items[:length])
    if len(items) < length or chain != parent_chain:
        assert parent is not None
        before = source.items(parent.lineage, name, 0, length)
        keep = _common(before, items, 0, 0)
        runs, rest = _runs(before, items, keep)
        chain = codec.chain_over(chain, items[length:])
        return LogDraft(keep, length, rest, -1, len(items), chain, blobs, runs)
    chain = codec.chain_over(chain, items[length:])
    return LogDraft(length, length, items[length:], len(items) - length, len(items), chain, blobs)


def _common(before: list[bytes], items: list[bytes], start: int, number: int) -> int:
    """Return how many items are the same from these two places on."""
    size = 0
    for old, new in zip(islice(before, start, None), islice(items, number, None), strict=False):
        if old != new:
            break
        size += 1
    return size


def _runs(
    before: list[bytes], items: list[bytes], keep: int
) -> tuple[tuple[Run, ...], list[bytes]]:
    """Find what of the old items comes again, in their order, after the first ``keep``.

    Returns:
        The runs; the items that follow them.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for number in range(keep, len(before)):
        places[before[number]].append(number)
    runs: list[Run] = []
    fresh: list[bytes] = []
    at, number = keep, keep
    while number < len(items):
        known = places.get(items[number], [])
        here = bisect_left(known, at)
        start = known[here] if here < len(known) else len(before)
        stop = start + _common(before, items, start, number)
        if sum(map(len, before[start:stop])) > _WORTH:
            runs.append(Run(fresh, start, stop))
            fresh, at = [], stop
            number += stop - start
        else:
            fresh.append(items[number])
            number += 1
    return tuple(runs), fresh


def next_state(
    source: Source,
    parent: LoadedState,
    values: dict[str, bytes],
    whole: bytes | None,
    *,
    deltas: bool,
) -> tuple[LoadedState, tuple[int | None, bytes] | None]:
    """Return the state after the step, and (base, body) of its row if it needs one.

    Args:
        source: Where the states that it may differ from are found.
        parent: The state before.
        values: The state after.
        whole: The same packed, where that is known.
        deltas: Whether a difference may be stored.
    """
    if values is parent.values or (values == parent.values and list(values) == list(parent.values)):
        return parent, None
    if whole is None:
        whole = codec.join_map(values)
    digest = codec.digest_of(whole)
    depth = parent.depth + 1
    wanted = base_depth(depth) if deltas and parent.pk is not None else None
    if wanted is not None:
        base = parent
        while base.depth > wanted and base.base is not None:
            base = source.state(base.base)
        body = diff(base.values, values) if base.depth == wanted else whole
        if len(body) < len(whole) * 3 // 4:
            return LoadedState(None, base.pk, depth, values, digest), (base.pk, body)
    if not values:
        return EMPTY_STATE, None
    return LoadedState(None, None, 0, values, digest), (None, whole)


def packed_state(
    values: Mapping[str, Any], before: Mapping[str, bytes]
) -> tuple[dict[str, bytes], bytes | None, codec.Blobs]:
    """Return an object's values packed by key, all of it packed if known, and its large values.

    Args:
        values: The object.
        before: The state before, packed by key.

    Raises:
        Unstorable: Something in it cannot be stored.
    """
    blobs: codec.Blobs = {}
    whole = codec.pack(values, blobs, "state")
    parts = codec.split_map(whole)
    apart = codec.shared_parts(parts, blobs, before) if len(whole) >= codec.BLOB_MIN else None
    if not apart:
        return parts, whole, blobs
    parts.update(apart)
    named = {digest for part in parts.values() for digest in codec.references(part)}
    return parts, None, {digest: blobs[digest] for digest in named}


def finish(given: Given, log: LogDraft) -> tuple[bytes | None, bytes | None, int, codec.Blobs]:
    """Return the packed meta, the result's column and format, and their large values."""
    blobs: codec.Blobs = {}
    meta = None
    metadata, next_node, summary = given.metadata, given.next_node, given.summary
    if metadata or next_node is not None or summary is not None:
        meta = codec.join_array(
            (
                codec.pack(dict(metadata), blobs, "metadata") if metadata else codec.NIL,
                codec.NIL if next_node is None else codec.pack(next_node, blobs, "next_node"),
                codec.NIL if summary is None else codec.pack(summary, blobs, "summary"),
            )
        )
    if given.tools_result is None:
        return meta, None, NO_RESULT, blobs
    result, fmt = _same_message(given, log) or _result(given.tools_result, log, blobs)
    return meta, result, fmt, blobs


def _same_message(given: Given, log: LogDraft) -> tuple[bytes, int] | None:
    """Return the result's column and format where it is the very message that comes last."""
    append = given.append
    if given.messages is not None or not append or given.tools_result is not append[-1]:
        return None
    last = log.items[-1]
    if not _SHORT < len(last) < codec.BLOB_MIN:  # what is larger may have parts kept apart
        return None
    start = sum(map(len, log.items[-log.own : -1]))
    return _encode((start, len(last))), PART


def _result(value: Any, log: LogDraft, blobs: codec.Blobs) -> tuple[bytes, int]:
    """Return the result's column and format: it mostly is one of the new messages again."""
    found: codec.Blobs = {}
    packed = codec.pack(value, found, "tools_result")
    if log.own > 0 and len(packed) > _SHORT:
        own = b"".join(log.items[-log.own :])
        start = own.find(packed)
        if start >= 0:
            return _encode((start, len(packed))), PART
        whole = codec.pack(value, None) if found else packed
        if log.blobs and (same := log.blobs.get(codec.digest_of(whole))) is not None:
            found = {}
            packed = codec.value_blob(same, found)
        elif len(whole) < _HUGE:
            own = dictionary_of(log.items[-log.own :], log.blobs)
            body = codec.compress_against(whole, own)
            if body is not None and len(body) < _LARGE:
                return body, AGAINST
    if len(packed) >= _LARGE:
        packed, found = codec.parts_apart(packed, found)
        if len(packed) >= _LARGE and not found:
            packed = codec.value_blob(packed, found)
    blobs.update(found)
    code, body = codec.compress(packed)
    return bytes((code,)) + body, STORED


def result_size(result: bytes | None, fmt: int) -> int:
    """Return how many bytes a result takes before compression; few where it is in the messages."""
    if result is None:
        return 0
    if fmt == STORED:
        return codec.content_size(result[0], result[1:])
    return codec.content_size(codec.ZSTD, result) if fmt == AGAINST else len(result)


def dictionary_of(own: Sequence[bytes], blobs: Mapping[bytes, bytes]) -> bytes:
    """Return what a result is compressed against: a step's own messages and their large values."""
    named = sorted(codec.references(*own))
    return b"".join([*own, *(blobs[digest] for digest in named)])


def result_references(row: CheckpointRow) -> set[bytes]:
    """Return the digests of the large values in a checkpoint's result."""
    if codec.kind_of(row.fmt) != STORED or row.result is None:
        return set()
    return codec.references(codec.decompress(row.result[0], row.result[1:]))


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
