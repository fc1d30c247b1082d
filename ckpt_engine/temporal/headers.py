"""The one header: what travels with each workflow and each step, and how it is a payload."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from temporalio.api.common.v1 import Payload

__all__ = [
    "HEADER",
    "CallHeader",
    "Caller",
    "Lenient",
    "Origin",
    "Prefix",
    "Reset",
    "SeedHeader",
    "SessionHeader",
    "StepHeader",
    "header_payload",
    "is_sent_again",
    "read_header",
    "read_step_header",
    "sent_again",
]

HEADER = "ckpt"
"""Key of the one header, in activities and workflows alike."""


class Lenient(BaseModel):
    """A value on the wire of which a newer version may send more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Origin(Lenient):
    """The first step of a thread: how its workflow was started.

    Attributes:
        id: Its checkpoint id.
        run_id: The run whose first event holds the encoded input.
        resume: How the workflow finds its way to a seed (see ``Rewindable``).
        step: Its number; 0 for a session's root.
        base: Number of the last step before the run's code began.
        parents: What the thread begins from, for one that is no session's root.
        branch: The thread's name in the session, likewise.
        sub: The sub-workflow whose line the thread is (see ``StepHeader``).
        caller: The workflow that called it, for a sub-workflow.
    """

    id: str
    run_id: str
    resume: Literal["replay", "next_node"] = "next_node"
    step: int = 0
    base: int = 0
    parents: list[str] = Field(default_factory=list)
    branch: str = ""
    sub: str | None = None
    caller: Caller | None = None


class Caller(Lenient):
    """The workflow that calls another one.

    Attributes:
        thread: Its thread.
        workflow_id: Its workflow id.
        run_id: Its run id.
        workflow_type: Its type.
        task_queue: Where it runs.
        origin: Its first step, while that may not have been committed.
    """

    thread: str
    workflow_id: str
    run_id: str
    workflow_type: str
    task_queue: str
    origin: Origin | None = None


class CallHeader(Lenient):
    """What a sub-workflow is given by the workflow that calls it.

    Attributes:
        id: Checkpoint id of its first step.
        session: Session id, the caller's.
        thread: Its own thread.
        branch: The thread's name in the session.
        parents: The caller's frontier.
        step: Number of the call in the caller's line, and of its first step.
        caller: Who calls.
    """

    id: str
    session: str
    thread: str
    branch: str
    parents: list[str]
    step: int
    caller: Caller


class Reset(Lenient):
    """Where Temporal's reset has put a workflow back.

    Attributes:
        of: The thread that was left; its later checkpoints stay as they are.
        parents: The frontier there.
    """

    of: str
    parents: list[str]


class Prefix(Lenient):
    """The steps before a seed, for a workflow that runs the same code again up to it.

    Attributes:
        start: Number of the last step before the code began: 0, or what it had continued as new at.
        keys: What each of them is known by, from number ``start + 1`` on (see :mod:`.way`).
        gaps: Numbers of steps that failed or had not ended; they run again.
        order: Numbers of the others in the order of their ends; none where each follows the last
            and no signal is sent again.
        calls: Number of the call of a sub-workflow -> number under which its result is stored.
        lines: Parallel line -> place in it -> number of the step.
        ids: Number of a step, or of a call -> checkpoint id, where there are such lines.
        shared: The checkpoint of what a rewind or branch sets, for lines that go on side by side.
        signals: How many signals and updates from before the seed are sent again; the code waits
            for them.
        upto: Without keys, in seeds of earlier versions: number of the newest of them.
        skips: Likewise: numbers that are no activities.
    """

    start: int = 0
    keys: str = ""
    gaps: list[int] = Field(default_factory=list)
    order: list[int] = Field(default_factory=list)
    calls: dict[int, int] = Field(default_factory=dict)
    lines: dict[str, dict[int, int]] = Field(default_factory=dict)
    ids: dict[int, str] = Field(default_factory=dict)
    shared: str | None = None
    signals: int = 0
    upto: int = 0
    skips: list[int] = Field(default_factory=list)


class StepHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Travels with each step's activity; ids only, since headers are not encrypted.

    It is made and read for every step, which a model of pydantic's would make dear.

    Attributes:
        session: Session id.
        thread: Thread id.
        id: The new checkpoint's id.
        step: Its number.
        parents: The frontier when it was scheduled; never empty (step 0 is the first parent).
        fingerprint: Digest of activity type and arguments, as they were scheduled.
        first: Whether it is the first-scheduled child of its frontier.
        record: ``False`` for a step that only looks at the agent's memory.
        replay: The step was done before the seed: it answers from the store and does not run.
        base: Number of the last step before the run's code began; 0 unless it continued as new.
        line: The parallel line it is on (empty for the main one) and its place there; ``None``
            for the place on the main line that its number says.
        sub: The sub-workflow whose line it is, by the checkpoint id of its first step; ``None`` in
            the line of the session's own workflow.
        origin: Where step 0 comes from, while it may not have been committed yet.
        reset: Where Temporal's reset has put the workflow back, if it has.
    """

    v: int = 1
    session: str
    thread: str
    id: str
    step: int
    parents: list[str]
    fingerprint: str = ""
    first: bool = True
    record: bool = True
    replay: bool = False
    base: int = 0
    line: tuple[str, int] | None = None
    sub: str | None = None
    origin: Origin | None = None
    reset: Reset | None = None

    def to_json(self) -> bytes:
        """Return it as JSON, without what is as usual."""
        return _HEADER_OUT.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> StepHeader:
        """Return what :meth:`to_json` gave, by this version or another.

        Raises:
            msgspec.DecodeError: It is no such thing.
        """
        return _HEADER_IN.decode(data)


def _dumped(model: Any) -> dict[str, Any]:
    fields: dict[str, Any] = model.model_dump(exclude_defaults=True)
    return fields


def _validated(model: type[BaseModel], fields: Any) -> BaseModel:
    return model.model_validate(fields)


_HEADER_OUT = msgspec.json.Encoder(enc_hook=_dumped)
_HEADER_IN = msgspec.json.Decoder(StepHeader, dec_hook=_validated)


class SeedHeader(Lenient):
    """What a child workflow, or a new run of a closed one, starts from.

    Attributes:
        session: Session id.
        thread: The child's own thread, already made.
        parents: The seed: checkpoint ids in step order, usually one.
        step: Number of the newest of them.
        next_node: What the seed says comes next.
        branch: The thread's name in the session.
        kind: ``rewind``, ``branch``, or ``continued`` for a session that continued as new.
        supervisor: Workflow id of the session's address, for the child of a rewind.
        prefix: The steps before it, for a workflow that replays them.
        request_id: The request's, which is thereby known to a new run of a closed workflow.
        sub: The sub-workflow whose line it is, if one's.
        version: Its code begins only on this worker version, once it has been pinned to it.
    """

    session: str
    thread: str
    parents: list[str]
    step: int
    next_node: str | None = None
    branch: str = "main"
    kind: Literal["rewind", "branch", "continued"] = "branch"
    supervisor: str | None = None
    prefix: Prefix | None = None
    request_id: str = ""
    sub: str | None = None
    version: str = ""


class SessionHeader(Lenient):
    """What a workflow is started with: by a rewind or branch, a call, or continue-as-new.

    Attributes:
        seed: What this run started from, if anything.
        call: What its caller gave it, if it is a sub-workflow.
        carried: The state of :class:`~ckpt_engine.temporal.session.Session`, if continued.
    """

    v: int = 1
    seed: SeedHeader | None = None
    call: CallHeader | None = None
    carried: dict[str, Any] | None = None

    def to_json(self) -> bytes:
        """Return it as JSON, without what is as usual."""
        return self.model_dump_json(exclude_defaults=True).encode()


def header_payload(value: SessionHeader | StepHeader) -> Payload:
    """Return a header as a plain JSON payload, whatever converter the application uses."""
    return Payload(metadata={"encoding": b"json/plain"}, data=value.to_json())


def read_step_header(payload: Payload | None) -> StepHeader | None:
    """Return the header of a step, or ``None`` where there is no header of ours.

    Raises:
        msgspec.ValidationError: It is one, but of a kind that this version cannot read.
    """
    if payload is None:
        return None
    try:
        return StepHeader.from_json(payload.data)
    except msgspec.DecodeError:
        if read_header(payload) is None:
            return None
        raise


def read_header(payload: Payload | None) -> dict[str, Any] | None:
    """Return the header's fields, or ``None`` where there is no header of ours."""
    if payload is None:
        return None
    try:
        value = json.loads(payload.data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def sent_again() -> Payload:
    """Return the header of a message that was sent before, to a run that this one replays."""
    return Payload(metadata={"encoding": b"json/plain"}, data=b'{"again":true}')


def is_sent_again(payload: Payload | None) -> bool:
    """Say whether a message is one from before the seed."""
    return bool((read_header(payload) or {}).get("again"))
