"""How the bookkeeping of a run begins: new, seeded, called by another workflow, or continued.

A run that the server starts by itself, as a retry or as the next run of a cron schedule, shares
only the past with the one before it: it has a thread of its own.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from temporalio import workflow

from .headers import HEADER, Caller, CallHeader, Origin, SessionHeader, read_header
from .session import RESEEDING, Line, Session, new_id

__all__ = ["begin_session"]

_Resume = Literal["replay", "next_node"]


def begin_session(resume: _Resume) -> Session:
    """Return the bookkeeping of the current run."""
    session = _begin(resume)
    session.random_seed = RESEEDING.get(workflow.info().run_id)
    workflow.register_random_seed_callback(session.was_reset)
    return session


def _begin(resume: _Resume) -> Session:
    info = workflow.info()
    fields = read_header(info.headers.get(HEADER)) or {}
    header = SessionHeader.model_validate(fields)
    rng, local_rng = workflow.new_random("ckpt"), workflow.new_random("ckpt-local")
    if header.carried is not None:
        session = Session.carried(header, rng, local_rng)
        another = header.carried.get("run_id") not in (None, info.continued_run_id)
        if another and not session.stopped:
            _begin_anew(session, resume)
            session.base = session.step
        return session
    if header.seed is not None:
        session = Session.seeded(header.seed, rng, local_rng)
    elif header.call is not None:
        session = _called(header.call, rng, local_rng, resume)
    else:
        name = f"{info.workflow_id}.{rng.getrandbits(24):06x}"
        origin = Origin(id=new_id(rng), run_id=info.run_id, resume=resume)
        return Session(name, name, 0, Line({origin.id: 0}), rng, local_rng, origin=origin)
    if info.continued_run_id:
        _begin_anew(session, resume)
    return session


def _called(call: CallHeader, rng: Random, local_rng: Random, resume: _Resume) -> Session:
    """A sub-workflow has a thread of its own in its caller's session."""
    main = Line({call.id: call.step})
    session = Session(call.session, call.thread, call.step, main, rng, local_rng, sub=call.id)
    session.base = call.step
    session.origin = Origin(
        id=call.id,
        run_id=workflow.info().run_id,
        resume=resume,
        step=call.step,
        base=call.step,
        parents=call.parents,
        branch=call.branch,
        sub=call.id,
        caller=call.caller,
    )
    return session


def _begin_anew(session: Session, resume: _Resume) -> None:
    """Give a retry, or the next run of a schedule, a thread of its own."""
    info, was = workflow.info(), session.origin
    branch = f"{info.workflow_type}:{session.draw_suffix()}"
    first = new_id(session.rng)
    origin = Origin(
        id=first,
        run_id=info.run_id,
        resume=resume,
        step=session.step + 1,
        base=session.base,
        parents=session.main.parents(),
        branch=branch,
        sub=session.sub,
        caller=Caller(
            thread=session.thread,
            workflow_id=info.workflow_id,
            run_id=was.run_id if was else "",
            workflow_type=info.workflow_type,
            task_queue=info.task_queue,
            origin=was,
        ),
    )
    nothing_done = was is not None and was.id in session.main.tips
    if was is not None and was.sub == was.id and nothing_done:  # begin at the call again
        same = {"step": was.step, "parents": was.parents, "sub": first, "caller": was.caller}
        origin = origin.model_copy(update=same)
    session.origin, session.sub, session.step = origin, origin.sub, origin.step
    session.thread, session.main = f"{info.workflow_id}/{branch}", Line({first: origin.step})
