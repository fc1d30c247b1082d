"""Worker processes to kill, to freeze and to thaw: forked from a process that has all imported."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    SharedStateManager,
    UnsandboxedWorkflowRunner,
    Worker,
)

from ckpt_engine.temporal import CheckpointPlugin

from .courier import Courier, deliver, deliver_sync, policies_of, recite
from .doom import Doom, at_point, set_doom
from .ledger import Ledger, until

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        __name__,
        *("ckpt_engine.stores.sqlite", "sqlalchemy.dialects.sqlite.aiosqlite"),
        *("ckpt_engine.keys", "opentelemetry.trace"),  # what an engine imports when it opens
    ]
)


@dataclass(frozen=True)
class Setup:
    """What a worker process is given.

    Attributes:
        address: Of the server.
        queue: Its task queue.
        url: Where the checkpoints are.
        ledger: Path of the ledger.
        processes: Whether sync activities run in a process pool.
        limit: Largest result, in bytes.
        cached: Workflows that it keeps in memory.
        keep: What of a delivery's result is kept: ``all``, ``digest``, ``nothing``, ``redacted``.
    """

    address: str
    queue: str
    url: str
    ledger: str
    processes: bool = False
    limit: int = 1_000_000
    cached: int = 100
    keep: str = "all"
    doom: Doom = field(default_factory=Doom)


class _Outside(Interceptor):
    """Stands outside the plugin's interceptor: what it sees returned has been committed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        ledger = self.ledger

        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                if len(input.args) < 2:
                    return await super().execute_activity(input)
                node = input.args[1]
                ledger.note("attempt", node=node)
                at_point("before-attempt", node)
                try:
                    result = await super().execute_activity(input)
                except BaseException as err:
                    ledger.note("raised", node=node, error=repr(err))
                    raise
                at_point("after-commit", node)
                ledger.note("answered", node=node)
                return result

        return Inbound(next)


def run_worker(setup: Setup) -> None:
    os.environ["LEDGER"] = setup.ledger
    set_doom(setup.doom)
    asyncio.run(_work(setup))


async def _work(setup: Setup) -> None:
    ledger = Ledger(Path(setup.ledger))
    client = await Client.connect(
        setup.address,
        data_converter=pydantic_data_converter,
        plugins=[
            CheckpointPlugin(
                setup.url, policies=policies_of(setup.keep), max_result_bytes=setup.limit
            )
        ],
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with ExitStack() as stack:
        executor: Any = stack.enter_context(ThreadPoolExecutor(8))
        options: dict[str, Any] = {}
        if setup.processes:
            executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=CONTEXT))
            manager = stack.enter_context(CONTEXT.Manager())
            options["shared_state_manager"] = SharedStateManager.create_from_multiprocessing(
                manager
            )
        async with Worker(
            client,
            task_queue=setup.queue,
            workflows=[Courier],
            activities=[deliver, deliver_sync, recite],
            activity_executor=executor,
            interceptors=[_Outside(ledger)],
            max_cached_workflows=setup.cached,
            build_id="mortal",  # the default one is a digest of all code: 0.3 s of work
            workflow_runner=UnsandboxedWorkflowRunner(),  # it starts in a fifth of the time
            max_concurrent_activity_task_polls=2,  # so that a frozen worker holds few tasks
            max_concurrent_workflow_task_polls=2,
            sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
            **options,
        ):
            ledger.note("ready")
            await stop.wait()


@dataclass
class WorkerProcess:
    """A worker in a process of its own."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    async def ended(self) -> int:
        """Wait for its end; 0 if it ended by itself."""
        await until(lambda: not self.process.is_alive())
        assert self.process.exitcode is not None
        return self.process.exitcode

    async def frozen(self) -> None:
        await until(lambda: Path(f"/proc/{self.pid}/stat").read_text().split()[2] == "T")

    def send(self, what: signal.Signals) -> None:
        os.kill(self.pid, what)


@asynccontextmanager
async def worker_process(setup: Setup) -> AsyncIterator[WorkerProcess]:
    """A worker that is asked to stop at the end, if it still lives."""
    process = CONTEXT.Process(target=run_worker, args=(setup,))
    await asyncio.to_thread(process.start)
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        if process.is_alive():
            worker.send(signal.SIGCONT)
            process.terminate()
        await worker.ended()
        process.close()
