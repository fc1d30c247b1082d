"""Ancestry over graphs of checkpoints, against the plainest possible reading of each promise."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_engine.errors import InvalidRequest
from ckpt_engine.graph import (
    GraphNode,
    ancestors,
    frontier,
    is_ancestor,
    line,
    merge_base,
    merge_bases,
    missing_from,
    nearest_kept,
    nearest_step,
)

Graph = dict[str, GraphNode[str]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of up to 14 checkpoints, with forks, joins, gaps between steps and several roots."""
    graph: Graph = {}
    for n in range(draw(st.integers(1, 14))):
        known = sorted(graph)
        parents = (
            tuple(draw(st.lists(st.sampled_from(known), unique=True, max_size=3))) if known else ()
        )
        low = max((graph[p].step for p in parents), default=-1) + 1
        graph[f"c{n:02}"] = GraphNode(low + draw(st.integers(0, 2)), parents)
    return graph


def reachable(graph: Graph, *starts: str) -> set[str]:
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(graph[current].parents)
    return found


def chosen(data: st.DataObject, graph: Graph) -> str:
    return data.draw(st.sampled_from(sorted(graph)))


def some(data: st.DataObject, graph: Graph) -> list[str]:
    return data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True, min_size=1, max_size=3))


@given(st.data(), graphs())
def test_ancestors_are_all_that_can_be_reached_newest_first(
    data: st.DataObject, graph: Graph
) -> None:
    starts = some(data, graph)
    found = list(ancestors(starts, graph.__getitem__))
    assert len(found) == len(set(found))
    assert set(found) == reachable(graph, *starts)
    steps = [graph[i].step for i in found]
    assert steps == sorted(steps, reverse=True)


@given(st.data(), graphs())
def test_is_ancestor(data: st.DataObject, graph: Graph) -> None:
    a, b = chosen(data, graph), chosen(data, graph)
    assert is_ancestor(a, b, graph.__getitem__) == (a in reachable(graph, b))


@given(st.data(), graphs(), st.integers(-1, 30))
def test_nearest_step_is_the_newest_of_the_line(
    data: st.DataObject, graph: Graph, step: int
) -> None:
    head = chosen(data, graph)
    own = [i for i in line(head, graph.__getitem__) if graph[i].step <= step]
    expected = max(own, key=lambda i: graph[i].step) if own else None
    assert nearest_step(head, step, graph.__getitem__) == expected


@given(st.data(), graphs(), st.integers(-1, 30))
def test_the_frontier_is_done_and_followed_by_nothing_done(
    data: st.DataObject, graph: Graph, step: int
) -> None:
    starts = some(data, graph)
    done = {i for i in reachable(graph, *starts) if graph[i].step <= step}
    expected = {i for i in done if not any(i in graph[other].parents for other in done)}
    found = frontier(starts, step, graph.__getitem__)
    assert set(found) == expected
    assert list(found) == sorted(found, key=lambda i: (graph[i].step, i))


@given(st.data(), graphs())
def test_merge_bases_are_the_best_common_ancestors(data: st.DataObject, graph: Graph) -> None:
    ours, theirs = some(data, graph), some(data, graph)
    common = reachable(graph, *ours) & reachable(graph, *theirs)
    best = {i for i in common if not any(i != o and i in reachable(graph, o) for o in common)}
    found = merge_bases(ours, theirs, graph.__getitem__)
    assert set(found) == best
    assert len(found) == len(best)
    assert set(merge_bases(theirs, ours, graph.__getitem__)) == best


@given(st.data(), graphs(), st.randoms())
def test_merge_bases_do_not_hang_on_what_checkpoints_are_called(
    data: st.DataObject, graph: Graph, random: Random
) -> None:
    ours, theirs = some(data, graph), some(data, graph)
    other = dict(
        zip(graph, random.sample([f"x{n:02}" for n in range(99)], len(graph)), strict=True)
    )
    renamed = {
        other[i]: GraphNode(node.step, tuple(other[p] for p in node.parents))
        for i, node in graph.items()
    }
    mine, others = ([other[i] for i in side] for side in (ours, theirs))
    found = merge_bases(mine, others, renamed.__getitem__)
    assert found == tuple(other[i] for i in merge_bases(ours, theirs, graph.__getitem__))


def test_merge_bases_of_a_criss_cross_are_both_sides() -> None:
    graph = {
        "root": GraphNode(0, ()),
        "a1": GraphNode(1, ("root",)),
        "b1": GraphNode(1, ("root",)),
        "a2": GraphNode(2, ("a1", "b1")),
        "b2": GraphNode(2, ("b1", "a1")),
    }
    assert set(merge_bases(["a2"], ["b2"], graph.__getitem__)) == {"a1", "b1"}
    assert merge_base("a2", "b1", graph.__getitem__) == "b1"
    assert merge_base("root", "b2", graph.__getitem__) == "root"


def test_a_merge_base_is_found_without_walking_the_whole_past() -> None:
    graph: Graph = {f"{n}": GraphNode(n, (f"{n - 1}",) if n else ()) for n in range(10_000)}
    graph["side"] = GraphNode(9_991, ("9990",))
    asked: list[str] = []

    def lookup(checkpoint_id: str) -> GraphNode[str]:
        asked.append(checkpoint_id)
        return graph[checkpoint_id]

    assert merge_bases(["9999"], ["side"], lookup) == ("9990",)
    assert len(asked) < 100


def test_nothing_shared_has_no_base() -> None:
    graph = {"a": GraphNode(0, ()), "b": GraphNode(0, ())}
    assert merge_bases(["a"], ["b"], graph.__getitem__) == ()
    assert merge_base("a", "b", graph.__getitem__) is None


@given(st.data(), graphs())
def test_missing_from_is_what_one_side_alone_has_in_the_order_of_its_making(
    data: st.DataObject, graph: Graph
) -> None:
    tip, others = chosen(data, graph), some(data, graph)
    found = missing_from(tip, others, graph.__getitem__)
    assert set(found) == reachable(graph, tip) - reachable(graph, *others)
    for n, i in enumerate(found):
        assert not set(graph[i].parents) & set(found[n:])


@given(st.data(), graphs())
def test_skipping_dropped_parents_keeps_every_tie_between_survivors(
    data: st.DataObject, graph: Graph
) -> None:
    dropped = set(data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True)))
    kept = set(graph) - dropped
    relinked = {
        i: GraphNode(graph[i].step, nearest_kept(graph[i].parents, dropped, graph.__getitem__))
        for i in kept
    }
    for i in kept:
        assert set(relinked[i].parents) <= kept
        assert reachable(relinked, i) == reachable(graph, i) & kept
        bare = relinked[i].parents
        assert not any(p != o and p in reachable(graph, o) for p in bare for o in bare)


def test_what_is_below_a_kept_parent_is_not_walked() -> None:
    """In a long row of calls side by side of which the last is always dropped."""
    graph: Graph = {"j0": GraphNode(0, ())}
    for n in range(1, 1_000):
        calls = tuple(f"{call}{n}" for call in "abc")
        graph |= {call: GraphNode(2 * n - 1, (f"j{n - 1}",)) for call in calls}
        graph[f"j{n}"] = GraphNode(2 * n, calls)
    dropped = {i for i in graph if i[0] in "cj"}
    asked: list[str] = []

    def lookup(checkpoint_id: str) -> GraphNode[str]:
        asked.append(checkpoint_id)
        return graph[checkpoint_id]

    assert nearest_kept(["c999", "b999", "a999"], dropped, lookup) == ("b999", "a999")
    assert len(asked) < 20


def test_a_child_that_is_not_newer_than_its_parent_is_refused() -> None:
    graph = {"a": GraphNode(3, ()), "b": GraphNode(3, ("a",))}
    with pytest.raises(InvalidRequest, match="step 3"):
        list(ancestors(["b"], graph.__getitem__))
