"""Record a history of every kind of run: ``python -m tests.replay.record [KIND...]``.

The files are committed. They are recorded anew only when a change of the workflow side is meant
to be incompatible with running workflows; otherwise such a change goes through
``workflow.patched``, and the old files must go on to replay (docs/temporal.md).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.workflows.agent import AgentWorkflow
from ckpt_agent.workflows.experiment import ExperimentWorkflow
from ckpt_agent.workflows.experiment_messages import GivenScore, PromoteAsk
from ckpt_agent.workflows.promote import PromoteWorkflow
from ckpt_engine.experiments import Report, Score
from ckpt_engine.temporal import BranchRequest, RewindRequest, Target
from examples import approval, batch, order_saga

from ..conftest import start_server
from ..experiments.conftest import App as Experiments
from ..experiments.conftest import running
from ..experiments.test_overrides import AGENT, HINT
from ..experiments.test_overrides import spec as colours
from ..temporal import crew
from ..temporal.app import Walker, fail, gate, recite, walk
from ..temporal.conftest import App, running_app
from ..temporal.continuing import Chapters, LongWalker, add
from ..temporal.family import Parent, Researchers, think

__all__ = ["EVERY_ACTIVITY", "EVERY_WORKFLOW", "HISTORIES", "record"]

HISTORIES = Path(__file__).parent / "histories"
EVERY_WORKFLOW = [
    Walker,
    LongWalker,
    Chapters,
    Parent,
    Researchers,
    order_saga.OrderWorkflow,
    batch.BatchWorkflow,
    approval.ApprovalWorkflow,
    AgentWorkflow,
    ExperimentWorkflow,
    PromoteWorkflow,
    *crew.WORKFLOWS,
]
EVERY_ACTIVITY: list[Callable[..., Any]] = [
    walk,
    recite,
    fail,
    add,
    think,
    *order_saga.ACTIVITIES,
    *batch.ACTIVITIES,
    *approval.ACTIVITIES,
    *crew.ACTIVITIES,
]


class Recorder:
    """Runs things and writes down their histories.

    Args:
        app: A running application.
        env: Its server.
        folder: Where its checkpoints are.
    """

    def __init__(self, app: App, env: WorkflowEnvironment, folder: Path) -> None:
        self.app, self.env, self.folder = app, env, folder
        self.names: list[str] = []

    async def keep(self, name: str, workflow_id: str, run_id: str | None = None) -> None:
        """Write a run's history to a file of this name."""
        handle = self.app.client.get_workflow_handle(workflow_id, run_id=run_id)
        history = _impersonal(json.loads((await handle.fetch_history()).to_json()))
        text = json.dumps({"workflow_id": workflow_id, **history}, indent=1, sort_keys=True)
        (HISTORIES / f"{name}.json").write_text(text + "\n")
        self.names.append(name)

    async def start(self, workflow: Any, *args: Any) -> WorkflowHandle[Any, Any]:
        """Start a workflow under an id of its own."""
        workflow_id = f"recorded-{len(self.names)}-{asyncio.get_running_loop().time():.0f}"
        return await self.app.client.start_workflow(
            workflow, args=list(args), id=workflow_id, task_queue=self.app.task_queue
        )


async def plain(recorder: Recorder) -> None:
    for name, workflow, args in (
        ("loop", Walker.run, ["plain", 3, -1]),
        ("order", order_saga.OrderWorkflow.run, [order_saga.Order("o1", 40)]),
        ("order-compensated", order_saga.OrderWorkflow.run, [order_saga.Order("o2", 9, "")]),
        ("batch", batch.BatchWorkflow.run, [4]),
        ("lines", Researchers.run, [["ann", "bob"], 2]),
        ("sub-workflow", Parent.run, ["recorded-sub", 2]),
    ):
        handle = await recorder.start(workflow, *args)
        await handle.result()
        await recorder.keep(name, handle.id)
    handle = await recorder.start(approval.ApprovalWorkflow.run, "holiday", 0.05)
    await handle.signal(approval.ApprovalWorkflow.approve, "Ann")
    await handle.result()
    await recorder.keep("timer-and-approval", handle.id)


async def rewound(recorder: Recorder) -> None:
    """A rewind by signal, a second by update, a forwarded signal and update, and a branch."""
    app = recorder.app
    handle = await app.start(4)
    reached, _ = gate(handle.id, 2)
    await reached.wait()
    in_child, _ = gate(handle.id, 3)
    body = RewindRequest(to=Target(step=1)).model_dump(mode="json")
    await handle.signal("rewind", body)
    await handle.signal("rewind", {"nonsense": True})
    await in_child.wait()
    in_second, opened = gate(handle.id, 3)
    second = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=3)))
    await in_second.wait()
    await handle.signal("note", "hello")
    await handle.execute_update("note_and_count", "again")
    request = BranchRequest(at=Target(step=1), name="beside")
    branch = await app.sessions.branch(handle.id, request)
    opened.set()
    await handle.result()
    await app.client.get_workflow_handle(branch.workflow_id).result()
    children = (await app.sessions.status(handle.id)).children
    await recorder.keep("rewound-address", handle.id)
    await recorder.keep("superseded-child", children[0].workflow_id)
    await recorder.keep("rewound-child", second.workflow_id)
    await recorder.keep("branch", branch.workflow_id)


async def replaying(recorder: Recorder) -> None:
    """Straight-line code: rewound while it runs, a child that replays, a closed one revived."""
    app = recorder.app
    handle = await recorder.start(approval.ApprovalWorkflow.run, "desk", 0.05)
    async with asyncio.timeout(30):
        while (await app.sessions.status(handle.id)).step < 2:
            await asyncio.sleep(0.05)
    child = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await handle.signal(approval.ApprovalWorkflow.approve, "Bob")
    await handle.result()
    await recorder.keep("replaying-address", handle.id)
    await recorder.keep("replaying-child", child.workflow_id)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=3)))
    await app.client.get_workflow_handle(handle.id).result()
    await recorder.keep("revived", handle.id)


async def side_by_side(recorder: Recorder) -> None:
    """Branches that replay steps side by side: with a failed one, and calls on lines."""
    app = recorder.app
    for name, workflow, args in (
        ("crew", crew.Crew.run, [["a", "b"]]),
        ("mishap", crew.Mishap.run, []),
        ("calls-on-lines", crew.Lines.run, [["a", "b"]]),
    ):
        handle = await recorder.start(workflow, name, *args)
        await handle.result()
        request = BranchRequest(at=Target(back=1), name="beside")
        child = await app.sessions.branch(handle.id, request)
        await app.client.get_workflow_handle(child.workflow_id).result()
        await recorder.keep(f"replaying-{name}", child.workflow_id)


async def ended(recorder: Recorder) -> None:
    """Cancelled while a child stands in, and failed."""
    app = recorder.app
    handle = await app.start(3)
    reached, _ = gate(handle.id, 1)
    await reached.wait()
    in_child, _ = gate(handle.id, 2)
    await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await in_child.wait()
    await handle.cancel()
    await _until_failed(handle)
    await recorder.keep("cancelled-address", handle.id)
    failing = await app.start(3, fail_at=1)
    await _until_failed(failing)
    await recorder.keep("failed", failing.id)


async def continued(recorder: Recorder) -> None:
    """A loop that continues as new, and an address that does so beside its child."""
    app = recorder.app
    handle = await recorder.start(LongWalker.run, "continued", 12, -1)
    await handle.result()
    await recorder.keep("continued-loop-first-run", handle.id, handle.first_execution_run_id)
    await recorder.keep("continued-loop-last-run", handle.id)
    handle = await recorder.start(LongWalker.run, "beside", 4, -1)
    first_run = handle.first_execution_run_id
    reached, _ = gate("beside", 2)
    await reached.wait()
    in_child, opened = gate("beside", 3)
    child = await app.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await in_child.wait()
    address = app.client.get_workflow_handle(handle.id)
    while (await address.describe()).run_id == first_run:
        await address.signal("rewind", {"to": {"step": 99}})
    opened.set()
    await address.result()
    await recorder.keep("continued-address-first-run", handle.id, first_run)
    await recorder.keep("continued-address-last-run", handle.id)
    await recorder.keep("child-that-reports", child.workflow_id)


async def experiments(recorder: Recorder) -> None:
    """One that continues as new, with its last trial and a promotion; one that is cancelled."""
    async with running(recorder.env, AGENT, recorder.folder, "recording-agents") as app:
        base = await app.session("Colour of the sky?")
        hinted: dict[str, Any] = {"name": "hinted", "messages": [HINT]}
        variants = [{"name": "plain"}, hinted]
        spec = colours(base.checkpoint, variants, budget={"per_trial": {"steps": 9}}, concurrency=1)
        spec["questions"] = spec["questions"][:2]
        handle = await app.start(spec)
        report = await handle.result()
        await recorder.keep("experiment-first-run", handle.id, handle.first_execution_run_id)
        await recorder.keep("experiment-last-run", handle.id)
        await recorder.keep("trial", report.trials[-1].workflow_id)
        await recorder.keep("promotion", await _promoted(app, report))
        spec["scorer"] = {"kind": "person"}
        handle = await app.start(spec)
        waiting: list[str] = []
        async with asyncio.timeout(30):
            while not waiting:
                await asyncio.sleep(0.05)
                trials = (await handle.query(ExperimentWorkflow.report)).trials
                waiting = [trial.name for trial in trials if trial.state == "scoring"]
        given = GivenScore(trial=waiting[0], score=Score(value=1.0))
        await handle.execute_update(ExperimentWorkflow.score, given)
        await handle.cancel()
        await handle.result()
        await recorder.keep("experiment-cancelled", handle.id)


async def _promoted(app: Experiments, report: Report) -> str:
    best, seed = report.trials[-1], report.seeds[0]
    ask = PromoteAsk(
        experiment_id=report.experiment_id,
        trial=best.name,
        session=seed.workflow_id,
        thread=best.workflow_id,
        checkpoint=best.head,
        how="rewind",
        by="ann",
        why="it is right",
    )
    name = f"{report.experiment_id}/promote"
    await app.client.execute_workflow(PromoteWorkflow.run, ask, id=name, task_queue=app.queue)
    return name


def _impersonal(value: Any) -> Any:
    """Leave out what says only where it was recorded."""
    if isinstance(value, list):
        return [_impersonal(one) for one in value]
    if isinstance(value, str) and f"@{socket.gethostname()}" in value:
        return "recorder"
    if not isinstance(value, dict):
        return value
    return {key: _impersonal(one) for key, one in value.items() if key != "stackTrace"}


async def _until_failed(handle: WorkflowHandle[Any, Any]) -> None:
    try:
        await handle.result()
    except WorkflowFailureError:
        return
    raise AssertionError(f"{handle.id} was to fail")


KINDS: dict[str, Callable[[Recorder], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (plain, rewound, replaying, side_by_side, ended, continued, experiments)
}


async def record(env: WorkflowEnvironment, directory: Path, kinds: Sequence[str]) -> list[str]:
    """Run these kinds of things, write their histories, and return the names of the files."""
    url = f"sqlite:///{directory}/ckpt.db"
    async with running_app(
        env, url, "recording", workflows=EVERY_WORKFLOW, activities=EVERY_ACTIVITY
    ) as app:
        recorder = Recorder(app, env, directory)
        for kind in kinds:
            await KINDS[kind](recorder)
    return recorder.names


async def _main(kinds: Sequence[str]) -> None:
    HISTORIES.mkdir(exist_ok=True)
    if not kinds:
        for old in HISTORIES.glob("*.json"):
            old.unlink()
    env = await start_server("limit.historyCount.suggestContinueAsNew=40")
    try:
        with tempfile.TemporaryDirectory() as directory:
            for name in await record(env, Path(directory), kinds or list(KINDS)):
                print(name)  # noqa: T201
    finally:
        await env.shutdown()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
