"""A large experiment: it ends, memory stays flat, and the limit on what runs at once is kept."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .common import Bench, Figure

LIMIT = 8


async def run(bench: Bench) -> list[Figure]:
    """Measure in a process of its own, which holds the worker and nothing else."""
    variants, steps = bench.size(200, 24), bench.size(20, 6)
    bench.advance(f"experiment: {variants} variants of {steps} steps")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(variants), str(steps)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError("the process that runs the experiment failed")
    found = json.loads(out.splitlines()[-1])  # above it stands what the server has to say
    note = f"{variants} variants, {found['steps']} steps, {found['seconds']:.0f} s"
    return [
        Figure("experiment: trials scored / asked for", 1.0, found["done"], at_least=True),
        Figure("experiment: most trials at once / limit", 1.0, found["most"] / LIMIT, note=note),
        Figure(
            "experiment: peak memory at the end / after a quarter",
            1.25,
            found["end_mb"] / found["quarter_mb"],
            note=f"{found['quarter_mb']:.0f} MB, then {found['end_mb']:.0f} MB",
        ),
        Figure("experiment: steps a second", None, found["steps"] / found["seconds"], unit="/s"),
    ]


class Meter:
    """Watches from inside the tools of the agents: which trials are at work, at most."""

    def __init__(self, variants: int, steps: int) -> None:
        self.calls = steps // 2
        self.variants = variants
        self.seen: dict[str, int] = {}
        self.most = 0
        self.quarter_mb = 0.0
        self.last: dict[str, float] = {}

    async def note(self, number: int) -> str:
        """Remember a number."""
        from ckpt_engine.temporal import current_step

        thread = (await current_step()).thread_id
        self.seen[thread] = self.seen.get(thread, 0) + 1
        working = sum(1 for count in self.seen.values() if count < self.calls)
        self.most = max(self.most, working + (self.seen[thread] == self.calls))
        if len(self.seen) == self.variants // 4 and not self.quarter_mb:
            self.quarter_mb = peak_mb()
        return f"noted {number}"


def peak_mb() -> float:
    """Return the most memory that this process has held, in megabytes.

    ``getrusage`` would give what its parent had held, if that was more.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def agent(meter: Meter) -> Any:
    """Return an agent that calls its tool in every turn but the last, in the first one twice."""
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    from ckpt_engine.contrib.agent import AgentSpec

    async def turn(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if done < meter.calls - 1:
            calls = 1 if done else 2  # so that the steps are an even number
            return ModelResponse(parts=[ToolCallPart("note", {"number": done})] * calls)
        return ModelResponse(parts=[TextPart("done")])

    return AgentSpec(model=FunctionModel(turn, model_name="counting"), tools=[meter.note])


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """Have a development server; yields its address."""
    from temporalio.testing import WorkflowEnvironment

    from ckpt_engine.cli.reporter import Silent
    from ckpt_engine.cli.server.search import find_executable
    from ckpt_engine.cli.settings import Settings

    settings = Settings()
    found = await find_executable(Silent(), cache=settings.cache, named=settings.temporal_cli)
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(found), dev_server_log_level="error"
    )
    try:
        yield env.client.service_client.config.target_host
    finally:
        await env.shutdown()


async def measure(variants: int, steps: int, folder: Path) -> dict[str, Any]:
    """Run one experiment from the very start of a session and return what was seen."""
    from temporalio.envconfig import ClientConnectConfig

    from ckpt_agent.worker import connect, make_worker
    from ckpt_agent.workflows.agent import AgentWorkflow
    from ckpt_agent.workflows.experiment import ExperimentWorkflow
    from ckpt_agent.workflows.experiment_messages import ExperimentInput
    from ckpt_agent.workflows.messages import AgentInput
    from ckpt_engine.experiments import ExperimentSpec

    meter = Meter(variants, steps)
    async with server() as address:
        client = await connect(
            ClientConnectConfig(target_host=address), database_url=f"sqlite:///{folder}/ckpt.db"
        )
        async with make_worker(client, agent(meter), task_queue="bench"):
            await client.execute_workflow(
                AgentWorkflow.run, AgentInput(question="x"), id="seed", task_queue="bench"
            )
            meter.seen.clear()  # the seed's own run is no trial
            meter.most = 0
            spec = ExperimentSpec.model_validate(
                {
                    "name": "large",
                    "from": {"session": "seed", "step": 1},
                    "variants": [
                        {"name": f"v{number}", "state": {"number": number}}
                        for number in range(variants)
                    ],
                    "scorer": {"kind": "exact", "expected": "done"},
                    "concurrency": LIMIT,
                    "budget": {"per_trial": {"steps": steps}},
                }
            )
            began = time.perf_counter()
            report = await client.execute_workflow(
                ExperimentWorkflow.run,
                ExperimentInput(spec=spec),
                id="experiment-large",
                task_queue="bench",
            )
            seconds = time.perf_counter() - began
    return {
        "done": sum(t.score == 1 for t in report.trials) / variants,
        "most": max(meter.most, report.most_at_once),
        "steps": report.spent.steps,
        "seconds": seconds,
        "quarter_mb": meter.quarter_mb,
        "end_mb": peak_mb(),
    }


if __name__ == "__main__":
    with TemporaryDirectory(prefix="ckpt-experiment-") as home:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), Path(home)))))
