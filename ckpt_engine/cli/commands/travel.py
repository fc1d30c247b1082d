"""``rewind`` and ``branch``: go on from an older checkpoint."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Address, Database, Home, Json, Namespace, settings_from
from ..output import Output
from ..running import run

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from ...temporal.contract import Overrides, StartedChild, Target
    from ..settings import Settings

__all__ = ["branch", "rewind"]

_TO, _CHANGE = "Which checkpoint (of a session)", "What to change"

Where = Annotated[
    str | None,
    typer.Argument(
        help="A checkpoint's id; or, with --step, --back or --tag, a session (else the newest)."
    ),
]
Step = Annotated[int | None, typer.Option(min=0, help="A step number.", rich_help_panel=_TO)]
Back = Annotated[
    int | None, typer.Option(min=0, help="So many steps before the head.", rich_help_panel=_TO)
]
Tag = Annotated[str | None, typer.Option(help="A tag.", rich_help_panel=_TO)]
OfThread = Annotated[
    str | None,
    typer.Option("--thread", help="Of this thread, not the active one.", rich_help_panel=_TO),
]
Say = Annotated[
    list[str] | None,
    typer.Option(help="Add what a person says; repeatable.", rich_help_panel=_CHANGE),
]
Message = Annotated[
    list[str] | None,
    typer.Option(help="Add a message, a JSON object; repeatable.", rich_help_panel=_CHANGE),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="State, KEY=JSON or KEY=TEXT.", rich_help_panel=_CHANGE),
]
Model = Annotated[str | None, typer.Option(help="Another model.", rich_help_panel=_CHANGE)]
Instructions = Annotated[
    str | None, typer.Option(help="Other instructions.", rich_help_panel=_CHANGE)
]
NextNode = Annotated[str | None, typer.Option(help="Where to go on.", rich_help_panel=_CHANGE)]
Reason = Annotated[str, typer.Option(help="Kept in the record.")]
OnVersion = Annotated[
    str, typer.Option(help="The worker version that is to run it, DEPLOYMENT.BUILD.")
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show its steps until it ends.")]


def rewind(
    where: Where = None,
    step: Step = None,
    back: Back = None,
    tag: Tag = None,
    thread: OfThread = None,
    say: Say = None,
    message: Message = None,
    set_: Set = None,
    model: Model = None,
    instructions: Instructions = None,
    next_node: NextNode = None,
    in_flight: Annotated[
        str, typer.Option(help="The step that runs: cancel, abandon or wait.")
    ] = "cancel",
    reason: Reason = "",
    on_version: OnVersion = "",
    follow: Follow = False,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Go on from an older checkpoint instead of the head; nothing is lost by it."""

    async def work() -> int:
        from ...temporal.contract import RewindRequest, parse

        changes = _overrides(say, message, set_, model, instructions, next_node)
        settings = settings_from(home=home, database_url=db)
        trip = _Trip(Output(as_json, settings), settings, follow)

        def request(target: Target) -> RewindRequest:
            body = {"to": target, "overrides": changes, "in_flight": in_flight}
            return parse(RewindRequest, {**body, "reason": reason, "version": on_version})

        return await trip.go(where, step, back, tag, thread, request, address, namespace)

    run(work(), as_json=as_json)


def branch(
    where: Where = None,
    name: Annotated[str | None, typer.Option(help="The branch's name; one is made up.")] = None,
    step: Step = None,
    back: Back = None,
    tag: Tag = None,
    thread: OfThread = None,
    say: Say = None,
    message: Message = None,
    set_: Set = None,
    model: Model = None,
    instructions: Instructions = None,
    next_node: NextNode = None,
    reason: Reason = "",
    on_version: OnVersion = "",
    follow: Follow = False,
    address: Address = None,
    namespace: Namespace = None,
    home: Home = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Start another line from a checkpoint, beside the one that goes on."""

    async def work() -> int:
        import secrets

        from ...temporal.contract import BranchRequest, parse

        changes = _overrides(say, message, set_, model, instructions, next_node)
        settings = settings_from(home=home, database_url=db)
        trip = _Trip(Output(as_json, settings), settings, follow)
        chosen = name or f"branch-{secrets.token_hex(2)}"

        def request(target: Target) -> BranchRequest:
            body = {"at": target, "name": chosen, "overrides": changes}
            return parse(BranchRequest, {**body, "reason": reason, "version": on_version})

        return await trip.go(where, step, back, tag, thread, request, address, namespace)

    run(work(), as_json=as_json)


class _Trip:
    """One request: from what was typed to the child that goes on."""

    def __init__(self, out: Output, settings: Settings, follow: bool) -> None:
        self._out = out
        self._settings = settings
        self._follow = follow

    async def go(
        self,
        where: str | None,
        step: int | None,
        back: int | None,
        tag: str | None,
        thread: str | None,
        request: Any,
        address: str | None,
        namespace: str | None,
    ) -> int:
        from ...temporal.contract import RewindRequest
        from ...temporal.sessions import Sessions
        from ..opening import connect, open_engine
        from ..server.connection import choose
        from .start import follow_agent, steps_of

        async with open_engine(self._settings) as engine:
            address_of, target = await _target(engine, where, step, back, tag, thread)
            asked = request(target)
            await _check(engine, address_of, asked.overrides)
            client = await connect(await choose(self._settings.home, address, namespace))
            sessions = Sessions(client, engine)
            follower = steps_of(self._out, engine, address_of)
            if self._follow:
                await follower.skip()
            if isinstance(asked, RewindRequest):
                child = await sessions.rewind(address_of, asked)
            else:
                child = await sessions.branch(address_of, asked)
            await self._say(engine, address_of, child)
            if self._follow:
                handle = client.get_workflow_handle(child.workflow_id)
                return await follow_agent(self._out, engine, handle, follower)
            self._out.data({"session": address_of, **child.model_dump(mode="json")})
            follow = f"ckpt log {quote(child.workflow_id)} --follow"
            self._out.following(follow, f"ckpt tree {quote(address_of)}")
        return 0

    async def _say(self, engine: CheckpointEngine, address_of: str, child: StartedChild) -> None:
        seed = await engine.get_info(child.seed[-1])
        did = "rewound" if child.kind == "rewind" else "branched"
        self._out.say(f"{did} {address_of} at step {seed.step} ({seed.id[:7]})")
        self._out.say(f"thread {child.branch} goes on as workflow {child.workflow_id}")


async def _target(
    engine: CheckpointEngine,
    where: str | None,
    step: int | None,
    back: int | None,
    tag: str | None,
    thread: str | None,
) -> tuple[str, Target]:
    """Return the workflow to ask and the checkpoint that is meant."""
    from ...temporal.contract import Target, parse
    from ..errors import CliError, Exit
    from ..opening import find_session
    from ..sessions import find_checkpoint

    if step is None and back is None and tag is None:
        if where is None:
            raise CliError(
                "no checkpoint is named", "give its id, or --step, --back or --tag", Exit.USAGE
            )
        info = await find_checkpoint(engine, where)
        run_of = (await engine.runs(info.session_id)).get(info.thread_id)
        if run_of is None:
            raise CliError(
                f"checkpoint {info.id[:7]} was not taken by a Temporal workflow",
                "rewind it with the engine's own rewind()",
                Exit.USAGE,
            )
        return run_of.supervisor or run_of.workflow_id, Target(checkpoint=info.id)
    if sum(named is not None for named in (step, back, tag)) > 1:
        raise CliError("give exactly one of --step, --back and --tag", "", Exit.USAGE)
    session = await find_session(engine, where)
    address = session.address
    if address is None:
        raise CliError(f"session {session.id!r} is not run by Temporal", "", Exit.USAGE)
    body = {"step": step, "back": back, "tag": tag, "thread": thread}
    return address.workflow_id, parse(Target, body)


async def _check(engine: CheckpointEngine, workflow_id: str, changes: Overrides) -> None:
    """Refuse what the shipped agent could not go on with, whether it runs or has ended.

    Raises:
        InvalidRequest: What is wrong with the changes.
    """
    from ckpt_agent.workflows.overrides import check_overrides

    found = await engine.find_run(workflow_id)
    if found is not None and found[1].workflow_type == "AgentWorkflow":
        check_overrides(changes)


def _overrides(
    say: list[str] | None,
    message: list[str] | None,
    set_: list[str] | None,
    model: str | None,
    instructions: str | None,
    next_node: str | None,
) -> Overrides:
    from ...temporal.contract import Overrides
    from ..errors import CliError, Exit
    from ..values import key_values, object_of

    if any(not text.strip() for text in say or []):
        raise CliError("--say is empty", "leave it away to add nothing", Exit.USAGE)
    said: list[dict[str, Any]] = [{"role": "user", "content": text} for text in say or []]
    return Overrides(
        messages=said + [object_of("--message", text) for text in message or []],
        state=key_values(set_ or []),
        model=model,
        instructions=instructions,
        next_node=next_node,
    )
