"""``ckpt demo``: an agent at work on real data, rewound and branched by signals while it runs."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..model import CheckpointInfo, CheckpointTree, Thread
from .errors import CliError
from .reporter import TextReporter

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from ckpt_engine import CheckpointEngine

    from ..temporal.contract import ChildStatus
    from .agents import Outcome
    from .output import Output
    from .server.connection import Connection
    from .settings import Settings

__all__ = ["Story", "run_demo"]

_LIMIT_SECONDS = 100.0
_PACE = {"delay_seconds": 1.0}
_INSTRUCTION = "Only in 2014, please."
_BRANCHES: dict[str, tuple[dict[str, Any], str]] = {
    "one-sentence": (
        {"instructions": "Answer in one sentence, without decimals."},
        'instructions "Answer in one sentence, without decimals."',
    ),
    "three-decimals": (
        {"state": {"settings": {**_PACE, "decimals": 3}}},
        "the setting decimals = 3",
    ),
}


@dataclass
class Story:
    """What the demo did and what came of it.

    Attributes:
        handle: The agent's workflow, the session's address.
        asked: For each signal sent, by branch name (``rewind`` for the rewind), its checkpoint.
        children: What the signals started, by branch name.
        outcomes: How the session and each branch ended, by branch name.
        seen: Every checkpoint that was shown live.
    """

    handle: WorkflowHandle[Any, Any]
    asked: dict[str, str] = field(default_factory=dict)
    children: dict[str, ChildStatus] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    seen: list[CheckpointInfo] = field(default_factory=list)
    instruction: str = _INSTRUCTION


async def run_demo(
    out: Output, settings: Settings, address: str | None, namespace: str | None
) -> int:
    """Run the demo and return its exit code: 0 only if everything in it really happened."""
    from .agents import has_worker
    from .commands.serve import a_server, a_worker, check_agent, until_one_ends
    from .opening import connect, open_engine

    check_agent(settings)
    report = TextReporter(None if out.as_json else out.console.file)
    async with a_server(settings, report, address, namespace) as (connection, served):
        client = await connect(connection)
        if await has_worker(client, settings.task_queue):  # it may have another agent
            settings.task_queue += "-demo"
        async with (
            a_worker(settings, connection) as worker,
            open_engine(settings, create=True) as engine,
        ):
            report.line(f"worker started on the task queue {settings.task_queue}")
            director = _Director(out, client, engine, settings)
            running = asyncio.ensure_future(until_one_ends(worker, served))
            story = await _guarded(director.play(), running, _LIMIT_SECONDS)
            return await _finish(out, settings, connection, served is not None, engine, story)


async def _guarded(play: Any, running: asyncio.Future[None], seconds: float) -> Story:
    """Play until the end, the worker's or server's failure, or the time limit.

    Raises:
        CliError: Something else than the end came first.
    """
    playing = asyncio.ensure_future(play)
    try:
        await asyncio.wait({playing, running}, timeout=seconds, return_when="FIRST_COMPLETED")
        if running.done():
            await running
            raise CliError("the demo's worker ended early", "")
        if not playing.done():
            raise CliError(
                f"the demo did not end within {seconds:.0f} s",
                "see what happened: ckpt log --graph",
            )
        return playing.result()  # type: ignore[no-any-return]
    finally:
        playing.cancel()
        running.cancel()
        await asyncio.gather(playing, running, return_exceptions=True)


class _Director:
    """Starts the agent, sends the signals as its steps are seen, waits for everybody."""

    def __init__(
        self, out: Output, client: Client, engine: CheckpointEngine, settings: Settings
    ) -> None:
        self._out = out
        self._client = client
        self._engine = engine
        self._settings = settings
        self._cues: asyncio.Queue[CheckpointInfo] = asyncio.Queue()

    async def play(self) -> Story:
        from ckpt_agent.activities.analyst import DEFAULT_QUESTION, SCRIPTED
        from ckpt_agent.workflows.messages import AgentInput

        from .agents import start_agent
        from .follow import Follower

        self._out.say()
        self._out.say(f"question: {DEFAULT_QUESTION}", "bold")
        self._out.say("no model is called: a script stands in for one and says so", "dim")
        start = AgentInput(question=DEFAULT_QUESTION, model=SCRIPTED, settings=_PACE)
        name = f"demo-{secrets.token_hex(2)}"
        handle = await start_agent(self._client, start, name, self._settings.task_queue)
        self._out.say(f"workflow {handle.id} started; its steps:")
        story = Story(handle)
        follower = Follower(self._engine, handle.id, self._on_step)
        await follower.until(self._act(story))
        story.seen = follower.seen
        return story

    def _on_step(self, info: CheckpointInfo, thread: Thread) -> None:
        from .commands.start import show_step

        show_step(self._out, info, thread)
        if thread.branch == "main":
            self._cues.put_nowait(info)

    async def _act(self, story: Story) -> None:
        from .agents import outcome_of

        ending = asyncio.ensure_future(outcome_of(self._engine, story.handle))
        try:
            await self._while_running(self._direct(story), ending)
            branches = {
                name: self._client.get_workflow_handle_for(_agent(), child.workflow_id)
                for name, child in story.children.items()
                if child.kind == "branch"
            }
            ended = await asyncio.gather(
                ending, *(outcome_of(self._engine, handle) for handle in branches.values())
            )
        finally:
            ending.cancel()
        story.outcomes = dict(zip(["main", *branches], ended, strict=True))

    async def _while_running(self, acting: Any, ending: asyncio.Future[Outcome]) -> None:
        """Act while the agent runs.

        Raises:
            CliError: It ended first, so that not everything could be shown.
        """
        task = asyncio.ensure_future(acting)
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            outcome = ending.result()
            raise CliError(
                "the agent ended before the demo had rewound and branched it: "
                + (f"it failed: {outcome.error}" if outcome.error else "it was too quick"),
                "see: ckpt log --graph",
            )
        await task

    async def _direct(self, story: Story) -> None:
        """Send each signal when its cue is seen; wait until all children have started."""
        first = await self._cue("call_tool")
        await self._signal(story, "branch", "one-sentence", first)
        looked = await self._cue("call_tool")
        await self._signal(story, "branch", "three-decimals", looked)
        await self._cue("call_model")
        await self._signal(story, "rewind", "rewind", first)
        story.children = await self._started(story)

    async def _cue(self, node: str) -> CheckpointInfo:
        while True:
            info = await self._cues.get()
            if info.node == node:
                return info

    async def _signal(self, story: Story, kind: str, name: str, at: CheckpointInfo) -> None:
        from temporalio.service import RPCError

        from ..temporal.contract import BranchRequest, Overrides, RewindRequest, Target

        target, request_id = Target(checkpoint=at.id), f"demo-{name}"
        request: BranchRequest | RewindRequest
        if kind == "rewind":
            said = Overrides(messages=[{"role": "user", "content": story.instruction}])
            request = RewindRequest(to=target, overrides=said, request_id=request_id)
            words = f'rewind to step {at.step} ({at.id[:7]}) with "{story.instruction}"'
        else:
            changes, said_so = _BRANCHES[name]
            request = BranchRequest(
                at=target, name=name, overrides=Overrides(**changes), request_id=request_id
            )
            words = f"branch {name} from step {at.step} ({at.id[:7]}) with {said_so}"
        try:
            await story.handle.signal(kind, request.model_dump(mode="json"))
        except RPCError as err:
            raise CliError(
                f"the {kind} signal was not taken by {story.handle.id}: {err.message}",
                f"see: ckpt log {story.handle.id} --graph",
            ) from None
        story.asked[name] = at.id
        self._out.say(f"  → signal: {words}", "bold")

    async def _started(self, story: Story) -> dict[str, ChildStatus]:
        """Wait until all three children have started.

        Raises:
            CliError: A signal was refused.
        """
        from ..temporal.contract import SessionStatus

        while True:
            answer = await story.handle.query("checkpoint_status")
            status = SessionStatus.model_validate(answer)
            if status.refusals:
                refused = "; ".join(f"{r.request}: {r.message}" for r in status.refusals)
                raise CliError(f"{story.handle.id} refused {refused}", "")
            if len(status.children) == len(story.asked):
                return {c.branch: c for c in status.children}
            await asyncio.sleep(0.2)  # queries are the only way to ask a workflow


def _agent() -> Any:
    from ckpt_agent.workflows.agent import AgentWorkflow

    return AgentWorkflow.run


async def _finish(
    out: Output,
    settings: Settings,
    connection: Connection,
    own_server: bool,
    engine: CheckpointEngine,
    story: Story,
) -> int:
    from .demo_checks import check
    from .exports import tree_json
    from .render import draw_tree, legend
    from .sessions import statuses_of_threads

    tree = await engine.get_checkpoint_tree((await _session(engine, story)).session_id)
    wrong = await check(engine, story, tree)
    out.say()
    address, namespace = connection.address, connection.namespace
    stand = await statuses_of_threads(tree, settings.home, address, namespace)
    out.lines(draw_tree(tree, width=out.width, statuses=stand))
    out.say(legend(tree), "dim")
    out.say()
    _print_answers(out, story, tree)
    out.say()
    _print_places(out, settings, connection, own_server, story)
    for problem in wrong:
        out.say(f"NOT AS IT SHOULD BE: {problem}", "bold red")
    out.data(
        {
            "ok": not wrong,
            "problems": wrong,
            "workflow_id": story.handle.id,
            "answers": {name: outcome.answer for name, outcome in story.outcomes.items()},
            "database": settings.shown_url,
            "ui": connection.ui,
            "tree": tree_json(tree),
        }
    )
    return 1 if wrong else 0


async def _session(engine: CheckpointEngine, story: Story) -> Thread:
    found = await engine.find_run(story.handle.id)
    if found is None:
        raise CliError(f"the checkpoints know no workflow {story.handle.id}", "")
    return found[0]


def _print_answers(out: Output, story: Story, tree: CheckpointTree) -> None:
    from rich import box
    from rich.table import Table

    active = next(t.branch for t in tree.threads if t.id == tree.active_thread)
    table = Table(box=box.ROUNDED, title="the answers", title_justify="left", expand=True)
    cells = []
    for name, outcome in story.outcomes.items():
        if name == "main":
            table.add_column(f"{active}, with “{story.instruction}”", ratio=1)
        else:
            table.add_column(f"{name} (branch)", ratio=1)
        cells.append(outcome.answer or f"failed: {outcome.error}")
    table.add_row(*cells)
    out.console.print(table, soft_wrap=False)


def _print_places(
    out: Output, settings: Settings, connection: Connection, own_server: bool, story: Story
) -> None:
    from .opening import database_path
    from .output import callable_as
    from .settings import Settings as Fresh

    path = database_path(settings.engine_url)
    size = f", {path.stat().st_size / 1e3:.0f} KB" if path and path.exists() else ""
    out.say(f"checkpoints  {settings.shown_url}{size}")
    if connection.ui:
        stopped = "\n             (it stopped with the demo; `ckpt up` starts it again)"
        stopped = stopped if own_server else ""
        page = f"/namespaces/{connection.namespace}/workflows/{story.handle.id}"
        out.say(f"web page     {connection.ui}{page}{stopped}")
    more, queue = settings.as_options(), ""
    if settings.task_queue != Fresh().task_queue:
        queue = f" --task-queue {settings.task_queue}"
    at = story.asked["rewind"][:7]
    out.say()
    out.say("try next", "bold")
    for command, why in (
        (f"ckpt up{queue}{more}", "the server and a worker again; leave it running"),
        (f'ckpt rewind {at} --say "Only in 2013" --follow{more}', "in another terminal"),
        (f"ckpt tree {story.handle.id}{more}", "works without a server, too"),
    ):
        out.say(f"  {callable_as(command)}   # {why}")
