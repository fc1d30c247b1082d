"""The engine's verbs as Temporal needs them: resolve a target, make a child's thread, supersede.

Plain functions on an engine, shared by the activities that a supervisor calls and by the client
side, which does the same for sessions that no longer run.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointNotFound, InvalidRequest, ThreadNotFound
from ..model import CheckpointInfo, SnapshotTrigger, StepCommit, Thread, WorkflowRun
from .again import count_again, decoded, how_it_started
from .contract import (
    BranchRequest,
    Overrides,
    PrepareChild,
    PreparedChild,
    RewindRequest,
    SendAgain,
    Target,
)
from .headers import Prefix, SeedHeader
from .joining import line_of
from .origin import ORIGIN_NODE, free_name
from .payloads import from_stored
from .upcasting import seed_content
from .versions import check_version
from .way import packed_keys, step_key

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload
    from temporalio.client import Client

    from ckpt_engine import CheckpointEngine

__all__ = ["find_target", "prepare_child", "run_of"]


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
        run = (await engine.runs(session_id)).get(session_id)
        raise CheckpointNotFound(
            f"{asked}: thread {thread.branch!r} has steps 0 to {thread.step}; "
            f"see them with: ckpt log {quote(run.workflow_id if run else session_id)}"
        )
    found = await engine.frontier_at(thread.id, step)
    head = await engine.get_info(thread.head) if thread.head else None
    sub = line_of(head) if head else None
    return await _of_line(engine, [await engine.get_info(tip) for tip in found], sub)


async def _of_line(
    engine: CheckpointEngine, found: Sequence[CheckpointInfo], sub: str | None
) -> tuple[CheckpointInfo, ...]:
    """Put the point where a sub-workflow was called in the place of its steps: it was not done."""
    own: dict[str, CheckpointInfo] = {}
    waiting = list(found)
    while waiting:
        info = waiting.pop()
        inside = line_of(info)
        if inside == sub or inside is None:
            own[info.id] = info
        else:
            start = await engine.get_info(inside)
            waiting += [await engine.get_info(parent) for parent in start.parents]
    return tuple(sorted(own.values(), key=lambda info: (info.step, info.id)))


async def _thread_of(engine: CheckpointEngine, session_id: str, name: str) -> Thread:
    threads = await engine.list_threads(session_id)
    for thread in threads:
        if name in (thread.id, thread.branch):
            return thread
    names = ", ".join(thread.branch for thread in threads)
    raise ThreadNotFound(f"the session has no thread {name!r}; it has {names}")


async def prepare_child(
    engine: CheckpointEngine, client: Client, ask: PrepareChild
) -> PreparedChild:
    """Make the thread and first checkpoint of a child; asked again, answer the same.

    Args:
        engine: Where the checkpoints are.
        client: Of the namespace that the session's workflows run in.
        ask: What is wanted.

    Raises:
        InvalidRequest: The request cannot be carried out; nothing was stored.
    """
    request: RewindRequest | BranchRequest | None = ask.rewind or ask.branch
    if request is None:
        raise InvalidRequest("neither a rewind nor a branch was asked for")
    if await engine.find_committed(ask.checkpoint) is not None:
        return await _prepared(engine, client, ask)
    target = request.to if isinstance(request, RewindRequest) else request.at
    seeds = await find_target(engine, ask.session, ask.active_thread, target)
    for seed in seeds:
        if line_of(seed) != ask.sub:
            raise InvalidRequest(
                f"checkpoint {seed.id[:8]} (step {seed.step}) belongs to the line of workflow "
                f"{seed.metadata.get('workflow_id')!r}: ask that workflow"
            )
    await check_version(client, request.version)
    overrides = request.overrides
    await engine.check_storable(messages=overrides.messages, state=overrides.state_patch())
    content = await seed_content(engine, seeds, overrides)
    name = ask.branch.name if ask.branch else None
    if name is None:
        name = await free_name(engine, ask.session, ask.thread, "rewind")
    await engine.branch(seeds[0].id, name, thread_id=ask.thread)
    parents, step = tuple(seed.id for seed in seeds), seeds[-1].step + 1
    given = any(content.get(part) for part in ("append", "state_set"))
    if ask.resume == "replay" and given and any(map(_on_a_line, seeds)):
        summary = _summary(overrides)
        parents, step = (*parents, await _share(engine, ask, seeds, content, summary)), step + 1
        content = {}
    await engine.commit_step(
        StepCommit(
            checkpoint_id=ask.checkpoint,
            thread_id=ask.thread,
            step=step,
            parents=parents,
            **content,
            trigger=SnapshotTrigger.MANUAL,
            node=ask.kind,
            next_node=overrides.next_node or seeds[-1].next_node,
            metadata={
                "fingerprint": ask.kind,
                "summary": _summary(overrides),
                "overrides": sorted(overrides.model_fields_set),
                "reason": request.reason,
                "request_id": request.request_id,
                "workflow_id": ask.run.get("workflow_id"),
                **({"sub": ask.sub} if ask.sub else {}),
            },
        )
    )
    await engine.register_run(ask.thread, run_of(ask))
    return await _prepared(engine, client, ask)


def _on_a_line(info: CheckpointInfo) -> bool:
    return bool(info.metadata.get("line", [""])[0])


def _shared_id(checkpoint_id: str) -> str:
    drawn = blake2b(checkpoint_id.encode(), digest_size=10).hexdigest()
    return drawn + checkpoint_id[20:]


async def _share(
    engine: CheckpointEngine,
    ask: PrepareChild,
    seeds: Sequence[CheckpointInfo],
    content: dict[str, Any],
    summary: str,
) -> str:
    """Commit what a child changes apart from its seed, so that lines side by side can have it.

    It follows only where all of them began; a line that went on from their join would read the
    others.
    """
    oldest = (await engine.path(seeds[0].id))[0]
    shared = _shared_id(ask.checkpoint)
    await engine.commit_step(
        StepCommit(
            checkpoint_id=shared,
            thread_id=ask.thread,
            step=seeds[-1].step + 1,
            parents=(oldest.id,),
            **content,
            trigger=SnapshotTrigger.MANUAL,
            node="overrides",
            metadata={
                "fingerprint": "overrides",
                "summary": summary,
                **({"sub": ask.sub} if ask.sub else {}),
            },
        )
    )
    return shared


def _summary(overrides: Overrides) -> str:
    """Say what a child changes, for the lines that people read."""
    words = []
    for message in overrides.messages:
        text = message.get("content")
        said = " ".join(text.split()) if isinstance(text, str) else "a message"
        words.append(f"adds “{said[:77]}…”" if len(said) > 78 else f"adds “{said}”")
    if patch := overrides.state_patch():
        words.append(f"sets {', '.join(sorted(patch))}")
    if overrides.next_node:
        words.append(f"goes on at {overrides.next_node}")
    return ", ".join(words) or "changes nothing"


def run_of(ask: PrepareChild) -> WorkflowRun:
    """Return the workflow that is to run a child's thread."""
    run = ask.run
    return WorkflowRun(
        namespace=run.get("namespace") or "",
        workflow_id=run.get("workflow_id") or "",
        run_id="",
        workflow_type=run.get("workflow_type") or "",
        task_queue=run.get("task_queue") or "",
        supervisor=run.get("supervisor"),
    )


async def _prepared(engine: CheckpointEngine, client: Client, ask: PrepareChild) -> PreparedChild:
    first = await engine.get_info(ask.checkpoint)
    thread = await engine.get_thread(ask.thread)
    request = ask.rewind or ask.branch
    whole = [info for info in await engine.path(first.id) if info.id != first.id]
    path = [info for info in whole if line_of(info) == ask.sub]
    made_by = next(info for info in reversed(path) if "run_id" in info.metadata)
    base = int(made_by.metadata.get("base", 0))
    prefix, again = None, None
    if ask.resume == "replay":
        again = SendAgain(
            child=ask.run.get("workflow_id") or "",
            source=made_by.metadata["workflow_id"],
            run_id=made_by.metadata["run_id"],
            step=made_by.step,
        )
        count = await count_again(client, again)
        used = {info.step for info in whole}
        prefix = _prefix(path, used, base, count)
        if _shared_id(first.id) in first.parents:
            prefix = prefix.model_copy(update={"shared": _shared_id(first.id)})
        again = again if count else None
    seed = SeedHeader(
        session=ask.session,
        thread=ask.thread,
        parents=[first.id],
        step=first.step,
        next_node=first.next_node,
        branch=thread.branch,
        kind=ask.kind,
        prefix=prefix,
        request_id=request.request_id if request else "",
        sub=ask.sub,
    )
    args = None
    if ask.base != base:
        args = [_plain(payload) for payload in await _arguments(engine, client, path, made_by)]
    return PreparedChild(
        seed=seed,
        target=[parent for parent in first.parents if parent != _shared_id(first.id)],
        args=args,
        again=again,
        version=request.version if request else "",
    )


def _prefix(path: Sequence[CheckpointInfo], used: set[int], base: int, signals: int) -> Prefix:
    """Say what the steps on the way to a child's first checkpoint are known by.

    Args:
        path: The checkpoints of the code's own line.
        used: Numbers that some checkpoint has, those inside of sub-workflows included.
        base: Number of the last step before the code began.
        signals: How many signals and updates from before are sent again.
    """
    keys: dict[int, str] = {}
    calls: dict[int, int] = {}
    places: dict[str, dict[int, int]] = {}
    ids = {info.step: info.id for info in path if "call" not in info.metadata}
    known: dict[int, CheckpointInfo] = {}
    for info in path:
        call = info.metadata.get("call")
        number = info.step if call is None else call
        if number <= base or (call is None and "attempt" not in info.metadata):
            continue
        known[number] = info
        if call is not None:
            calls[number], ids[number] = info.step, info.id
        line, place = info.metadata.get("line", ("", number - base - 1))
        places.setdefault(line, {})[place] = number
        fingerprint = info.metadata["fingerprint"]
        keys[number] = step_key(line, fingerprint, call=call is not None)
    lines = {line: numbers for line, numbers in places.items() if line}
    return Prefix(
        start=base,
        keys=packed_keys(keys, base),
        gaps=_gaps(places.values(), used | keys.keys(), base),
        order=_order(known, signals),
        calls=calls,
        lines=lines,
        ids=ids if lines else {},
        signals=signals,
    )


def _order(known: Mapping[int, CheckpointInfo], signals: int) -> list[int]:
    """Return the numbers of steps in the order of their ends; none where each follows the last.

    A step had ended when the first one that follows it was scheduled. Signals that come again come
    all at once, so that their handlers ask for steps side by side which were none.
    """
    numbers = sorted(known)
    followed: dict[str, int] = {}
    for number in numbers:
        for parent in known[number].parents:
            followed.setdefault(parent, number)
    by = [followed.get(known[number].id, 0) for number in numbers]
    if by == [*numbers[1:], 0] and not signals:
        return []
    ends = {number: at or numbers[-1] + 1 for number, at in zip(numbers, by, strict=True)}
    return sorted(numbers, key=lambda number: (ends[number], known[number].created_at, number))


def _gaps(places: Collection[dict[int, int]], used: set[int], base: int) -> list[int]:
    """Return numbers of steps that failed or had not ended, as exactly as it is known.

    One beside a sub-workflow may have a number that this has used as well; then its place on its
    line is empty, and it comes before the next step there.
    """
    last = max((max(numbers.values()) for numbers in places), default=base)
    gaps = [number for number in range(base + 1, last) if number not in used]
    hidden = []
    for numbers in places:
        for place in set(range(max(numbers))) - numbers.keys():
            before = max((n for p, n in numbers.items() if p < place), default=base)
            after = min(n for p, n in numbers.items() if p > place)
            if not any(before < gap < after for gap in gaps):
                hidden.append(after - 1)
    return sorted(gaps + hidden)


async def _arguments(
    engine: CheckpointEngine,
    client: Client,
    path: Sequence[CheckpointInfo],
    made_by: CheckpointInfo,
) -> list[Payload]:
    """Return the arguments of the run that made a seed, or of the one it stood in for.

    Raises:
        InvalidRequest: It had continued as new, and Temporal has its history no more.
    """
    start = next(info for info in reversed(path) if info.node == ORIGIN_NODE)
    if int(made_by.metadata.get("base", 0)) <= start.step:
        stored = (await engine.get(start.id)).tools_result or ()
        payloads = [payload for payload in map(from_stored, stored) if payload is not None]
        return await decoded(client, start.metadata["workflow_id"], payloads)
    workflow_id, run_id = made_by.metadata["workflow_id"], made_by.metadata["run_id"]
    started = await how_it_started(client, workflow_id, run_id)
    if started is None:
        raise InvalidRequest(
            f"step {made_by.step} was made by a run of {workflow_id!r} that had continued as new, "
            "and Temporal no longer has its history, so what it was started with is not known; "
            "choose a step of a newer run, or one from before the first continue-as-new"
        )
    return await decoded(client, workflow_id, list(started.input.payloads))


def _plain(payload: Payload) -> tuple[dict[str, str], str]:
    metadata = {key: base64.b64encode(value).decode() for key, value in payload.metadata.items()}
    return metadata, base64.b64encode(payload.data).decode()
