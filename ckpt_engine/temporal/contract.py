"""What crosses the wire besides the header: requests and answers, and the failure types.

Everything here is plain JSON, so that it travels through any data converter. Requests are parsed
by hand from whatever arrived (:func:`parse`), because a handler must survive anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidRequest
from .headers import Lenient, Origin, Reset, SeedHeader

__all__ = [
    "BRANCH_POINT",
    "CANCELED",
    "COLLECT",
    "ENDED",
    "ENGINE_ACTIVITIES",
    "FORWARD_UPDATE",
    "HAS_ENDED",
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
    "ChildStatus",
    "FindPoint",
    "Overrides",
    "PinVersion",
    "PrepareChild",
    "PreparedChild",
    "Refusal",
    "RewindRequest",
    "SendAgain",
    "SessionStatus",
    "StartedChild",
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

SUPERSEDED = "ckpt: superseded by a rewind"
"""Cancellation reason by which a supervisor tells its child that another one takes its place."""

_M = TypeVar("_M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class StartedChild(Lenient):
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


class PrepareChild(Lenient):
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


class SendAgain(Lenient):
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


class PreparedChild(Lenient):
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


class PinVersion(Lenient):
    """Asks that a child be run by a worker version, and then told to begin."""

    child: str
    version: str


class FindPoint(Lenient):
    """Asks the engine for a checkpoint of any thread, running or finished, to branch from.

    Attributes:
        at: The checkpoint.
        session: Workflow id, thread or session it belongs to; not needed with a checkpoint's id.
    """

    at: Target
    session: str | None = None


class BranchPoint(Lenient):
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


class Supersede(Lenient):
    """Tells the engine that a rewind's thread takes the place of another."""

    thread: str
    by: str


class Refusal(Lenient):
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


class SessionStatus(Lenient):
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
