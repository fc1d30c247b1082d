"""Run an example beside a ``ckpt server``: ``python -m examples [NAME]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

from ckpt_engine.temporal import Target

from . import approval, batch, data_job, order_saga
from .running import example


async def show_order_saga(database: str) -> None:
    """An order that was compensated is branched from before the failure, then rewound."""
    workflows = [order_saga.OrderWorkflow]
    async with example("order-saga", database, workflows, order_saga.ACTIVITIES) as app:
        order = order_saga.Order("o1", 40, address="")
        handle = await app.start(order_saga.OrderWorkflow.run, order)
        await app.result(handle.id)
        print("the payment and the reservation are not made again:")
        await app.branch(handle.id, Target(step=2), "ship-again")
        await app.rewind(handle.id, Target(step=1))
        app.tree(handle.id)


async def show_batch(database: str) -> None:
    """A batch is rewound into its parallel group: what was done there is not done again."""
    async with example("batch", database, [batch.BatchWorkflow], batch.ACTIVITIES) as app:
        handle = await app.start(batch.BatchWorkflow.run, 5)
        await app.result(handle.id)
        await app.rewind(handle.id, Target(step=3))
        await app.branch(handle.id, Target(back=0), "publish-again")
        app.tree(handle.id)


async def show_approval(database: str) -> None:
    """Timers before the checkpoint do not wait again, and who approved then has approved now."""
    workflows = [approval.ApprovalWorkflow]
    async with example("approval", database, workflows, approval.ACTIVITIES) as app:
        handle = await app.start(approval.ApprovalWorkflow.run, "holiday", 1.0)
        await handle.signal(approval.ApprovalWorkflow.approve, "Ann")
        await app.result(handle.id)
        await app.branch(handle.id, Target(step=3), "archive-again")
        await app.rewind(handle.id, Target(step=2))
        app.tree(handle.id)


async def show_data_job(database: str) -> None:
    """A data job goes on from its extraction in another way, and is rewound to its report."""
    from vega_datasets import local_data

    folder = tempfile.mkdtemp(prefix="data-job-")
    async with example("data-job", database, [data_job.DataJob], data_job.ACTIVITIES) as app:
        job = data_job.Job(source=local_data.cars.filepath, folder=folder)
        handle = await app.start(data_job.DataJob.run, job)
        await app.result(handle.id)
        await app.branch(handle.id, Target(step=1), "filled", state={"missing": "fill"})
        await app.rewind(handle.id, Target(step=4), state={"by": "Cylinders"})
        app.tree(handle.id)
    print(f"the files of every line are in {folder}")


async def show_pydantic_agent(database: str) -> None:
    """An agent of pydantic-ai is told more after its first turn, beside and instead."""
    from pydantic_ai.durable_exec.temporal import PydanticAIPlugin

    from ckpt_engine.contrib.pydantic_ai import POLICIES

    from . import pydantic_agent

    async with example(
        "pydantic-agent",
        database,
        [pydantic_agent.ClimateWorkflow],
        plugins=[PydanticAIPlugin()],
        policies=POLICIES,
    ) as app:
        question = "Which is warmer, Oslo or Bergen?"
        handle = await app.start(pydantic_agent.ClimateWorkflow.run, question)
        await app.result(handle.id)
        more = [{"role": "user", "content": "Consider Lima and Cairo as well."}]
        await app.branch(handle.id, Target(step=1), "four-cities", messages=more)
        last = [{"role": "user", "content": "And Seattle."}]
        await app.rewind(handle.id, Target(step=3), messages=last)
        app.tree(handle.id)


SHOWS: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
    name.removeprefix("show_"): show
    for name, show in dict(globals()).items()
    if name.startswith("show_")
}


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    parser.add_argument("name", choices=SHOWS, nargs="?", help="all of them when absent")
    default = os.environ.get("CKPT_DATABASE_URL") or "sqlite:///examples.db"
    parser.add_argument("--db", default=default, help=f"URL of the checkpoints ({default})")
    options = parser.parse_args()
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)  # a step fails on purpose
    for name in [options.name] if options.name else SHOWS:
        print(f"\n=== {name}: {SHOWS[name].__doc__}\n")
        try:
            asyncio.run(SHOWS[name](options.db))
        except RuntimeError as err:
            if "Connection refused" not in str(err):
                raise
            print(
                "no Temporal server: start one with `ckpt server`, or set TEMPORAL_ADDRESS",
                flush=True,
            )
            # a thread of the SDK may abort an interpreter that ends just now (sdk-python#300)
            os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
