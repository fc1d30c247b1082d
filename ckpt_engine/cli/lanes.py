"""Lay a session out as rows: every checkpoint once, its threads as lanes, forks and joins drawn.

Pure: a :class:`CheckpointTree` in, rows out. Time runs downwards. A branch is drawn right where
it leaves, before its parent thread goes on, so that there are as many lanes as branches are
nested, however many there are side by side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..model import CheckpointInfo, CheckpointTree

__all__ = ["Row", "flip", "lay_out"]

_FLIPPED = str.maketrans("╮╯╭╰┬┴┌└", "╯╮╰╭┴┬└┌")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the drawing.

    Attributes:
        graph: Lanes and connectors, two characters a lane.
        column: The lane that the row is about.
        info: The checkpoint, on a row that shows one.
        starts: Id of the thread that begins on the next row, on a row that says so.
        bracket: ``┌``, ``├`` or ``└`` for the steps of a parallel group.
    """

    graph: str
    column: int
    info: CheckpointInfo | None = None
    starts: str | None = None
    bracket: str = ""


def lay_out(tree: CheckpointTree) -> list[Row]:
    """Return the rows of a session, oldest first."""
    return _Layout(tree).rows()


def flip(rows: Iterable[Row]) -> list[Row]:
    """Return the rows newest first, as ``git log`` has them."""
    return [
        replace(row, graph=row.graph.translate(_FLIPPED), bracket=row.bracket.translate(_FLIPPED))
        for row in reversed(list(rows))
    ]


class _Unit:
    """A checkpoint, or the steps of a parallel group that begin and end together."""

    def __init__(self, position: int, infos: list[CheckpointInfo]) -> None:
        self.position = position
        self.infos = infos
        self.thread = infos[0].thread_id
        self.parents: list[_Unit] = []
        self.children: list[_Unit] = []


class _Layout:
    def __init__(self, tree: CheckpointTree) -> None:
        self._units = _link(tree)
        self._pending = {unit: len(unit.children) for unit in self._units}
        self._lanes: list[_Unit | None] = []
        self._seen: set[str] = set()
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        for unit in _ordered(self._units):
            self._place(unit)
        return self._rows

    def _place(self, unit: _Unit) -> None:
        new_thread = None if unit.thread in self._seen else unit.thread
        self._seen.add(unit.thread)
        column = self._enter(unit, new_thread)
        for other in unit.parents[1:]:
            self._join(other, column)
        self._lanes[column] = unit
        for number, info in enumerate(unit.infos):
            bracket = _bracket(number, len(unit.infos))
            self._rows.append(Row(self._draw({column: "●"}), column, info, bracket=bracket))
        for parent in unit.parents:
            self._pending[parent] -= 1
        self._close_finished()

    def _enter(self, unit: _Unit, new_thread: str | None) -> int:
        """Find the unit's lane; draw the fork if it leaves its parent's."""
        if not unit.parents:
            column = self._free_lane(0)
            self._rows.append(Row(self._draw({column: " "}), column, starts=new_thread))
            return column
        parent = unit.parents[0]
        at = self._lanes.index(parent)
        last = self._pending[parent] == 1
        if last and parent.thread == unit.thread:
            return at
        column = self._free_lane(at + 1)
        marks = {at: "╰" if last else "├", column: "╮"}
        self._rows.append(Row(self._draw(marks, at, column), column, starts=new_thread))
        if last:
            self._lanes[at] = None
        return column

    def _join(self, parent: _Unit, column: int) -> None:
        at = self._lanes.index(parent)
        if at == column:
            return
        last = self._pending[parent] == 1
        there = ("╯" if at > column else "╰") if last else ("┤" if at > column else "├")
        marks = {at: there, column: "├" if at > column else "┤"}
        self._rows.append(Row(self._draw(marks, at, column), column))
        if last:
            self._lanes[at] = None

    def _close_finished(self) -> None:
        for column, unit in enumerate(self._lanes):
            if unit is not None and self._pending[unit] == 0:
                self._lanes[column] = None
        while self._lanes and self._lanes[-1] is None:
            self._lanes.pop()

    def _free_lane(self, start: int) -> int:
        for column in range(start, len(self._lanes)):
            if self._lanes[column] is None:
                return column
        self._lanes += [None] * (max(start, len(self._lanes)) + 1 - len(self._lanes))
        return len(self._lanes) - 1

    def _draw(self, marks: dict[int, str], start: int = 0, end: int = 0) -> str:
        cells = [" "] * (2 * len(self._lanes) - 1)
        for column, unit in enumerate(self._lanes):
            if unit is not None:
                cells[2 * column] = "│"
        for place in range(2 * min(start, end) + 1, 2 * max(start, end)):
            cells[place] = "┼" if cells[place] == "│" else "─"
        for column, mark in marks.items():
            cells[2 * column] = mark
        return "".join(cells).rstrip()


def _bracket(number: int, size: int) -> str:
    if size == 1:
        return ""
    return "┌" if number == 0 else "└" if number == size - 1 else "├"


def _link(tree: CheckpointTree) -> list[_Unit]:
    """Make units of the checkpoints, oldest first, and link them."""
    infos = [node.info for node in tree.nodes]
    known = {info.id for info in infos}
    groups = _groups(infos)
    units: list[_Unit] = []
    unit_of: dict[str, _Unit] = {}
    for info in infos:
        if info.id not in unit_of:
            unit = _Unit(len(units), groups.get(info.id, [info]))
            units.append(unit)
            unit_of.update({member.id: unit for member in unit.infos})
    for unit in units:
        parents = {unit_of[p]: None for i in unit.infos for p in i.parents if p in known}
        unit.parents = [p for p in parents if p is not unit]
        for parent in unit.parents:
            parent.children.append(unit)
    return units


def _groups(infos: Sequence[CheckpointInfo]) -> dict[str, list[CheckpointInfo]]:
    """Find the parallel groups: same parents, same thread, and the same steps follow them."""
    alike: dict[tuple[str, tuple[str, ...]], list[CheckpointInfo]] = defaultdict(list)
    follow: dict[str, set[str]] = defaultdict(set)
    thread_of = {info.id: info.thread_id for info in infos}
    for info in infos:
        if info.parents:
            alike[info.thread_id, info.parents].append(info)
        for parent in info.parents:
            if thread_of.get(parent) == info.thread_id:
                follow[parent].add(info.id)
    return {
        member.id: group
        for group in alike.values()
        if len(group) > 1 and all(follow[m.id] == follow[group[0].id] for m in group)
        for member in group
    }


def _ordered(units: Sequence[_Unit]) -> Iterable[_Unit]:
    """Parents before children; what leaves a checkpoint before what goes on from it."""
    waiting = {unit: len(unit.parents) for unit in units}
    stack = [unit for unit in reversed(units) if not unit.parents]
    while stack:
        unit = stack.pop()
        yield unit
        ready = []
        for child in unit.children:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
        ready.sort(key=lambda c: (c.thread == unit.thread, c.position), reverse=True)
        stack += ready
