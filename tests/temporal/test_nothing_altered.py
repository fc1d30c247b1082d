"""Rewinding and branching leave every original checkpoint as it was, byte for byte."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from ckpt_engine.temporal import BranchRequest, Overrides, RewindRequest, Target

from .app import gate
from .conftest import App

CHANGES = Overrides(
    messages=[{"role": "user", "content": "otherwise"}], state={"last": 99}, next_node="3"
)
REWIND = RewindRequest(to=Target(step=2), overrides=CHANGES)


async def as_bytes(app: App, workflow_id: str) -> dict[str | bytes, bytes]:
    """The content of every checkpoint of a session, and the rows as they stand in the file."""
    tree = await app.engine.get_checkpoint_tree(await app.thread(workflow_id))
    found: dict[str | bytes, bytes] = {
        node.info.id: repr(await app.engine.get(node.info.id)).encode() for node in tree.nodes
    }
    path = app.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        file.row_factory = sqlite3.Row
        for row in map(dict, file.execute("SELECT * FROM checkpoint")):
            del row["result"], row["fmt"]  # may be packed anew; what it says is in the content
            found[row["id"]] = repr(row).encode()
    return found


async def rewound_and_branched(app: App, workflow_id: str) -> None:
    """Do both from the middle of a session and wait until both have ended."""
    request = BranchRequest(at=Target(step=2), name="aside", overrides=CHANGES)
    child = await app.sessions.branch(workflow_id, request)
    again = await app.sessions.rewind(workflow_id, REWIND)
    for name in (child.workflow_id, again.workflow_id, workflow_id):
        handle: WorkflowHandle[Any, list[str]] = app.client.get_workflow_handle(name)
        assert await handle.result() == ["at 0", "at 1", "otherwise"]


@pytest.mark.parametrize("when", ["running", "finished", "failed"])
async def test_every_original_checkpoint_is_the_same_byte_for_byte(app: App, when: str) -> None:
    handle = await app.start(3, fail_at=2 if when == "failed" else -1)
    if when == "running":
        reached, _ = gate(handle.id, 2)
        await reached.wait()
    elif when == "finished":
        await handle.result()
    else:
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    before = await as_bytes(app, handle.id)
    assert len(before) == 2 * (4 if when == "finished" else 3)
    await rewound_and_branched(app, handle.id)
    await app.engine.optimize()
    after = await as_bytes(app, handle.id)
    assert len(after) >= len(before) + 4
    assert {key: after[key] for key in before} == before
    assert (await app.engine.verify()).ok
