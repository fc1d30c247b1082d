"""A session for programs: JSON with stable keys, Mermaid and Graphviz DOT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..model import Checkpoint, CheckpointInfo, CheckpointTree, Thread, WorkflowRun
from ..temporal.payloads import readable
from .render import clean, short_ids, thread_title

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload

__all__ = [
    "checkpoint_json",
    "info_json",
    "run_json",
    "thread_json",
    "to_dot",
    "to_mermaid",
    "tree_json",
]


def info_json(info: CheckpointInfo) -> dict[str, Any]:
    """Return a checkpoint without its content."""
    return {
        "id": info.id,
        "thread": info.thread_id,
        "session": info.session_id,
        "step": info.step,
        "parents": list(info.parents),
        "trigger": str(info.trigger),
        "node": info.node,
        "next_node": info.next_node,
        "message_count": info.message_count,
        "tags": list(info.tags),
        "labels": list(info.labels),
        "metadata": dict(info.metadata),
        "summary": info.summary,
        "created_at": info.created_at.isoformat(),
    }


def checkpoint_json(
    checkpoint: Checkpoint, decode: Callable[[Payload], Payload] | None = None
) -> dict[str, Any]:
    """Return a whole checkpoint; ``decode`` undoes the encryption of payloads."""
    return {
        **info_json(checkpoint),
        "messages": checkpoint.messages,
        "state": checkpoint.state,
        "tools_result": readable(checkpoint.tools_result, decode),
    }


def thread_json(thread: Thread) -> dict[str, Any]:
    """Return a thread."""
    return {
        "id": thread.id,
        "session": thread.session_id,
        "branch": thread.branch,
        "origin": thread.origin,
        "head": thread.head,
        "step": thread.step,
        "superseded_by": thread.superseded_by,
        "created_at": thread.created_at.isoformat(),
    }


def run_json(run: WorkflowRun | None) -> dict[str, Any] | None:
    """Return the workflow that runs a thread."""
    return None if run is None else asdict(run)


def tree_json(tree: CheckpointTree, statuses: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a whole session, with how the workflow of each thread stands where that is known."""
    stand = statuses or {}
    return {
        "session": tree.session_id,
        "active_thread": tree.active_thread,
        "threads": [
            {
                **thread_json(thread),
                "workflow": run_json(tree.runs.get(thread.id)),
                "status": stand.get(thread.id),
            }
            for thread in tree.threads
        ],
        "checkpoints": [{**info_json(node.info), "is_head": node.is_head} for node in tree.nodes],
        "edges": [
            {"parent": edge.parent, "child": edge.child, "kind": edge.kind} for edge in tree.edges
        ],
    }


def to_mermaid(tree: CheckpointTree) -> str:
    """Return a Mermaid flowchart, such as GitHub draws from a ``mermaid`` block."""

    def quoted(text: str) -> str:
        return '"' + text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;") + '"'

    lines = ["flowchart TB"]
    for number, (title, infos) in enumerate(_by_thread(tree)):
        lines.append(f"  subgraph t{number}[{quoted(title)}]")
        lines += [f"    c{info.id}[{quoted(label)}]" for info, label in infos]
        lines.append("  end")
    arrows = {"step": "-->", "fork": "-. fork .->", "merge": "-- join -->"}
    lines += [f"  c{e.parent} {arrows[e.kind]} c{e.child}" for e in tree.edges]
    if head := _active_head(tree):
        lines.append(f"  style c{head} stroke-width:4px")
    return "\n".join(lines) + "\n"


def to_dot(tree: CheckpointTree) -> str:
    """Return a Graphviz graph."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    head = _active_head(tree)
    lines = ["digraph session {", "  node [shape=box, style=rounded];"]
    for number, (title, infos) in enumerate(_by_thread(tree)):
        lines.append(f"  subgraph cluster_{number} {{ label={quoted(title)};")
        for info, label in infos:
            bold = ", penwidth=3" if info.id == head else ""
            lines.append(f'    "{info.id}" [label={quoted(label)}{bold}];')
        lines.append("  }")
    styles = {"step": "", "fork": " [style=dashed, label=fork]", "merge": " [label=join]"}
    lines += [f'  "{e.parent}" -> "{e.child}"{styles[e.kind]};' for e in tree.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _by_thread(
    tree: CheckpointTree,
) -> Iterator[tuple[str, list[tuple[CheckpointInfo, str]]]]:
    names = {thread.id: thread.branch for thread in tree.threads}
    short = short_ids(node.info.id for node in tree.nodes)
    for thread in tree.threads:
        infos = [node.info for node in tree.nodes if node.info.thread_id == thread.id]
        if infos:
            title = thread_title(thread, tree.runs.get(thread.id), names)
            yield title, [(info, _label(info, short[info.id])) for info in infos]


def _label(info: CheckpointInfo, short: str) -> str:
    tags = "".join(f" [{clean(tag)}]" for tag in info.tags)
    return f"{info.step} {clean(info.node or str(info.trigger))} {short}{tags}"


def _active_head(tree: CheckpointTree) -> str | None:
    return next((t.head for t in tree.threads if t.id == tree.active_thread), None)
