"""The values of the engine: frozen, comparable, without behaviour that does I/O."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Any, Literal, Protocol

from .errors import InvalidRequest, shown

__all__ = [
    "ID_LENGTH",
    "Checkpoint",
    "CheckpointDiff",
    "CheckpointInfo",
    "CheckpointTree",
    "CommittedStep",
    "HeadMove",
    "JoinedContent",
    "KeyChange",
    "ModelOrMapping",
    "PydanticModel",
    "SnapshotTrigger",
    "StepCommit",
    "Thread",
    "TimeTravelResult",
    "TreeEdge",
    "TreeNode",
    "WorkflowRun",
    "id_from_bytes",
    "id_to_bytes",
    "new_checkpoint_id",
    "seed_ids",
]

ID_LENGTH = 32
_ID = re.compile(r"[0-9a-f]{32}")
_ids = Random(os.urandom(32))  # noqa: S311  (unique, not secret)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: seed_ids())


def seed_ids(seed: bytes | None = None) -> None:
    """Begin new random bits of ids, or those of a seed: what is tried again then draws the same."""
    _ids.seed(os.urandom(32) if seed is None else seed)


class SnapshotTrigger(StrEnum):
    """Why a snapshot was taken."""

    TOOL_CALL = "tool_call"
    LLM_CALL = "llm_call"
    STATE_CHANGE = "state_change"
    TASK_BOUNDARY = "task_boundary"
    MANUAL = "manual"
    INTERVAL = "interval"

    @classmethod
    def _missing_(cls, value: object) -> SnapshotTrigger | None:
        """Take a name in any case, with ``-`` or ``_``."""
        name = value.lower().replace("-", "_") if isinstance(value, str) else value
        return next((trigger for trigger in cls if trigger.value == name), None)


def new_checkpoint_id(rng: Random | None = None, *, at_ms: int | None = None) -> str:
    """Return a new checkpoint id: 32 hex digits, 80 random bits first, then 48 bits of time.

    The random part comes first so that a short prefix is enough to name a checkpoint, as with
    git; stored bytes have the time first, which keeps index pages together.

    Args:
        rng: Source of the random bits; one of the process's own when absent.
        at_ms: Milliseconds since 1970; now when absent.
    """
    bits = (rng or _ids).getrandbits(80)
    millis = int(time.time() * 1000) if at_ms is None else at_ms
    return f"{bits:020x}{millis & (2**48 - 1):012x}"


def new_stored_id() -> bytes:
    """Return a new checkpoint id as its 16 stored bytes."""
    millis = time.time_ns() // 1_000_000 & (2**48 - 1)
    return (millis << 80 | _ids.getrandbits(80)).to_bytes(16, "big")


def id_to_bytes(checkpoint_id: str) -> bytes:
    """Return the 16 stored bytes of an id (time first).

    Raises:
        InvalidRequest: It is not 32 lower-case hex digits.
    """
    if not isinstance(checkpoint_id, str) or not _ID.fullmatch(checkpoint_id):
        raise InvalidRequest(
            f"{shown(checkpoint_id)} is not a checkpoint id: 32 lower-case hex digits are expected"
        )
    return bytes.fromhex(checkpoint_id[20:] + checkpoint_id[:20])


def id_from_bytes(stored: bytes) -> str:
    """Return the text form of 16 stored bytes."""
    text = stored.hex()
    return text[12:] + text[:12]


def ids_from_bytes(stored: Sequence[bytes]) -> tuple[str, ...]:
    """Return the text forms of many at once."""
    text = b"".join(stored).hex()
    return tuple([text[n + 12 : n + 32] + text[n : n + 12] for n in range(0, len(text), 32)])


class PydanticModel(Protocol):
    """A model of pydantic's, which this package need not import to take one."""

    def model_dump(self, *, mode: str) -> Any:
        """Return its JSON form, where the mode is ``json``."""


ModelOrMapping = Mapping[str, Any] | PydanticModel
"""An object, given as a dict or as a pydantic model that has the JSON form of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint without its content: what a list shows.

    Attributes:
        id: 32 hex digits.
        thread_id: The thread it was taken on.
        session_id: Id of the session's root thread.
        step: Its number on its path; parents have smaller ones.
        parents: Ids of its parents, the first one being the line it extends.
        trigger: Why it was taken.
        created_at: When it was committed (UTC).
        node: The step that made it, such as an activity type.
        next_node: What the agent was to do next.
        message_count: Length of its conversation.
        tags: Names given to it.
        labels: What is special about it, found by itself: ``joined``, ``edited``, ``error``,
            ``late``, ``gap``, ``disputed``.
        metadata: Small facts about the step (JSON object).
        summary: One line for people: as it was given, or derived from its content, with a
            replacement character for what cannot be printed.
        digest: 32 hex digits over parents, content and metadata.
    """

    id: str
    thread_id: str
    session_id: str
    step: int
    parents: tuple[str, ...]
    trigger: SnapshotTrigger
    created_at: datetime
    node: str | None = None
    next_node: str | None = None
    message_count: int = 0
    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(CheckpointInfo):
    """A whole checkpoint, equal to what was given.

    The lists and dicts are the caller's to change: every read returns its own.

    Attributes:
        messages: The conversation at this step.
        state: Everything else the agent knows.
        tools_result: The result of the step.
    """

    messages: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    tools_result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A line of checkpoints with a head.

    Attributes:
        id: Its unique name.
        session_id: Id of the session's root thread (its own for a root).
        branch: Its name within the session; a root is ``main``.
        origin: The checkpoint it was branched from, or where that was erased its nearest ancestor
            that is left; ``None`` for a root.
        head: The checkpoint it goes on from; ``None`` while it has none.
        step: Number of its newest step.
        superseded_by: The thread that a rewind started in place of this one.
        created_at: When it was made (UTC).
    """

    id: str
    session_id: str
    branch: str
    origin: str | None
    head: str | None
    step: int
    superseded_by: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRun:
    """Which Temporal workflow runs a thread; kept by the engine as plain text.

    Attributes:
        namespace: Temporal namespace.
        workflow_id: Workflow id.
        run_id: Run id.
        workflow_type: Workflow type name.
        task_queue: Task queue.
        supervisor: Workflow id of the session's address when it is another workflow.
    """

    namespace: str
    workflow_id: str
    run_id: str
    workflow_type: str
    task_queue: str
    supervisor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMove:
    """One move of a thread's head by a caller; what ``undo`` takes back."""

    no: int
    from_id: str | None
    to_id: str | None
    why: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTravelResult:
    """What a rewind did.

    Attributes:
        checkpoint: The checkpoint the thread now goes on from.
        thread_id: The thread.
        rewind_depth: How many steps lie between the old head and the new one.
        snapshot_count_before: How many checkpoints the thread's path had before.
        can_replay: Whether ``next_node`` says how to go on.
    """

    checkpoint: Checkpoint
    thread_id: str
    rewind_depth: int
    snapshot_count_before: int
    can_replay: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCommit:
    """One step's checkpoint as an integration hands it over; ``checkpoint_id`` is the key.

    Attributes:
        checkpoint_id: New id, drawn by the caller; a second commit with it returns the first.
        thread_id: An existing thread.
        step: Its number; greater than every parent's.
        parents: The frontier: ids of committed checkpoints of this session. With several, the
            content starts from their join: the ancestors' additions in step order, state by key.
        first: Whether it is the first-scheduled child of its frontier (it may append in place).
        append: New messages.
        messages: The whole conversation instead, where it is rewritten.
        state: The whole state likewise (this, ``state_set`` and ``metadata`` are dicts or pydantic
            models). A checkpoint with both has the current schema version, any
            other one that of its parents.
        state_set: Keys to set.
        state_delete: Keys to remove.
        tools_result: The step's result.
        trigger: Why.
        node: The step's name.
        next_node: What comes next.
        metadata: Small facts; ``metadata["fingerprint"]`` tells one step from another: a known id
            with another fingerprint is refused; ``metadata["summary"]`` becomes the summary.
        tags: Names to give it.
        fallback_to_head: Where a parent was never committed, go on from the newest committed
            checkpoint of the thread below ``step`` and mark the gap in the metadata, instead of
            raising ``CheckpointNotFound``.
    """

    checkpoint_id: str
    thread_id: str
    step: int
    parents: tuple[str, ...]
    first: bool = True
    append: Sequence[Any] = ()
    messages: Sequence[Any] | None = None
    state: ModelOrMapping | None = None
    state_set: ModelOrMapping = field(default_factory=dict)
    state_delete: Sequence[str] = ()
    tools_result: Any = None
    trigger: SnapshotTrigger = SnapshotTrigger.TOOL_CALL
    node: str | None = None
    next_node: str | None = None
    metadata: ModelOrMapping = field(default_factory=dict)
    tags: Sequence[str] = ()
    fallback_to_head: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedStep:
    """What is stored for a step after a commit.

    Attributes:
        checkpoint_id: The id.
        created: ``False`` when it was committed earlier; then this is the earlier one.
        tools_result: The stored result, the earlier one's when there was one.
        late: The thread had been superseded by a rewind when this arrived.
        metadata: The stored metadata, where it was looked up (``find_committed``).
    """

    checkpoint_id: str
    created: bool
    tools_result: Any
    late: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A checkpoint in a drawing."""

    info: CheckpointInfo
    is_head: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEdge:
    """From parent to child. ``fork``: the parent is on another thread; ``merge``: not the first."""

    parent: str
    child: str
    kind: Literal["step", "fork", "merge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTree:
    """A whole session, ready to draw.

    Attributes:
        session_id: Id of the root thread.
        active_thread: The thread the session goes on with.
        threads: Every thread, the root first, then in the order of their making.
        runs: Thread id -> the workflow that runs it, where one does.
        nodes: Every checkpoint, oldest first (parents before children).
        edges: Every parent link.
    """

    session_id: str
    active_thread: str
    threads: tuple[Thread, ...]
    runs: Mapping[str, WorkflowRun]
    nodes: tuple[TreeNode, ...]
    edges: tuple[TreeEdge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A state key that differs; ``before`` or ``after`` is absent when added or removed."""

    key: str
    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDiff:
    """How ``b`` differs from ``a``.

    Attributes:
        a: Id of the left checkpoint.
        b: Id of the right one.
        merge_base: Their newest common ancestor, if any.
        common_messages: How many leading messages they share.
        messages_removed: What only ``a`` has after those.
        messages_added: What only ``b`` has after those.
        state: Keys that differ, sorted.
    """

    a: str
    b: str
    merge_base: str | None
    common_messages: int
    messages_removed: tuple[Any, ...]
    messages_added: tuple[Any, ...]
    state: tuple[KeyChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedContent:
    """What a step with some parents starts from.

    Attributes:
        messages: The conversation; the caller's own copy.
        state: The state; the caller's own copy.
        disputed: State keys that several parallel lines changed; the later step's value is taken.
    """

    messages: list[Any]
    state: dict[str, Any]
    disputed: tuple[str, ...] = ()
