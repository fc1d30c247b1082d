"""What crosses the wire: the header, requests and answers, and the failure types.

Everything here is plain JSON, so that it travels through any data converter. Requests are parsed
by hand from whatever arrived (:func:`parse`), because a handler must survive anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidRequest

__all__ = [
    "BRANCH_POINT",
    "CANCELED",
    "COLLECT",
    "ENDED",
    "ENGINE_ACTIVITIES",
    "FORWARD_UPDATE",
    "HAS_ENDED",
    "HEADER",
    "JOIN_CALL",
    "OUTCOME",
    "OUTCOME_FAILED",
    "PINNED",
    "PIN_VERSION",
    "PREPARE_CHILD",
    "RECALL",
    "REPORT",
    "SEND_AGAIN",
    "SUPERSEDE",
    "SUPERSEDED",
    "BranchPoint",
    "BranchRequest",
    "CallHeader",
    "Caller",
    "ChildStatus",
    "FindPoint",
    "Origin",
    "Overrides",
    "PinVersion",
    "Prefix",
    "PrepareChild",
    "PreparedChild",
    "Refusal",
    "Reset",
    "RewindRequest",
    "SeedHeader",
    "SendAgain",
    "SessionHeader",
    "SessionStatus",
    "StartedChild",
    "StepHeader",
    "Supersede",
    "Target",
    "parse",
]

FORWARD_UPDATE, PREPARE_CHILD, SUPERSEDE = "ckpt_forward_update", "ckpt_prepare", "ckpt_supersede"
HAS_ENDED, OUTCOME, SEND_AGAIN = "ckpt_has_ended", "ckpt_outcome", "ckpt_send_again"
JOIN_CALL, RECALL = "ckpt_join", "ckpt_recall"
COLLECT, PIN_VERSION = "ckpt_collect", "ckpt_pin_version"
BRANCH_POINT = "ckpt_branch_point"
ENGINE_ACTIVITIES = frozenset(
    {
        BRANCH_POINT,
        COLLECT,
        FORWARD_UPDATE,
        HAS_ENDED,
        JOIN_CALL,
        OUTCOME,
        PIN_VERSION,
        PREPARE_CHILD,
        RECALL,
        SEND_AGAIN,
        SUPERSEDE,
    }
)
"""The engine's own activities; they are not steps."""

PINNED = "ckpt_pinned"
"""Signal to a child that was to run on a worker version: now it does."""

REPORT, ENDED = "ckpt_report", "ckpt_ended"
"""Signals between a supervisor that has continued as new and the stand-in: tell me, I end."""

OUTCOME_FAILED, CANCELED = "ckpt-outcome", "ckpt-canceled"
"""Failure types by which ``OUTCOME`` says how a stand-in ended."""

HEADER = "ckpt"
"""Key of the one header, in activities and workflows alike."""

SUPERSEDED = "ckpt: superseded by a rewind"
"""Cancellation reason by which a supervisor tells its child that another one takes its place."""

_M = TypeVar("_M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Origin(_Lenient):
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


class Caller(_Lenient):
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


class CallHeader(_Lenient):
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


class Reset(_Lenient):
    """Where Temporal's reset has put a workflow back.

    Attributes:
        of: The thread that was left; its later checkpoints stay as they are.
        parents: The frontier there.
    """

    of: str
    parents: list[str]


class Prefix(_Lenient):
    """The steps before a seed, for a workflow that runs the same code again up to it.

    Attributes:
        start: Number of the last step before the code began: 0, or what it had continued as new at.
        keys: What each of them is known by, from number ``start + 1`` on (see :mod:`.way`).
        gaps: Numbers of steps that failed or had not ended; they run again.
        order: Numbers of the others in the order of their ends; none where each follows the last.
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


class SeedHeader(_Lenient):
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


class SessionHeader(_Lenient):
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


class Target(_Strict):
    """Which checkpoint is meant: exactly one of the first four, on the active thread by default.

    Attributes:
        checkpoint: An id, or a prefix of at least four digits that is unique in the session.
        step: A step number; in a parallel group, everything done up to it.
        back: So many steps before the head (resolved when the request is handled).
        tag: A tag.
        thread: Another thread of the session, by id or by branch name.
    """

    checkpoint: str | None = None
    step: int | None = Field(default=None, ge=0)
    back: int | None = Field(default=None, ge=0)
    tag: str | None = None
    thread: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Target:
        given = [self.checkpoint, self.step, self.back, self.tag]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of checkpoint, step, back or tag")
        return self


class Overrides(_Strict):
    """What a child changes in its seed before it goes on.

    Attributes:
        messages: Extra messages, JSON objects, appended to the conversation.
        state: Keys of the state to set.
        model: Shorthand for the state key ``model``.
        instructions: Shorthand for the state key ``instructions``.
        next_node: Where to go on, in place of the seed's own.
    """

    messages: list[dict[str, Any]] = Field(default_factory=list)
    state: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None
    instructions: str | None = None
    next_node: str | None = None

    def state_patch(self) -> dict[str, Any]:
        """Return the keys to set, shorthands included."""
        short = {"model": self.model, "instructions": self.instructions}
        return {**self.state, **{k: v for k, v in short.items() if v is not None}}


Version = Annotated[str, Field(pattern=r"^([^.\s]+\.\S+)?$")]
"""A worker version, ``deployment.build``, or empty."""


class RewindRequest(_Strict):
    """Go on from an older checkpoint instead of the head.

    Attributes:
        to: The checkpoint.
        overrides: What to change.
        request_id: Makes a repeated request the same request.
        in_flight: What becomes of the step that is running: cancelled, left to end by itself, or
            waited for (at most ``wait_seconds``).
        reason: Kept in the record.
        version: The worker version that is to run the child, as ``deployment.build``; the
            server's choice when empty.
    """

    to: Target
    overrides: Overrides = Field(default_factory=Overrides)
    request_id: str = ""
    in_flight: Literal["cancel", "abandon", "wait"] = "cancel"
    wait_seconds: float = Field(default=60.0, gt=0, le=86_400)
    reason: str = ""
    version: Version = ""


class BranchRequest(_Strict):
    """Start another line from a checkpoint, beside the one that goes on.

    Attributes:
        at: The checkpoint.
        name: The branch's name, unique in the session.
        overrides: What to change.
        request_id: Makes a repeated request the same request.
        reason: Kept in the record.
        version: The worker version that is to run the child, as ``deployment.build``; the
            server's choice when empty.
    """

    at: Target
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    overrides: Overrides = Field(default_factory=Overrides)
    request_id: str = ""
    reason: str = ""
    version: Version = ""


class StartedChild(_Lenient):
    """The answer to a rewind or branch: the child that goes on.

    Attributes:
        kind: ``rewind`` or ``branch``.
        workflow_id: Its workflow id.
        run_id: Its first run id.
        thread: Its thread.
        branch: The thread's name in the session.
        seed: The checkpoints it starts from.
        request_id: The request's.
    """

    kind: Literal["rewind", "branch"]
    workflow_id: str
    run_id: str
    thread: str
    branch: str
    seed: list[str]
    request_id: str = ""


class ChildStatus(StartedChild):
    """A child as the supervisor sees it."""

    state: Literal["running", "completed", "failed", "canceled", "superseded"] = "running"


class PrepareChild(_Lenient):
    """Asks the engine to make a child's thread and first checkpoint; safe to ask again.

    Attributes:
        kind: ``rewind`` or ``branch``.
        session: The session.
        active_thread: The thread that targets mean by default.
        own_thread: The asking workflow's own thread.
        rewind: The request, for a rewind.
        branch: The request, for a branch.
        thread: Id of the child's thread, drawn by the caller.
        checkpoint: Id of the child's first checkpoint, drawn by the caller.
        run: The child's workflow: namespace, id, type, task queue.
        resume: How its code finds its way to the seed.
        base: Where the code of the asking run began; ``None`` for one that does not run.
        origin: Step 0 of the asking workflow, while it may not have been committed.
        sub: The sub-workflow whose line it is, if one's.
        reset: Where Temporal's reset has put the asking workflow back, if it has.
    """

    kind: Literal["rewind", "branch"]
    session: str
    active_thread: str
    own_thread: str = ""
    rewind: RewindRequest | None = None
    branch: BranchRequest | None = None
    thread: str
    checkpoint: str
    run: dict[str, str | None]
    resume: Literal["replay", "next_node"] = "next_node"
    base: int | None = None
    origin: Origin | None = None
    reset: Reset | None = None
    sub: str | None = None


class SendAgain(_Lenient):
    """Asks for the messages from before a seed to be sent to its child; safe to ask again.

    Attributes:
        child: Workflow id of the child.
        source: Workflow id of the run that made the seed.
        run_id: Its run id.
        step: Number of its newest step before the seed; what came before that is meant.
    """

    child: str
    source: str
    run_id: str
    step: int


class PreparedChild(_Lenient):
    """What the engine made for a child, or why not.

    Attributes:
        seed: What the child is to start from; ``None`` when refused.
        target: The checkpoints the request meant.
        args: The arguments to start it with, as (metadata, data) in base 64, where they are others
            than those of the asking run.
        again: The messages from before the seed that it is to hear again, if any.
        version: The worker version that is to run it, if one was asked for.
        refused_kind: Kind of the error.
        refused: What was wrong and what would be right.
    """

    seed: SeedHeader | None = None
    target: list[str] = Field(default_factory=list)
    args: list[tuple[dict[str, str], str]] | None = None
    again: SendAgain | None = None
    version: str = ""
    refused_kind: str = ""
    refused: str = ""


class PinVersion(_Lenient):
    """Asks that a child be run by a worker version, and then told to begin."""

    child: str
    version: str


class FindPoint(_Lenient):
    """Asks the engine for a checkpoint of any thread, running or finished, to branch from.

    Attributes:
        at: The checkpoint.
        session: Workflow id, thread or session it belongs to; not needed with a checkpoint's id.
    """

    at: Target
    session: str | None = None


class BranchPoint(_Lenient):
    """A checkpoint that branches can be started from, and which workflow runs its session.

    Attributes:
        session: Session id.
        workflow_id: The session's address.
        thread: The checkpoint's thread.
        checkpoint: Its id.
        step: Its number.
        digest: Its digest, over content, parents and metadata.
        workflow_type: The workflow that runs the session.
        task_queue: Where that runs.
        resume: How its code finds its way to a seed.
    """

    session: str
    workflow_id: str
    thread: str
    checkpoint: str
    step: int
    digest: str
    workflow_type: str
    task_queue: str
    resume: Literal["replay", "next_node"] = "next_node"


class Supersede(_Lenient):
    """Tells the engine that a rewind's thread takes the place of another."""

    thread: str
    by: str


class Refusal(_Lenient):
    """A request that was not carried out, and why; the agent goes on.

    Attributes:
        request: ``rewind``, ``branch`` or another signal's name.
        request_id: The request's, if it had one.
        kind: Kind of the error, stable.
        message: What was wrong and what would be right.
    """

    request: str
    request_id: str = ""
    kind: str
    message: str


class SessionStatus(_Lenient):
    """The answer to the query ``checkpoint_status``.

    Attributes:
        phase: ``running`` itself, ``supervising`` the child of a rewind, ``parked`` after a
            failure until a rewind comes, or ``closing``.
        session: Session id.
        thread: The workflow's own thread.
        active_thread: The thread the session goes on with.
        active_workflow_id: The workflow that runs it.
        step: Newest step number known to the workflow.
        head: Newest checkpoint ids known to the workflow (the frontier).
        children: The newest hundred children of rewinds and branches, oldest first. A branch is
            followed until this workflow continues as new.
        refusals: The newest hundred refused requests, oldest first.
        pending: Requests received and not yet handled.
        failure: What it failed with, while it is parked.
    """

    phase: Literal["running", "supervising", "parked", "closing"]
    session: str
    thread: str
    active_thread: str
    active_workflow_id: str
    step: int
    head: list[str]
    children: list[ChildStatus]
    refusals: list[Refusal]
    pending: int
    failure: str = ""


def parse(model: type[_M], value: Any) -> _M:
    """Return ``value`` as ``model``, whether it is one already or plain JSON.

    Raises:
        InvalidRequest: It is neither; the message names each wrong place.
    """
    try:
        return model.model_validate(value)
    except ValidationError as err:
        places = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}"
            for e in err.errors(include_url=False, include_input=False)
        )
        raise InvalidRequest(f"not a valid {model.__name__}: {places}") from None
    except RecursionError:
        raise InvalidRequest(f"not a valid {model.__name__}: nested too deeply") from None
