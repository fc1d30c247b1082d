"""Whether what the demo shows really happened: asked of the engine and of Temporal."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from ..model import CheckpointTree

if TYPE_CHECKING:
    from ckpt_engine import CheckpointEngine

    from .demo import Story

__all__ = ["check"]


async def check(engine: CheckpointEngine, story: Story, tree: CheckpointTree) -> list[str]:
    """Return everything that is not as it should be, each in one line."""
    return [
        *_outcomes(story),
        *_threads(story, tree),
        *[problem async for problem in _contents(engine, story, tree)],
        *[problem async for problem in _temporal(story)],
    ]


def _outcomes(story: Story) -> Iterator[str]:
    for name, outcome in story.outcomes.items():
        if outcome.error is not None:
            yield f"{name} failed: {outcome.error}"
        elif not outcome.answer:
            yield f"{name} has no answer"
    if len({outcome.answer for outcome in story.outcomes.values()}) != len(story.outcomes):
        yield "two lines gave the same answer, so the changes had no effect"


def _threads(story: Story, tree: CheckpointTree) -> Iterator[str]:
    threads = {thread.branch: thread for thread in tree.threads}
    for name, child in story.children.items():
        thread = threads.get(name)
        asked = story.asked["rewind" if child.kind == "rewind" else name]
        if thread is None or thread.id != child.thread:
            yield f"the engine has no thread {name} of {child.workflow_id}"
            continue
        if thread.origin != asked:
            yield f"thread {name} leaves at {thread.origin}, not at {asked}"
        if thread.id not in tree.runs or tree.runs[thread.id].workflow_id != child.workflow_id:
            yield f"thread {name} is not registered to {child.workflow_id}"
        if child.kind == "rewind" and tree.active_thread != thread.id:
            yield f"the session goes on with {tree.active_thread}, not with the rewind"
        if child.kind == "rewind" and threads["main"].superseded_by != thread.id:
            yield "the main thread is not marked as superseded"


async def _contents(
    engine: CheckpointEngine, story: Story, tree: CheckpointTree
) -> AsyncIterator[str]:
    there = {node.info.id: node.info for node in tree.nodes}
    for info in story.seen:
        if there.get(info.id) != info:
            yield f"checkpoint {info.id} of step {info.step} has changed or is gone"
    try:
        for thread in tree.threads:
            if thread.head is None:
                yield f"thread {thread.branch} has no checkpoint"
                continue
            head = await engine.get(thread.head)
            instructed = any(story.instruction in str(message) for message in head.messages)
            if instructed != (thread.id == tree.active_thread):
                where = "where it should not be" if instructed else "missing"
                yield f"thread {thread.branch}: the instruction is {where}"
    except CheckpointError as err:
        yield f"a head cannot be read: {err}"


async def _temporal(story: Story) -> AsyncIterator[str]:
    history = await story.handle.fetch_history()
    signals = Counter(
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    )
    if signals["rewind"] != 1 or signals["branch"] != 2:
        yield f"the history of {story.handle.id} has the signals {dict(signals)}"
    started = {
        event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
        for event in history.events
        if event.HasField("child_workflow_execution_started_event_attributes")
    }
    for name, child in story.children.items():
        if child.workflow_id not in started:
            yield f"{name}: {child.workflow_id} is not a child of {story.handle.id}"
