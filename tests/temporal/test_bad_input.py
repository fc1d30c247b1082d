"""Whatever is sent: a clear refusal to whoever asked, the agent goes on, nothing is stored."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from ckpt_engine import CheckpointError
from ckpt_engine.errors import CheckpointNotFound, InvalidRequest, NameTaken, NotInSession
from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from .app import gate
from .conftest import App

STRANGE: list[Any] = [
    None,
    7,
    "rewind please",
    [],
    {},
    {"to": {}},
    {"to": {"step": -1}},
    {"to": {"step": "four"}},
    {"to": {"step": 1, "tag": "x"}},
    {"to": {"step": 1}, "overrides": {"messages": "not a list"}},
    {"to": {"step": 1}, "overrides": {"messages": ["not an object"]}},
    {"to": {"step": 1}, "overrides": {"model": 7}},
    {"to": {"step": 1}, "overrides": {"sate": {}}},
    {"to": {"step": 1}, "unknown": True},
    {"to": {"checkpoint": "zzzz"}},
    {"to": {"checkpoint": "0" * 32}},
    {"to": {"step": 99}},
    {"to": {"back": 99}},
    {"to": {"tag": "nowhere"}},
    {"to": {"step": 1, "thread": "nobody"}},
    {"to": {"step": 1}, "in_flight": "explode"},
    {"to": {"step": 1}, "wait_seconds": -3},
    {"to": {"step": 1}, "overrides": {"state": {"k": "\ud800"}}},
    b"\xff\xfe raw bytes",
]


@pytest.mark.parametrize("by", ["signal", "update"])
async def test_a_request_that_makes_no_sense_is_refused_and_the_agent_goes_on(
    app: App, by: str
) -> None:
    handle = await app.start(2)
    reached, opened = gate(handle.id, 1)
    await reached.wait()
    before = await app.engine.get_checkpoint_tree(await app.thread(handle.id))
    sent = [body for body in STRANGE if not _unsendable(body)]
    for body in sent:
        if by == "signal":
            await handle.signal("rewind", body)
        else:
            with pytest.raises(WorkflowUpdateFailedError) as caught:
                await handle.execute_update("rewind", body)
            cause = caught.value.cause
            assert isinstance(cause, ApplicationError)
            assert cause.message
            assert cause.type != "CheckpointError"
    status = await app.sessions.status(handle.id)
    if by == "signal":
        # The status is asked in a later task than the last signal's, and answers after them.
        while status.pending or len(status.refusals) < len(sent):
            status = await app.sessions.status(handle.id)
    assert len(status.refusals) == len(sent)
    assert all(refusal.message for refusal in status.refusals)
    after = await app.engine.get_checkpoint_tree(await app.thread(handle.id))
    assert after == before
    opened.set()
    assert await handle.result() == ["at 0", "at 1"]


def _unsendable(body: Any) -> bool:
    return isinstance(body, dict) and "\\ud800" in ascii(body)


@pytest.mark.parametrize("args", [[], [1, 2, 3], [{"to": {"step": 99}}, "more"]])
async def test_a_wrong_number_of_arguments_is_refused_too(app: App, args: list[Any]) -> None:
    handle = await app.start(1)
    reached, opened = gate(handle.id, 0)
    await reached.wait()
    await handle.signal("branch", args=args)
    await handle.signal("rewind", args=args)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("rewind", args=args)
    opened.set()
    assert await handle.result() == ["at 0"]
    refused = (await app.sessions.status(handle.id)).refusals
    assert [r.request for r in refused] == ["branch", "rewind", "rewind"]


async def test_a_checkpoint_of_another_session_is_refused(app: App) -> None:
    other = await app.start(1)
    await other.result()
    foreign = (await app.engine.get_latest(await app.thread(other.id))).id
    handle = await app.start(1)
    reached, opened = gate(handle.id, 0)
    await reached.wait()
    with pytest.raises(NotInSession, match="session"):
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(checkpoint=foreign)))
    opened.set()
    await handle.result()
    with pytest.raises(NotInSession):  # a closed session refuses in the same way
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(checkpoint=foreign)))
    assert (await handle.describe()).run_id == handle.first_execution_run_id


async def test_a_branch_name_is_used_once(app: App) -> None:
    handle = await app.start(2)
    reached, opened = gate(handle.id, 1)
    await reached.wait()
    request = BranchRequest(at=Target(step=1), name="twice")
    await app.sessions.branch(handle.id, request)
    with pytest.raises(NameTaken, match="twice"):
        await app.sessions.branch(handle.id, request)
    with pytest.raises(InvalidRequest):
        await handle_branch(app, handle.id, "no spaces please")
    opened.set()
    await handle.result()
    with pytest.raises(NameTaken):
        await app.sessions.branch(handle.id, request)
    threads = await app.engine.list_threads(
        (await app.engine.get_thread(await app.thread(handle.id))).session_id
    )
    assert [thread.branch for thread in threads] == ["main", "twice"]


async def handle_branch(app: App, workflow_id: str, name: str) -> None:
    body = {"at": {"step": 1}, "name": name}
    await app.sessions.branch(workflow_id, body)  # type: ignore[arg-type]


async def test_nobody_hears_a_signal_after_the_stand_in_has_just_ended(app: App) -> None:
    """A user's signal that finds the child gone is refused; the root returns all the same."""
    handle = await app.start(2)
    reached, _ = gate(handle.id, 1)
    await reached.wait()
    in_child, opened = gate(handle.id, 1)
    child = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await in_child.wait()
    opened.set()
    await app.client.get_workflow_handle(child.workflow_id).result()
    with contextlib.suppress(RPCError):  # the root had closed as well: the sender is told
        await handle.signal("note", "too late")
    assert await handle.result() == ["at 0", "at 1"]


async def test_an_unknown_workflow_is_said_to_be_unknown(app: App) -> None:
    request = RewindRequest(to=Target(step=0))
    with pytest.raises(CheckpointError, match="nowhere-to-be-found"):
        await app.sessions.rewind("nowhere-to-be-found", request)


async def test_an_override_that_cannot_be_stored_leaves_nothing(app: App) -> None:
    handle = await app.start(1)
    await handle.result()
    before = await app.engine.get_checkpoint_tree(await app.thread(handle.id))
    bad = RewindRequest(to=Target(step=0), overrides=Overrides(state={"k": object()}))
    with pytest.raises(CheckpointError, match="k"):
        await app.sessions.rewind(handle.id, bad)
    assert await app.engine.get_checkpoint_tree(await app.thread(handle.id)) == before


async def test_a_full_id_that_nobody_has_is_not_found(app: App) -> None:
    handle = await app.start(1)
    await handle.result()
    with pytest.raises(CheckpointNotFound):
        await app.sessions.rewind(handle.id, RewindRequest(to=Target(checkpoint="a" * 32)))
