"""The mixin that gives any workflow its rewind and branch handlers.

Handlers only put requests in a queue; the supervisor (:mod:`.supervisor`) acts on them. Whatever
is sent, nothing leaves a signal handler, and only failures that the SDK reports to the caller
leave an update handler.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..errors import CheckpointError, InvalidRequest
from .contract import ENDED, PINNED, REPORT, BranchRequest, Overrides, RewindRequest, parse
from .headers import SeedHeader
from .session import Request, Session

if TYPE_CHECKING:
    Wire = Any  # callers may pass the model, a dict, or anything else that is JSON
else:
    Wire = RawValue  # undecodable arguments must reach the handler, so that it can say so

__all__ = ["OWN_QUERIES", "OWN_SIGNALS", "OWN_UPDATES", "Rewindable", "resume_of"]

OWN_UPDATES = frozenset({"rewind", "branch"})
OWN_SIGNALS = OWN_UPDATES | {REPORT, ENDED, PINNED}
OWN_QUERIES = frozenset(
    {"checkpoint_status", "checkpoint_head", "checkpoint_children", "checkpoint_refusals"}
)
_MODELS = {"rewind": RewindRequest, "branch": BranchRequest}


class Rewindable:
    """Mixin: signals and updates ``rewind`` and ``branch``, and queries about them.

    A workflow class that inherits from it, run by a worker with the
    :class:`~ckpt_engine.temporal.plugin.CheckpointPlugin`, can be rewound and branched while it
    runs. How a child finds its way to the checkpoint it is seeded from:

    - ``class MyWorkflow(Rewindable)``: its code, which need know nothing of seeds, runs again
      from the start; every step up to the seed answers from the store without running, timers
      there do not wait, and signals from before the seed are sent again. Code that asks for
      another step than the one that is stored fails with ``diverged``, naming the step.
    - ``class MyWorkflow(Rewindable, resume="next_node")``: its ``run`` is a loop over nodes and
      goes on at ``self.seed.next_node``; nothing is run again.

    With ``on_failure="park"`` a run that fails does not end: it waits for a rewind (or to be
    cancelled), and the query ``checkpoint_status`` shows what it failed with.
    """

    __ckpt_session__: Session
    ckpt_resume: ClassVar[Literal["replay", "next_node"]] = "replay"
    ckpt_on_failure: ClassVar[Literal["fail", "park"]] = "fail"
    ckpt_look_every: ClassVar[timedelta] = timedelta(minutes=10)
    """How often a supervisor that has continued as new looks whether its stand-in still runs."""

    def __init_subclass__(
        cls,
        *,
        resume: Literal["replay", "next_node"] | None = None,
        on_failure: Literal["fail", "park"] | None = None,
        **more: Any,
    ) -> None:
        """Keep how children find their way, and what becomes of a failed run.

        Raises:
            InvalidRequest: ``resume`` or ``on_failure`` is none of its two.
        """
        super().__init_subclass__(**more)
        if resume not in (None, "replay", "next_node"):
            raise InvalidRequest(f"resume: 'replay' or 'next_node', not {resume!r}")
        if on_failure not in (None, "fail", "park"):
            raise InvalidRequest(f"on_failure: 'fail' or 'park', not {on_failure!r}")
        cls.ckpt_resume = resume or cls.ckpt_resume
        cls.ckpt_on_failure = on_failure or cls.ckpt_on_failure

    def continue_if_suggested(self, next_node: str) -> None:
        """Continue as new where the server suggests it, with the same arguments.

        For a loop over nodes: call it between two steps, when nothing is in flight. Only ids
        travel; the next run finds ``next_node`` in ``self.seed``.

        Args:
            next_node: Where the loop is to go on.
        """
        if workflow.info().is_continue_as_new_suggested():
            self.continue_at(next_node)

    def continue_at(self, next_node: str) -> NoReturn:
        """Continue as new at a node, with the same arguments."""
        self.__ckpt_session__.next_node = next_node
        workflow.continue_as_new(args=list(self.__ckpt_session__.args))

    def check_overrides(self, overrides: Overrides) -> None:
        """Refuse changes that a child could not go on with, by raising; override it to do so.

        It is asked before anything is stopped or stored, in workflow code: without I/O.

        Args:
            overrides: What a rewind or branch sent to this running workflow is to change.
        """

    @property
    def seed(self) -> SeedHeader | None:
        """What this run goes on from; ``None`` for one that starts from the beginning.

        After continue-as-new that is where the run before it had come to.
        """
        return self.__ckpt_session__.seed

    @property
    def checkpoint_session(self) -> Session:
        """The bookkeeping of this run: its thread, newest step and frontier."""
        return self.__ckpt_session__

    @workflow.signal(name="rewind")
    def ckpt_rewind_signal(self, request: Wire = None) -> None:
        """Go on from an older checkpoint; refusals are shown by the query."""
        self._signalled("rewind", request)

    @workflow.signal(name="branch")
    def ckpt_branch_signal(self, request: Wire = None) -> None:
        """Start another line from a checkpoint; refusals are shown by the query."""
        self._signalled("branch", request)

    @workflow.signal(name=PINNED)
    def ckpt_pinned_signal(self, _: Wire = None) -> None:
        """Begin: the worker version that was asked for runs this workflow now."""
        self.__ckpt_session__.pinned = True

    @workflow.signal(name=REPORT)
    def ckpt_report_signal(self, by: str = "") -> None:
        """Tell the session's address when this run ends: it continues as new meanwhile."""
        del by
        self.__ckpt_session__.report = True

    @workflow.signal(name=ENDED)
    def ckpt_ended_signal(self, workflow_id: str = "") -> None:
        """Hear that the run that stands in for this one is about to end."""
        self.__ckpt_session__.ended.add(workflow_id)

    @workflow.update(name="rewind")
    async def ckpt_rewind_update(self, request: Wire = None) -> dict[str, Any]:
        """Go on from an older checkpoint; answer with the child once it has started."""
        return await self._asked("rewind", request)

    @workflow.update(name="branch")
    async def ckpt_branch_update(self, request: Wire = None) -> dict[str, Any]:
        """Start another line from a checkpoint; answer with the child once it has started."""
        return await self._asked("branch", request)

    @workflow.query(name="checkpoint_status")
    def ckpt_status_query(self) -> dict[str, Any]:
        """Return a :class:`~ckpt_engine.temporal.contract.SessionStatus` as JSON."""
        return self.__ckpt_session__.status().model_dump(mode="json")

    @workflow.query(name="checkpoint_head")
    def ckpt_head_query(self) -> list[str]:
        """Return the ids of the newest checkpoints of this workflow."""
        return self.__ckpt_session__.main.parents()

    @workflow.query(name="checkpoint_children")
    def ckpt_children_query(self) -> list[dict[str, Any]]:
        """Return every child that a rewind or branch started, oldest first."""
        return [child.model_dump(mode="json") for child in self.__ckpt_session__.children]

    @workflow.query(name="checkpoint_refusals")
    def ckpt_refusals_query(self) -> list[dict[str, Any]]:
        """Return the newest hundred requests that were refused, with the reasons."""
        return [refusal.model_dump(mode="json") for refusal in self.__ckpt_session__.refusals]

    def _checked(self, request: Request) -> Request:
        try:
            self.check_overrides(request.body.overrides)
        except CheckpointError:
            raise
        except Exception as err:
            raise InvalidRequest(str(err)) from err
        return request

    def _signalled(self, kind: Literal["rewind", "branch"], request: Any) -> None:
        session = self.__ckpt_session__
        try:
            session.receive(self._checked(_request(kind, request)))
        except Exception as err:  # noqa: BLE001 - nothing at all may leave a signal handler
            session.refuse(kind, "", err)

    async def _asked(self, kind: Literal["rewind", "branch"], body: Any) -> dict[str, Any]:
        session = self.__ckpt_session__
        try:
            if kind == "rewind" and session.seed and session.seed.supervisor:
                address = session.seed.supervisor
                raise InvalidRequest(f"this run stands in for {address!r}: rewind that workflow")
            request = session.receive(self._checked(_request(kind, body)))
        except CheckpointError as err:
            session.refuse(kind, "", err)
            raise ApplicationError(str(err), type=err.kind, non_retryable=True) from None
        with session.handler():
            await workflow.wait_condition(lambda: request.ended)
        if request.refusal is not None:
            refused = request.refusal
            raise ApplicationError(refused.message, type=refused.kind, non_retryable=True)
        assert request.answer is not None
        return request.answer.model_dump(mode="json")


def resume_of(instance: object) -> Literal["replay", "next_node"]:
    """Return how a workflow's children find their way to a seed."""
    return instance.ckpt_resume if isinstance(instance, Rewindable) else "next_node"


def _request(kind: Literal["rewind", "branch"], raw: Any) -> Request:
    value = raw
    if isinstance(raw, RawValue):
        try:
            value = workflow.payload_converter().from_payload(raw.payload)
        except Exception as err:  # noqa: BLE001 - any converter, any payload
            raise InvalidRequest(f"the {kind} request cannot be decoded: {err}") from None
    if value is None:
        raise InvalidRequest(f"a {kind} request needs one argument, a {_MODELS[kind].__name__}")
    return Request(kind, parse(_MODELS[kind], value))  # type: ignore[arg-type]
