"""Draw a session for people: ``git log --graph`` in spirit, in colours where there are any."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.text import Text

from ..model import CheckpointInfo, CheckpointTree, SnapshotTrigger, Thread, WorkflowRun
from .lanes import Row, flip, lay_out

__all__ = [
    "clean",
    "draw_tree",
    "legend",
    "short_ids",
    "step_line",
    "thread_title",
    "trigger_word",
]

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red")
_LONGEST_NODE = 24


def draw_tree(
    tree: CheckpointTree,
    *,
    width: int | None = None,
    newest_first: bool = False,
    statuses: Mapping[str, str] | None = None,
) -> list[Text]:
    """Return one line for each row of the session's drawing.

    Args:
        tree: The session.
        width: Most terminal cells of a line; longer ones end in ``…``. No limit when absent.
        newest_first: Draw upwards, as ``git log`` does.
        statuses: How the workflow of each thread stands, where that is known.
    """
    rows = lay_out(tree)
    empty = [_empty_thread(tree, t) for t in _without_steps(tree)]
    picture = _Picture(tree, rows, statuses or {})
    lines = [picture.line(row) for row in (flip(rows) if newest_first else rows)] + empty
    for line in lines:
        line.no_wrap = True
        if width is not None:
            line.truncate(width, overflow="ellipsis")
    return lines


def legend(tree: CheckpointTree) -> str:
    """Return what the marks in the drawing of a session mean."""
    marks = ["★ goes on from here"]
    if len(tree.threads) > 1:
        marks.append("◆ head of another thread")
    if any(node.info.metadata.get("late") for node in tree.nodes):
        marks.append("(late) ended after its line was left")
    if any(node.info.metadata.get("disputed") for node in tree.nodes):
        marks.append("(disputed) parallel lines changed the same state, the later one counts")
    return " · ".join(marks)


def short_ids(ids: Iterable[str], *, least: int = 7) -> dict[str, str]:
    """Return each id's shortest prefix, all of one length, that tells it from the others."""
    ordered = sorted(set(ids))
    length = least
    for left, right in pairwise(ordered):
        while left[:length] == right[:length] and length < len(left):
            length += 1
    return {full: full[:length] for full in ordered}


def clean(text: str) -> str:
    """Return ``text`` on one line, without anything that would steer a terminal."""
    spaced = " ".join(text.split())
    return "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cf", "Cs"})


def trigger_word(trigger: SnapshotTrigger) -> str:
    """Return a trigger in one short word: ``llm_call`` is ``llm``."""
    return str(trigger).removesuffix("_call").removesuffix("_change").removeprefix("task_")


def step_line(info: CheckpointInfo, thread: str, *, short: str) -> Text:
    """Return the line that following a session shows for a new checkpoint."""
    line = Text.assemble(
        (f"{clean(thread):<14} ", "cyan"),
        (f"{info.step:>3} ", "bold"),
        (f"{short} ", "yellow"),
        (f"{trigger_word(info.trigger):<8} ", "dim"),
        f"{clean(info.node or ''):<10} ",
        clean(info.summary),
    )
    for label in _warnings(info):
        line.append(f" ({label})", "red")
    return line


def _warnings(info: CheckpointInfo) -> list[str]:
    return [label for label in info.labels if label in ("error", "late", "gap", "disputed")]


def thread_title(
    thread: Thread, run: WorkflowRun | None, names: Mapping[str, str], status: str | None = None
) -> str:
    """Return a thread's name, the workflow that runs it and what became of it."""
    parts = [clean(thread.branch)]
    if run is not None:
        parts.append(f"workflow {clean(run.workflow_id)}")
    if thread.superseded_by:
        parts.append(f"superseded by {clean(names.get(thread.superseded_by, '?'))}")
    elif status is not None:
        parts.append(status)
    return " · ".join(parts)


class _Picture:
    """What every line needs to know: names, colours and the widths of the columns."""

    def __init__(
        self, tree: CheckpointTree, rows: Sequence[Row], statuses: Mapping[str, str]
    ) -> None:
        self._statuses = statuses
        infos = [node.info for node in tree.nodes]
        self._threads = {thread.id: thread for thread in tree.threads}
        self._names = {thread.id: thread.branch for thread in tree.threads}
        self._runs = tree.runs
        self._short = short_ids(info.id for info in infos)
        self._colour = {t.id: _COLOURS[n % len(_COLOURS)] for n, t in enumerate(tree.threads)}
        self._heads = {t.head: t.id for t in tree.threads if t.head and t.id != tree.active_thread}
        self._active = tree.active_thread
        self._active_head = self._threads[tree.active_thread].head
        self._lanes = max((len(row.graph) for row in rows), default=0)
        self._digits = max((len(str(info.step)) for info in infos), default=1)
        self._trigger = max((len(trigger_word(info.trigger)) for info in infos), default=0)
        nodes = (cell_len(clean(info.node or "")) for info in infos)
        self._node = min(max(nodes, default=0), _LONGEST_NODE)

    def line(self, row: Row) -> Text:
        line = Text()
        self._add_graph(line, row)
        if row.starts is not None:
            thread = self._threads[row.starts]
            run, status = self._runs.get(thread.id), self._statuses.get(thread.id)
            title = thread_title(thread, run, self._names, status)
            if thread.origin:
                title += f" · from {self._short.get(thread.origin, thread.origin[:7])}"
            line.append(title, f"bold {self._colour[thread.id]}")
        if row.info is not None:
            self._add_checkpoint(line, row.info, row.bracket)
        line.rstrip()
        return line

    def _add_graph(self, line: Text, row: Row) -> None:
        thread = row.info.thread_id if row.info else row.starts
        colour = self._colour.get(thread or "", "")
        graph = row.graph.ljust(self._lanes) + "  "
        at = 2 * row.column
        line.append(graph[:at], "dim")
        line.append(graph[at], f"bold {colour}")
        line.append(graph[at + 1 :], "dim")

    def _add_checkpoint(self, line: Text, info: CheckpointInfo, bracket: str) -> None:
        line.append(f"{info.step:>{self._digits}} ", "bold")
        line.append(f"{self._short[info.id]} ", "yellow")
        line.append(f"{trigger_word(info.trigger):<{self._trigger}} ", "dim")
        node = Text(f"{bracket} {clean(info.node or '')}" if bracket else clean(info.node or ""))
        node.truncate(self._node + 2, overflow="ellipsis", pad=True)
        line.append_text(node)
        line.append(" ")
        if info.id == self._active_head:
            line.append(f"★ {clean(self._names[self._active])} ", "bold green")
        if info.id in self._heads:
            line.append(f"◆ {clean(self._names[self._heads[info.id]])} ", "bold")
        for tag in info.tags:
            line.append(f"[{clean(tag)}] ", "bold magenta")
        for label in _warnings(info):
            line.append(f"({label}) ", "red")
        line.append(clean(info.summary))


def _without_steps(tree: CheckpointTree) -> list[Thread]:
    used = {node.info.thread_id for node in tree.nodes}
    return [thread for thread in tree.threads if thread.id not in used]


def _empty_thread(tree: CheckpointTree, thread: Thread) -> Text:
    names = {t.id: t.branch for t in tree.threads}
    title = thread_title(thread, tree.runs.get(thread.id), names)
    place = f" · from {thread.origin[:7]}" if thread.origin else ""
    return Text(f"{title}{place} · no steps yet", "dim")
