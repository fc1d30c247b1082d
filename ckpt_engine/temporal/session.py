"""Workflow-side bookkeeping: frontier, new ids, requests. Deterministic, without I/O.

One :class:`Session` lives on the workflow's interceptor for as long as the run does, and crosses
continue-as-new in a header. What it draws and counts is the same on every replay.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, Literal

from temporalio import workflow

from ..errors import CheckpointError, InvalidRequest
from ..model import new_checkpoint_id
from .contract import (
    BranchRequest,
    ChildStatus,
    Refusal,
    RewindRequest,
    SessionStatus,
    StartedChild,
)
from .headers import Origin, Prefix, Reset, SeedHeader, SessionHeader, StepHeader
from .way import Way, step_key, way_to

__all__ = [
    "Line",
    "Request",
    "Session",
    "fingerprint_of",
    "line",
    "new_id",
]

_PLAIN = frozenset({str, int, float, bool, type(None)})
_KEPT = 100  # refusals and children shown, and request ids remembered times ten
_MOST_CARRIED = 256 * 1024  # characters of requests
_CARRIED = 20  # refusals that cross continue-as-new, so that the header stays small


RESEEDING: dict[str, int] = {}
"""Run id -> new seed, of workflows that Temporal's reset puts back in the task being run."""


class Line:
    """The frontier of one line of steps: those that are done and that nothing follows yet."""

    def __init__(self, tips: dict[str, int], key: str = "", *, before_seed: bool = False) -> None:
        self.tips = tips
        self.key = key
        self.place = 0
        self.before_seed = before_seed
        self._opened: Counter[str] = Counter()

    def key_of(self, name: str) -> str:
        """Return what tells a line that is opened inside this one from every other."""
        self._opened[name] += 1
        return f"{self.key}/{name}#{self._opened[name]}"

    def parents(self) -> list[str]:
        """Return the frontier in step order: the next step's parents."""
        return sorted(self.tips, key=lambda tip: self.tips[tip])

    def advance(self, parents: Sequence[str], tips: dict[str, int]) -> None:
        """Put ``tips`` in the place of the parents that they follow."""
        for parent in parents:
            self.tips.pop(parent, None)
        self.tips.update(tips)


_current_line: ContextVar[Line | None] = ContextVar("ckpt_line", default=None)


@dataclass
class Request:
    """A rewind or branch that waits to be handled; ``answer`` or ``refusal`` ends it."""

    kind: Literal["rewind", "branch"]
    body: RewindRequest | BranchRequest
    answer: StartedChild | None = None
    refusal: Refusal | None = None

    @property
    def ended(self) -> bool:
        """Whether somebody who waits for it can go on."""
        return self.answer is not None or self.refusal is not None


@dataclass
class Session:
    """What a running workflow knows of its own checkpoints.

    Attributes:
        session: Session id.
        thread: The thread its steps extend.
        step: Highest step number given out.
        main: The frontier.
        seed: What it was started from, if from anything.
        sub: The sub-workflow whose line it is (see ``StepHeader``).
        origin: The thread's first step, until a later step has told the store of it.
        pinned: Whether it has been pinned to the worker version that was asked for.
        stopped: Set by a rewind that was accepted: no further step is scheduled, ever.
        base: Number of the last step before this run's code began.
        args: What the run was started with.
        next_node: Where the next run is to go on after continue-as-new.
        heard_again: How many messages from before the seed have come again.
        report: Whether the supervisor asked to be told when this run ends.
        ended: Stand-ins that have told so.
        failure: What it failed with, while it is parked.
        reset: Where Temporal's reset has put this workflow back, if it has.
        random_seed: The newest seed that a reset has brought.
        children: Every child a rewind or branch started, oldest first.
        way: The way to the seed, for code that runs again up to it.
        requests: Received and not yet handled.
        handling: The one that is being handled.
        seeds: Workflow id -> seed, of children that are about to be started.
    """

    session: str
    thread: str
    step: int
    main: Line
    rng: Random
    local_rng: Random
    seed: SeedHeader | None = None
    sub: str | None = None
    origin: Origin | None = None
    stopped: bool = False
    pinned: bool = False
    phase: Literal["running", "supervising", "parked", "closing"] = "running"
    base: int = 0
    args: Sequence[Any] = ()
    next_node: str | None = None
    heard_again: int = 0
    report: bool = False
    ended: set[str] = field(default_factory=set)
    failure: str = ""
    reset: Reset | None = None
    random_seed: int | None = None
    _reset_now: bool = False
    children: list[ChildStatus] = field(default_factory=list)
    refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=_KEPT))
    requests: deque[Request] = field(default_factory=deque)
    handling: tuple[Request, ...] = ()
    answered: OrderedDict[str, StartedChild] = field(default_factory=OrderedDict)
    seeds: dict[str, SeedHeader] = field(default_factory=dict)
    way: Way | None = None
    in_flight: int = 0
    waiting: int = 0
    extended: set[str] = field(default_factory=set)
    _before: frozenset[str | None] = frozenset()
    _born: int | None = None
    calls: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    def seeded(cls, seed: SeedHeader, rng: Random, local_rng: Random) -> Session:
        """Return the bookkeeping of a run that a rewind or branch has started."""
        main = Line(dict.fromkeys(seed.parents, seed.step))
        session = cls(seed.session, seed.thread, seed.step, main, rng, local_rng, seed=seed)
        session.sub = seed.sub
        main.place = seed.step
        if seed.prefix is not None:
            session.base, main.place = seed.prefix.start, 0
            session.way = way_to(seed.prefix, session._is_busy)
            session._open_lines(seed.prefix)
        if seed.request_id and seed.kind != "continued" and seed.supervisor is None:
            info = workflow.info()
            session.answered[seed.request_id] = StartedChild(
                kind=seed.kind,
                workflow_id=info.workflow_id,
                run_id=info.run_id,
                thread=seed.thread,
                branch=seed.branch,
                seed=seed.parents,
                request_id=seed.request_id,
            )
        return session

    @classmethod
    def carried(cls, header: SessionHeader, rng: Random, local_rng: Random) -> Session:
        """Return the bookkeeping that the run before continue-as-new handed on."""
        was = header.carried or {}
        session = cls(was["session"], was["thread"], was["step"], Line(was["tips"]), rng, local_rng)
        session.seed = header.seed
        session.base, session.report, session.sub = was["base"], was["report"], was.get("sub")
        session.origin = Origin.model_validate(was["origin"]) if was.get("origin") else None
        session.children = [ChildStatus.model_validate(child) for child in was["children"]]
        session.refusals.extend(Refusal.model_validate(refusal) for refusal in was["refusals"])
        for answer in (*was["answered"], *was["children"]):
            if answer["request_id"]:
                child = StartedChild.model_validate(answer)
                session.answered[child.request_id] = child
        for kind, body in was["requests"]:
            model = RewindRequest if kind == "rewind" else BranchRequest
            session.requests.append(Request(kind, model.model_validate(body)))
        if session.active is not None:
            session.stopped, session.phase = True, "supervising"
        return session

    def carry(self) -> SessionHeader:
        """Return what the next run needs after continue-as-new: ids only, no content."""
        self.settle()
        children = self.children[-_KEPT:]
        shown = {child.request_id for child in children}
        answered = [child for key, child in self.answered.items() if key not in shown]
        carried = {
            "run_id": workflow.info().run_id,
            "session": self.session,
            "sub": self.sub,
            "thread": self.thread,
            "step": self.step,
            "tips": self.main.tips,
            "base": self.base if self.active is not None else self.step,
            "report": self.report,
            "origin": self.origin.model_dump() if self.origin else None,
            "children": [child.model_dump() for child in children],
            "refusals": [refusal.model_dump() for refusal in list(self.refusals)[-_CARRIED:]],
            "answered": [child.model_dump() for child in answered[-_KEPT:]],
            "requests": [(request.kind, request.body.model_dump()) for request in self.requests],
        }
        return SessionHeader(seed=self._continued(), carried=carried)

    def _continued(self) -> SeedHeader:
        old = self.seed
        return SeedHeader(
            session=self.session,
            thread=self.thread,
            parents=self.main.parents(),
            step=self.step,
            next_node=self.next_node,
            branch=old.branch if old else "main",
            kind="continued",
            supervisor=old.supervisor if old else None,
            sub=self.sub,
        )

    def was_reset(self, seed: int) -> None:
        """Note that Temporal's reset has put the workflow back to here.

        It runs the kept part of the history again and then draws from another seed, which is how
        a workflow comes to know of it: before its code hears of what ended in the same task.
        """
        if seed != self.random_seed:
            self.random_seed, self._reset_now = seed, True

    @property
    def being_reset(self) -> bool:
        """Whether the task that is being run is the one that a reset has put the workflow to."""
        return workflow.info().run_id in RESEEDING

    def settle(self) -> None:
        """After a reset, go on with a thread of its own: what was done after it stays apart."""
        seed = RESEEDING.get(workflow.info().run_id) if RESEEDING else None
        if seed is not None and seed != self.random_seed:
            self.was_reset(seed)
            self.rng.seed(f"{seed}:ckpt-early")
            self.local_rng.seed(f"{seed}:ckpt-early-local")
        if not self._reset_now:
            return
        self._reset_now = False
        if self.reset is None or self.reset.parents != self.main.parents():
            self.reset = Reset(of=self.thread, parents=self.main.parents())
        suffix = f"{self.rng.getrandbits(24):06x}"
        self.thread = f"{workflow.info().workflow_id}/reset-{suffix}"

    # Steps

    def schedule(self, activity: str, args: Sequence[Any], *, record: bool, local: bool) -> Step:
        """Give a step its id, number and parents.

        Raises:
            asyncio.CancelledError: A rewind has stopped this line.
        """
        if self.stopped:
            raise asyncio.CancelledError("this line was left by a rewind")
        self.settle()
        on = self.current_line()
        fingerprint = fingerprint_of(activity, args)
        checkpoint_id = self._draw(fingerprint, local=local)
        number = self.find(on, fingerprint) if record else None
        replay = number is not None or (self.replaying and not record)
        if number is None:
            number = self.way.upto if replay and self.way else self.step
            if record:
                number = self.next_number(on)
        parents = on.parents()
        header = StepHeader(
            session=self.session,
            thread=self.thread,
            id=checkpoint_id,
            step=number,
            parents=parents,
            fingerprint=fingerprint,
            line=self.place_on(on, number),
            first=parents[0] not in self.extended,
            record=record,
            replay=replay,
            base=self.base,
            sub=self.sub,
            origin=self.origin,
            reset=self.reset,
        )
        if record and not replay:
            self.extended.add(parents[0])
        on.place += record
        self.in_flight += 1
        if replay and self.way:
            self.way.answering += 1
        # only asked for while there is an origin to tell of
        live = self.origin is not None and not workflow.unsafe.is_replaying()
        return Step(header, on, self, live=live)

    def current_line(self) -> Line:
        """Return the line that a step scheduled now belongs to."""
        return _current_line.get() or self.main

    @property
    def replaying(self) -> bool:
        """Whether the code is still on its way to the seed."""
        return self.way is not None and self.way.left

    def must_wait(self, name: str, args: Sequence[Any], *, call: bool = False) -> Way | None:
        """Return what a step has to wait for before it is scheduled, on the way to a seed."""
        if self.way is None or not self.way.left:
            return None
        on = self.current_line()
        key = step_key(on.key, fingerprint_of(name, args), call=call)
        return self.way if self.way.must_wait(key, on.key, on.place) else None

    def find(self, on: Line, fingerprint: str, *, call: bool = False) -> int | None:
        """Return the number under which the next step of a line is stored, if it is."""
        if self.way is None or not self.way.left:
            return None
        return self.way.find(step_key(on.key, fingerprint, call=call), on.key, on.place)

    def place_on(self, on: Line, number: int) -> tuple[str, int] | None:
        """Return where a step is; nothing where its number says that."""
        plain = not on.key and on.place == number - self.base - 1
        return None if plain else (on.key, on.place)

    def next_number(self, on: Line) -> int:
        """Give out the number of a step of a line that was not done before the seed."""
        self.step += 1
        self._leave_prefix(on)
        return self.step

    def _is_busy(self) -> bool:
        return self.in_flight > 0 or any(not call.done() for call in self.calls)

    def _open_lines(self, prefix: Prefix) -> None:
        """Where parallel lines lead to the seed, follow each of them by its real checkpoints."""
        start = prefix.ids.get(prefix.start)
        self._before = frozenset(prefix.ids.values()) - {prefix.shared}
        if start is not None:
            self.main = Line({start: prefix.start}, before_seed=True)

    def _leave_prefix(self, on: Line) -> None:
        """Before a new step: go on from the seed, a line from its own part of it."""
        prefix = self.seed.prefix if self.seed else None
        if self.seed is None or prefix is None or not prefix.ids:
            return
        if on.before_seed and prefix.shared is not None and (on is not self.main or self.replaying):
            on.tips[prefix.shared] = self.seed.step - 1
        if on is not self.main:
            on.before_seed = False
        if self.main.before_seed and not self.replaying:
            self.main.before_seed = False
            known = {*self._before, prefix.shared}
            made = {tip: n for tip, n in self.main.tips.items() if tip not in known}
            self.main.tips = {**dict.fromkeys(self.seed.parents, self.seed.step), **made}

    def draw_suffix(self) -> str:
        """Return six new hex digits for the name of a child."""
        self.settle()
        return f"{self.rng.getrandbits(24):06x}"

    def draw_id(self) -> str:
        """Return a new checkpoint id."""
        return self._new_id(self.rng)

    def _new_id(self, rng: Random) -> str:
        if self._born is None:
            self._born = _born()
        return new_checkpoint_id(rng, at_ms=self._born)

    def _draw(self, fingerprint: str, *, local: bool) -> str:
        # A local activity may run and be lost with its worker before the server knew of it, and
        # a replay may then schedule another in its place: its id says which one it is.
        if not local:
            return self._new_id(self.rng)
        drawn = self._new_id(self.local_rng)
        mixed = blake2b(f"{drawn}{fingerprint}".encode(), digest_size=10).hexdigest()
        return mixed + drawn[20:]

    def _done(self, step: Step, *, succeeded: bool) -> None:
        self.in_flight -= 1
        if step.header.replay and self.way:
            self.way.answering -= 1
        if not succeeded or not step.header.record:
            return
        if step.header.replay:
            number = step.header.step
            self.advance_on_way(step.line, step.header.parents, number, number)
        else:
            self.advance(step.line, step.header.parents, step.header.id, step.header.step)
        # One that was scheduled before the plugin was there has told the store of nothing.
        if step.live and self.origin is not None and self.origin.id not in self.main.tips:
            self.origin = None

    def advance_on_way(self, line: Line, parents: Sequence[str], number: int, stored: int) -> None:
        """Put a step before the seed in the place of those that it follows, where lines need it.

        What a step that runs anew has put there stays: the stored ones know nothing of it.

        Args:
            line: Its line.
            parents: What it follows.
            number: Its own, or that of the call.
            stored: The number under which it, or the end of the call, is stored.
        """
        prefix = self.seed.prefix if self.seed else None
        made = prefix.ids.get(number) if prefix is not None else None
        if prefix is None or made is None or (line is self.main and not line.before_seed):
            return
        self.advance(line, [parent for parent in parents if parent in self._before], made, stored)

    def advance(self, line: Line, parents: Sequence[str], checkpoint_id: str, step: int) -> None:
        """Put a checkpoint in the place of the parents that it follows."""
        line.advance(parents, {checkpoint_id: step})
        self.extended.intersection_update(self.main.tips)

    # Requests

    def receive(self, request: Request) -> Request:
        """Queue a request, or return the one that its request id repeats, already answered."""
        request_id = request.body.request_id
        if request_id and (earlier := self.answered.get(request_id)):
            request.answer = earlier
            return request
        for waiting in (*self.handling, *self.requests):
            if request_id and waiting.body.request_id == request_id:
                return waiting
        self.requests.append(request)
        return request

    @property
    def can_be_carried(self) -> bool:
        """Whether the requests that wait are small enough to cross continue-as-new."""
        if self.waiting:
            return False  # somebody waits for the answer of this run
        bodies = (request.body.model_dump_json() for request in self.requests)
        return sum(map(len, bodies)) < _MOST_CARRIED

    def answer(self, request: Request, child: StartedChild) -> None:
        """End a request with the child it started, and remember its request id."""
        request.answer = child
        if child.request_id:
            self.answered[child.request_id] = child
            while len(self.answered) > _KEPT * 10:
                self.answered.popitem(last=False)

    def refuse(self, request: str, request_id: str, err: BaseException) -> Refusal:
        """Record why a request was not carried out."""
        kind = err.kind if isinstance(err, CheckpointError) else type(err).__name__
        refusal = Refusal(
            request=request, request_id=request_id, kind=kind, message=str(err)[:2000]
        )
        self.refusals.append(refusal)
        return refusal

    @property
    def active(self) -> ChildStatus | None:
        """The child that the newest rewind put in this workflow's place, if one has."""
        stand_ins = (child for child in reversed(self.children) if child.kind == "rewind")
        newest = next(stand_ins, None)
        return newest if newest is not None and newest.state != "superseded" else None

    @contextmanager
    def handler(self) -> Iterator[None]:
        """Keep the workflow open while a handler of ours has something to do."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @contextmanager
    def flight(self) -> Iterator[None]:
        """Count something of ours as a step in flight, for whoever waits until none is."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def status(self) -> SessionStatus:
        """Return what the query ``checkpoint_status`` answers."""
        active = self.active
        return SessionStatus(
            phase=self.phase,
            session=self.session,
            thread=self.thread,
            active_thread=active.thread if active else self.thread,
            active_workflow_id=active.workflow_id if active else workflow.info().workflow_id,
            step=self.step,
            head=self.main.parents(),
            children=self.children[-_KEPT:],
            refusals=list(self.refusals),
            pending=len(self.requests),
            failure=self.failure,
        )


@dataclass(frozen=True)
class Step:
    """A step that was scheduled: its header, and where to report how it ended.

    Attributes:
        header: What it is sent with.
        line: The line it is on.
        session: Where to report.
        live: Whether it was scheduled just now, not long ago in a history that is replayed.
    """

    header: StepHeader
    line: Line
    session: Session
    live: bool

    def ended(self, handle: asyncio.Future[Any]) -> None:
        """Move the frontier when the activity succeeded (a done callback of its handle)."""
        succeeded = not handle.cancelled() and handle.exception() is None
        self.session._done(self, succeeded=succeeded)


@asynccontextmanager
async def line(name: str) -> AsyncIterator[Line]:
    """Give the steps inside a line of their own, so that parallel sub-agents never mix.

    The line starts from the caller's frontier; when the block ends, what it has reached joins
    the caller's frontier, and the next step there sees all of it.

    Args:
        name: What tells it from others beside it; the order of their opening tells equal ones.

    Raises:
        InvalidRequest: This is no workflow, such as an activity.
    """
    if not workflow.in_workflow():
        raise InvalidRequest(f"line({name!r}) is for a workflow's code, around the calls of steps")
    session: Session = workflow.instance().__ckpt_session__
    outer = session.current_line()
    start = dict(outer.tips)
    inner = Line(dict(start), outer.key_of(name), before_seed=session.replaying)
    token = _current_line.set(inner)
    try:
        yield inner
    finally:
        _current_line.reset(token)
        if inner.tips != start:
            outer.advance([tip for tip in start if tip not in inner.tips], inner.tips)


def new_id(rng: Random) -> str:
    """Return a new checkpoint id, the same on every replay.

    Its time is the run's start: that of the workflow task is another one when the task is tried
    again, and local activities may have committed their steps, and step 0, under ids of the first.
    """
    return new_checkpoint_id(rng, at_ms=_born())


def _born() -> int:
    """Return when the run began, in milliseconds since 1970."""
    return int(workflow.info().workflow_start_time.timestamp() * 1000)


def fingerprint_of(name: str, args: Sequence[Any]) -> str:
    """Return a digest of the type and arguments of an activity or a sub-workflow."""
    digest = blake2b(name.encode(), digest_size=8)
    if _PLAIN.issuperset(map(type, args)):
        # as telling as what a converter makes of it, for a tenth of the time
        digest.update(ascii(list(args)).encode())
        return digest.hexdigest()
    try:
        for payload in workflow.payload_converter().to_payloads(args):
            digest.update(payload.data)
    except Exception:  # noqa: BLE001 - the SDK reports what cannot be converted, a moment later
        return digest.hexdigest()
    return digest.hexdigest()
