"""The shipped agent's worker is killed in the middle of a run, and another one takes over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ckpt_engine import CheckpointEngine, create_checkpoint_engine
from tests.cli.command import Ckpt, environment

QUESTION = "How does the average wind in Seattle differ by kind of weather?"
SLOWLY = ("--settings", '{"delay_seconds": 0.5}', "--detach")


async def test_a_run_whose_worker_was_killed_has_the_checkpoints_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    ckpt = Ckpt(environment(tmp_path, CKPT_MODEL="scripted"))
    url = f"sqlite:///{tmp_path}/checkpoints.db"
    with ckpt.running("server"):
        async with await create_checkpoint_engine(url) as engine:
            with ckpt.running("worker") as (doomed, _):
                ckpt("run", QUESTION, "--id", "whole", *SLOWLY[:2])
                ckpt("run", QUESTION, "--id", "cut", *SLOWLY)
                while len(await points(engine, "cut")) < 6:
                    await asyncio.sleep(0.05)
                doomed.kill()
                assert doomed.wait(10) == -9
            cut = await points(engine, "cut")
            assert cut[-1]["next_node"] != "end", "it was killed in the middle"
            with ckpt.running("worker"):
                # The step in flight is taken over when nothing has been heard of it for a while.
                answers = [
                    ckpt.json("log", name, "--follow")["answer"] for name in ("cut", "whole")
                ]
            ended = await points(engine, "cut")
            assert len(set(answers)) == 1
            assert ended == await points(engine, "whole")
            assert ended[: len(cut)] == cut, "what was there before the kill is as it was"
            assert [point["step"] for point in ended] == list(range(len(ended)))
            assert (await engine.verify()).ok


async def points(engine: CheckpointEngine, workflow_id: str) -> list[dict[str, Any]]:
    """A session's checkpoints whole, without what differs between any two runs."""
    found = await engine.find_run(workflow_id)
    if found is None:
        return []
    tree = await engine.get_checkpoint_tree(found[0].id)
    steps = {node.info.id: node.info.step for node in tree.nodes}
    calls: dict[str, int] = {}
    whole = [await engine.get(node.info.id) for node in tree.nodes]
    return [
        {
            "step": c.step,
            "parents": [steps[parent] for parent in c.parents],
            "node": c.node,
            "next_node": c.next_node,
            "messages": comparable(c.messages, calls),
            "state": comparable(c.state, calls),
            "summary": c.summary,
        }
        for c in whole
    ]


def comparable(value: Any, calls: dict[str, int]) -> Any:
    """Without times, and with the drawn ids of tool calls numbered as they come."""
    if isinstance(value, list):
        return [comparable(item, calls) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: comparable(v, calls) for k, v in value.items() if k not in ("timestamp", "run_id")}
    if "tool_call_id" in kept:
        kept["tool_call_id"] = calls.setdefault(kept["tool_call_id"], len(calls))
    return kept
