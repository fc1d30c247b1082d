"""The engine's verbs as Temporal needs them: resolve a target, make a child's thread, supersede.

Plain functions on an engine, shared by the activities that a supervisor calls and by the client
side, which does the same for sessions that no longer run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import FailureError

from ..errors import CheckpointError, CheckpointNotFound, InvalidRequest, Retryable, ThreadNotFound
from ..model import CheckpointInfo, SnapshotTrigger, StepCommit, Thread, WorkflowRun
from .contract import (
    FORWARD_UPDATE,
    PREPARE_CHILD,
    SUPERSEDE,
    BranchRequest,
    Prefix,
    PrepareChild,
    PreparedChild,
    RewindRequest,
    SeedHeader,
    Supersede,
    Target,
    parse,
)
from .failures import to_failure
from .origin import ensure_origin

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from .interceptor import Runtime

__all__ = ["EngineActivities", "find_target", "newest_thread", "prepare_child"]


async def newest_thread(engine: CheckpointEngine, thread_id: str) -> Thread:
    """Return the thread that rewinds have put in the place of this one, itself if none."""
    thread = await engine.get_thread(thread_id)
    while thread.superseded_by is not None:
        thread = await engine.get_thread(thread.superseded_by)
    return thread


async def find_target(
    engine: CheckpointEngine, session_id: str, active_thread: str, target: Target
) -> tuple[CheckpointInfo, ...]:
    """Return the checkpoints a target means, in step order; one, unless in a parallel group.

    Raises:
        CheckpointNotFound: There is no such checkpoint, step or tag.
        NotInSession: It belongs to another session.
        ThreadNotFound: The session has no such thread.
    """
    if target.checkpoint is not None:
        return (await engine.resolve(target.checkpoint, session_id=session_id),)
    if target.tag is not None:
        return (await engine.resolve_tag(session_id, target.tag),)
    thread = await _thread_of(engine, session_id, target.thread or active_thread)
    step = target.step
    if target.back is not None:
        step = thread.step - target.back
    if step is None or not 0 <= step <= thread.step:
        asked = f"step {target.step}" if target.back is None else f"{target.back} steps back"
        raise CheckpointNotFound(
            f"{asked}: thread {thread.branch!r} has steps 0 to {thread.step}; "
            f"see them with: ckpt log {session_id}"
        )
    found = await engine.frontier_at(thread.id, step)
    return tuple([await engine.get_info(checkpoint_id) for checkpoint_id in found])


async def _thread_of(engine: CheckpointEngine, session_id: str, name: str) -> Thread:
    threads = await engine.list_threads(session_id)
    for thread in threads:
        if name in (thread.id, thread.branch):
            return thread
    names = ", ".join(thread.branch for thread in threads)
    raise ThreadNotFound(f"the session has no thread {name!r}; it has {names}")


async def prepare_child(engine: CheckpointEngine, ask: PrepareChild) -> PreparedChild:
    """Make the thread and first checkpoint of a child; asked again, answer the same.

    Raises:
        InvalidRequest: The request cannot be carried out; nothing was stored.
    """
    request: RewindRequest | BranchRequest | None = ask.rewind or ask.branch
    if request is None:
        raise InvalidRequest("neither a rewind nor a branch was asked for")
    if await engine.find_committed(ask.checkpoint) is not None:
        return await _prepared(engine, ask)
    target = request.to if isinstance(request, RewindRequest) else request.at
    seeds = await find_target(engine, ask.session, ask.active_thread, target)
    overrides = request.overrides
    await engine.check_storable(messages=overrides.messages, state=overrides.state_patch())
    name = await _branch_name(engine, ask)
    await engine.branch(seeds[0].id, name, thread_id=ask.thread)
    await engine.commit_step(
        StepCommit(
            checkpoint_id=ask.checkpoint,
            thread_id=ask.thread,
            step=seeds[-1].step + 1,
            parents=tuple(seed.id for seed in seeds),
            append=overrides.messages,
            state_set=overrides.state_patch(),
            trigger=SnapshotTrigger.MANUAL,
            node=ask.kind,
            next_node=overrides.next_node or seeds[-1].next_node,
            metadata={
                "fingerprint": ask.kind,
                "overrides": sorted(overrides.model_fields_set),
                "reason": request.reason,
                "request_id": request.request_id,
                "workflow_id": ask.run.get("workflow_id"),
            },
        )
    )
    await engine.register_run(ask.thread, _run(ask))
    return await _prepared(engine, ask)


async def _branch_name(engine: CheckpointEngine, ask: PrepareChild) -> str:
    if ask.branch is not None:
        return ask.branch.name
    threads = await engine.list_threads(ask.session)
    for thread in threads:
        if thread.id == ask.thread:
            return thread.branch
    taken = {thread.branch for thread in threads}
    number = 1
    while f"rewind-{number}" in taken:
        number += 1
    return f"rewind-{number}"


def _run(ask: PrepareChild) -> WorkflowRun:
    run = ask.run
    return WorkflowRun(
        namespace=run.get("namespace") or "",
        workflow_id=run.get("workflow_id") or "",
        run_id="",
        workflow_type=run.get("workflow_type") or "",
        task_queue=run.get("task_queue") or "",
        supervisor=run.get("supervisor"),
    )


async def _prepared(engine: CheckpointEngine, ask: PrepareChild) -> PreparedChild:
    info = await engine.get_info(ask.checkpoint)
    thread = await engine.get_thread(ask.thread)
    seed = SeedHeader(
        session=ask.session,
        thread=ask.thread,
        parents=[ask.checkpoint],
        step=info.step,
        next_node=info.next_node,
        branch=thread.branch,
        kind=ask.kind,
        prefix=await _prefix(engine, info) if ask.resume == "replay" else None,
    )
    return PreparedChild(seed=seed, target=list(info.parents))


async def _prefix(engine: CheckpointEngine, first: CheckpointInfo) -> Prefix:
    """Say which numbers on the way to a child's first checkpoint are steps with a result."""
    before = {info.step: info for info in await engine.path(first.id) if info.id != first.id}
    upto = max(before)
    skips = [step for step, info in before.items() if step > 0 and "attempt" not in info.metadata]
    gaps = [step for step in range(1, upto + 1) if step not in before]
    return Prefix(upto=upto, skips=sorted(skips), gaps=gaps)


class EngineActivities:
    """The engine's own activities, registered on every worker that has the plugin."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def all(self) -> Sequence[Callable[..., Any]]:
        """Return the activities to register."""
        return [self.prepare, self.supersede, self.forward_update]

    @activity.defn(name=PREPARE_CHILD)
    async def prepare(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Make the thread and first checkpoint of a child, or say why not."""
        engine = self._runtime().engine
        try:
            request = parse(PrepareChild, ask)
            if request.origin is not None:
                run = replace(
                    _run(request),
                    workflow_id=activity.info().workflow_id or "",
                    run_id=activity.info().workflow_run_id or "",
                    supervisor=None,
                )
                await ensure_origin(
                    engine, self._runtime().client, request.active_thread, request.origin, run
                )
                await engine.register_run(request.active_thread, run)
            prepared = await prepare_child(engine, request)
        except Retryable as err:
            raise to_failure(err) from err
        except CheckpointError as err:
            prepared = PreparedChild(refused_kind=err.kind, refused=str(err))
        return prepared.model_dump(mode="json")

    @activity.defn(name=SUPERSEDE)
    async def supersede(self, ask: dict[str, Any]) -> None:
        """Put the thread of a rewind in the place of the one it leaves."""
        request = parse(Supersede, ask)
        try:
            await self._runtime().engine.supersede(request.thread, request.by)
        except CheckpointError as err:
            raise to_failure(err) from err

    @activity.defn(name=FORWARD_UPDATE)
    async def forward_update(
        self, workflow_id: str, update: str, update_id: str, *args: Any
    ) -> Any:
        """Send a user's update on to the workflow that runs now, and return its answer."""
        handle = self._runtime().client.get_workflow_handle(workflow_id)
        try:
            return await handle.execute_update(update, args=list(args), id=update_id)
        except WorkflowUpdateFailedError as err:
            if isinstance(err.cause, FailureError):
                raise err.cause from None
            raise
