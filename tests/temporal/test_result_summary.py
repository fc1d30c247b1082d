"""A step that only returned something is summed up by what it returned, not by how it is stored."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Payload

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.model import SnapshotTrigger, StepCommit, new_checkpoint_id
from ckpt_engine.temporal.payloads import to_stored


@pytest.mark.parametrize(
    ("encoding", "data", "keep", "summary"),
    [
        (b"json/plain", b'{"paid": 12}', "all", 'charge: {"paid": 12}'),
        (b"binary/encrypted", b"\x00\xff", "all", "charge"),
        (b"json/plain", b"12", "digest", "charge"),
        (b"binary/null", b"", "all", "charge"),
    ],
)
async def test_the_summary_of_a_result(
    encoding: bytes, data: bytes, keep: str, summary: str
) -> None:
    stored = to_stored(Payload(metadata={"encoding": encoding}, data=data), keep)
    async with await create_checkpoint_engine("memory:") as engine:
        await engine.create_thread("t")
        await engine.commit_step(
            StepCommit(
                checkpoint_id=new_checkpoint_id(),
                thread_id="t",
                step=0,
                parents=(),
                tools_result=stored,
                trigger=SnapshotTrigger.TOOL_CALL,
                node="charge",
            )
        )
        assert (await engine.list_time_travel_points("t"))[0].summary == summary
