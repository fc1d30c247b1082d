"""A worker in a process of its own that kills itself, once, at the point it is told.

Run as ``python -m tests.acceptance.doomed_worker ADDRESS QUEUE URL POINT NODE MARKER``. The
marker file is made just before the kill, so that the next worker lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from ckpt_engine.temporal import CheckpointPlugin, current_step
from tests.temporal.app import Walker, fail, recite
from tests.temporal.conftest import POLICIES

POINTS = ["before-body", "after-body", "after-commit"]
_, ADDRESS, QUEUE, URL, POINT, NODE, MARKER = (sys.argv + [""] * 7)[:7]


def die_at(point: str, node: int) -> None:
    if point == POINT and node == int(NODE) and not Path(MARKER).exists():
        Path(MARKER).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@activity.defn
async def walk(root: str, node: int) -> str:
    die_at("before-body", node)
    with Path(f"{MARKER}.bodies").open("a") as bodies:
        bodies.write(f"{node}\n")
    step = await current_step()
    step.append({"role": "walker", "content": f"at {node}"})
    step.state["last"] = node
    step.next_node = str(node + 1)
    die_at("after-body", node)
    return f"done {node}"


class _AfterCommit(Interceptor):
    """Stands outside the plugin's interceptor: what it sees returned has been committed."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                result = await super().execute_activity(input)
                if activity.info().activity_type == "walk":
                    die_at("after-commit", input.args[1])
                return result

        return Inbound(next)


async def main() -> None:
    client = await Client.connect(
        ADDRESS,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(URL, policies=POLICIES)],
    )
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Walker],
        activities=[walk, recite, fail],
        interceptors=[_AfterCommit()],
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with worker:
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
