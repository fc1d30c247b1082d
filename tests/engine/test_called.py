"""Messages call sessions and branches by the names that people know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ckpt_engine import CheckpointEngine, WorkflowRun, create_checkpoint_engine
from ckpt_engine.errors import (
    CheckpointNotFound,
    MergeConflictError,
    NameTaken,
    NotInSession,
)

RUN = WorkflowRun(
    namespace="default",
    workflow_id="first",
    run_id="r",
    workflow_type="T",
    task_queue="q",
    supervisor=None,
)


@pytest.fixture
async def engine() -> AsyncIterator[CheckpointEngine]:
    """Two sessions with a branch each; workflows run the first one."""
    async with await create_checkpoint_engine("memory:") as made:
        for name in ("first.fce0e9", "chat"):
            start = await made.snapshot(name, state={"k": 0}, tags=[f"of {name}"])
            assert start is not None
            await made.branch(start, "side", thread_id=f"{name}-b1")
            await made.snapshot(name, state={"k": 1})
            await made.snapshot(f"{name}-b1", state={"k": 2})
        await made.register_run("first.fce0e9", RUN)
        await made.register_run("first.fce0e9-b1", replace(RUN, workflow_id="first/side-77"))
        yield made


async def said(engine: CheckpointEngine, session: str) -> list[str]:
    """Return what is said where requests about a session cannot be carried out."""
    texts: list[str] = []

    async def note(kind: type[Exception], asked: object) -> None:
        with pytest.raises(kind) as refused:
            await asked  # type: ignore[misc]
        texts.append(str(refused.value))

    (start, *_) = (await engine.get_checkpoint_tree(session)).nodes
    (other, *_) = (await engine.get_checkpoint_tree("chat")).nodes
    if session == "chat":
        (other, *_) = (await engine.get_checkpoint_tree("first.fce0e9")).nodes
    await note(NameTaken, engine.branch(start.info.id, "side", thread_id="new"))
    await note(CheckpointNotFound, engine.resolve("0" * 32, session_id=session))
    await note(NotInSession, engine.resolve(other.info.id, session_id=session))
    await note(CheckpointNotFound, engine.resolve_tag(session, "none"))
    await note(CheckpointNotFound, engine.time_travel_to_step(f"{session}-b1", -1))
    await note(MergeConflictError, engine.merge_branch(f"{session}-b1", session))
    await note(NotInSession, engine.rewind(other.info.id, thread_id=session))
    return [text.replace(other.info.id, "ID") for text in texts]


async def test_a_session_of_a_workflow_is_called_by_its_workflow_id(
    engine: CheckpointEngine,
) -> None:
    assert await said(engine, "first.fce0e9") == [
        "session 'first' has a branch 'side' already",
        f"there is no checkpoint {'0' * 32} in session 'first'",
        "ID does not belong to session 'first'",
        "no checkpoint of session 'first' has the tag 'none'",
        "branch 'side' of session 'first' has no checkpoint at or before step -1",
        "branch 'side' of session 'first' and branch 'main' of session 'first' both changed k; "
        'choose strategy="ours" or "theirs", or give reducers',
        "checkpoint ID belongs to another session than branch 'main' of session 'first'",
    ]


async def test_a_thread_without_a_workflow_is_called_by_its_id(engine: CheckpointEngine) -> None:
    assert await said(engine, "chat") == [
        "session 'chat' has a branch 'side' already",
        f"there is no checkpoint {'0' * 32} in session 'chat'",
        "ID does not belong to session 'chat'",
        "no checkpoint of session 'chat' has the tag 'none'",
        "thread 'chat-b1' has no checkpoint at or before step -1",
        "thread 'chat-b1' and thread 'chat' both changed k; "
        'choose strategy="ours" or "theirs", or give reducers',
        "checkpoint ID belongs to another session than thread 'chat'",
    ]


async def test_a_session_whose_workflow_id_a_newer_one_has_is_called_by_its_own(
    engine: CheckpointEngine,
) -> None:
    await engine.snapshot("first.aaaaaa")
    await engine.register_run("first.aaaaaa", replace(RUN, run_id="r2"))
    assert "session 'first.fce0e9' has" in (await said(engine, "first.fce0e9"))[0]
