"""Plans: what a policy lets go, and what stays whatever it says."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_engine import retention_plan
from ckpt_engine.errors import InvalidRequest
from ckpt_engine.graph import GraphNode, merge_bases, nearest_kept
from ckpt_engine.retention import (
    KEEP_AGE,
    KEEP_ALL,
    KEEP_LAST_N,
    KEEP_MILESTONES,
    Candidate,
    Candidates,
    RetentionPolicy,
)
from ckpt_engine.retention_plan import KeepReason, plan_retention

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def chain(n: int, thread: str = "t", *, start: int = 0) -> list[Candidate]:
    return [
        Candidate(f"{thread}{i}", thread, i, (f"{thread}{i - 1}",) if i > start else (), at(i))
        for i in range(start, start + n)
    ]


@dataclass(frozen=True)
class Plan:
    """A plan by ids instead of positions."""

    drop: tuple[str, ...]
    kept: dict[str, KeepReason]


def planned(
    line: list[Candidate],
    policy: RetentionPolicy,
    now: datetime,
    only_threads: Collection[str] | None = None,
    **protected: Iterable[str],
) -> Plan:
    checkpoints = Candidates.of(line)
    at = {c.id: n for n, c in enumerate(checkpoints)}
    positions = {why: [at[i] for i in ids] for why, ids in protected.items()}
    plan = plan_retention(checkpoints, policy, now=now, only_threads=only_threads, **positions)
    ids = checkpoints.ids
    return Plan(
        tuple(ids[n] for n in plan.drop), {ids[n]: reason for n, reason in plan.kept.items()}
    )


def kept(plan: Plan) -> set[str]:
    return set(plan.kept)


def test_keep_all_drops_nothing() -> None:
    plan = plan_retention(Candidates.of(chain(9)), KEEP_ALL, now=at(9))
    assert plan.drop == ()
    assert plan.counts == {KeepReason.LEAF: 1, KeepReason.POLICY: 8}


def test_the_last_n_are_those_of_each_thread_or_of_the_session() -> None:
    both = chain(6, "a") + chain(6, "b", start=10)
    per_thread = planned(both, KEEP_LAST_N(2), now=at(20))
    assert kept(per_thread) == {"a4", "a5", "b14", "b15"}
    per_session = planned(both, KEEP_LAST_N(3, per="session"), now=at(20))
    assert kept(per_session) == {"a5", "b13", "b14", "b15"}  # a5 is a leaf
    assert per_session.kept["a5"] is KeepReason.LEAF


def test_age_counts_from_now_and_includes_the_boundary() -> None:
    plan = planned(chain(10), KEEP_AGE(timedelta(minutes=3)), now=at(10))
    assert kept(plan) == {"t7", "t8", "t9"}


def test_milestones_are_the_first_the_last_and_evenly_spread_between() -> None:
    plan = planned(chain(101), KEEP_MILESTONES(5), now=at(0))
    assert kept(plan) == {"t0", "t25", "t50", "t75", "t100"}
    assert kept(planned(chain(9), KEEP_MILESTONES(1), now=at(0))) == {"t8"}


def test_milestones_are_as_many_as_asked_where_steps_are_crowded() -> None:
    steps = [0, 1, 2, 3, 1000]
    line = [
        Candidate(f"t{s}", "t", s, (f"t{steps[n - 1]}",) if n else (), at(n))
        for n, s in enumerate(steps)
    ]
    assert len(planned(line, KEEP_MILESTONES(4), now=at(0)).kept) == 4


def _chosen_plainly(steps: list[int], n: int) -> set[int]:
    """The milestones of rising steps by their definition: of equals the first."""
    ideals = [steps[0] + (steps[-1] - steps[0]) / (n - 1) * k for k in range(1, n - 1)]
    places = range(len(steps))
    chosen = {0, len(steps) - 1}
    chosen |= {min(places, key=lambda at: abs(steps[at] - ideal)) for ideal in ideals}
    while len(chosen) < n:
        free = [at for at in places if at not in chosen]
        chosen.add(max(free, key=lambda at: min(abs(steps[at] - steps[c]) for c in chosen)))
    return chosen


@given(
    st.one_of(
        st.lists(st.integers(0, 40), min_size=3, max_size=20).map(sorted),
        st.integers(3, 30).map(lambda n: list(range(5, 5 + n))),
    ),
    st.data(),
)
def test_milestones_are_those_of_the_definition(steps: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(2, len(steps) - 1))
    line = Candidates.of(Candidate(f"{k:02}", "t", step, (), at(k)) for k, step in enumerate(steps))
    assert KEEP_MILESTONES(n).kept(line, at(99)) == _chosen_plainly(steps, n)


def test_crowded_milestones_of_many_are_found_without_comparing_all_with_all() -> None:
    steps = [*range(10_000), 10**9]
    line = Candidates.of(Candidate(f"{k:05}", "t", step, (), START) for k, step in enumerate(steps))
    assert len(KEEP_MILESTONES(5_000).kept(line, START)) == 5_000


def test_candidates_are_oldest_first_whatever_order_they_come_in() -> None:
    line = Candidates.of(reversed(chain(5)))
    assert list(line) == chain(5)
    assert (line[-1], line[1:3], len(line)) == (chain(5)[4], chain(5)[1:3], 5)
    with pytest.raises(IndexError):
        line[5]


def test_policies_combine() -> None:
    line, now = chain(101), at(100)
    either = KEEP_LAST_N(3) | KEEP_MILESTONES(3)
    assert kept(planned(line, either, now=now)) == {"t0", "t50", "t98", "t99", "t100"}
    both = KEEP_LAST_N(3) & KEEP_AGE(timedelta(minutes=1))
    assert kept(planned(line, both, now=now)) == {"t99", "t100"}


def test_each_reason_to_stay_is_named() -> None:
    line = chain(12)
    branch = Candidate("b", "branch", 4, ("t3",), at(13))
    plan = planned(
        [*line, branch],
        KEEP_LAST_N(1),
        now=at(20),
        heads=["t7"],
        origins=["t5"],
        tagged=["t1", "t7"],
        pinned=["t2"],
        needed=["t8"],
    )
    assert plan.kept == {
        "t1": KeepReason.TAGGED,
        "t2": KeepReason.PINNED,
        "t3": KeepReason.BRANCH_POINT,
        "t5": KeepReason.BRANCH_POINT,
        "t7": KeepReason.HEAD,
        "t8": KeepReason.NEEDED,
        "t11": KeepReason.LEAF,
        "b": KeepReason.LEAF,
    }


def test_where_a_rewound_line_parts_is_a_branch_point_but_parallel_steps_make_none() -> None:
    line = chain(4)
    rewound = Candidate("r", "t", 2, ("t1",), at(9))
    assert planned([*line, rewound], KEEP_LAST_N(1), now=at(9)).kept == {
        "t1": KeepReason.BRANCH_POINT,
        "t3": KeepReason.LEAF,
        "r": KeepReason.LEAF,
    }
    tools = [Candidate(f"tool{n}", "t", 4 + n, ("t3",), at(4 + n)) for n in range(3)]
    join = Candidate("join", "t", 7, ("tool0", "tool1", "tool2"), at(7))
    assert kept(planned([*line, *tools, join], KEEP_LAST_N(1), now=at(9))) == {"join"}


def test_other_threads_are_left_alone_when_one_is_named() -> None:
    both = chain(5, "a") + chain(5, "b", start=10)
    plan = planned(both, KEEP_LAST_N(1), now=at(20), only_threads={"a"})
    assert plan.drop == ("a0", "a1", "a2", "a3")


class _Positions(RetentionPolicy):
    def __init__(self, *positions: Any) -> None:
        self.positions = positions

    def kept(self, checkpoints: Candidates, now: datetime) -> Any:
        return iter(self.positions)


@pytest.mark.parametrize("strange", [9, -1, "t3", 2.0, None])
def test_what_is_no_position_is_refused_by_name(strange: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"positions from 0 to 8, not {strange!r}"):
        plan_retention(Candidates.of(chain(9)), _Positions(3, strange), now=at(9))


def test_positions_are_whatever_counts_as_an_integer() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    plan = plan_retention(Candidates.of(chain(9)), _Positions(Three()), now=at(9))
    assert set(plan.kept) == {3, 8}


def test_a_plan_is_a_value() -> None:
    nine = Candidates.of(chain(9))
    first, second = (plan_retention(nine, KEEP_LAST_N(2), now=at(9)) for _ in range(2))
    assert first == second
    with pytest.raises(TypeError):
        first.stays[KeepReason.HEAD] = (0,)  # type: ignore[index]


@pytest.mark.parametrize(
    "make",
    [
        lambda: KEEP_LAST_N(0),
        lambda: KEEP_LAST_N(True),
        lambda: KEEP_LAST_N(2.0),  # type: ignore[arg-type]
        lambda: KEEP_MILESTONES(-1),
        lambda: KEEP_LAST_N(1, per="user"),  # type: ignore[arg-type]
        lambda: KEEP_AGE(timedelta(0)),
        lambda: KEEP_AGE(3600),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_means_nothing_is_refused(make: Any) -> None:
    with pytest.raises(InvalidRequest):
        make()


policies = st.recursive(
    st.one_of(
        st.just(KEEP_ALL),
        st.builds(KEEP_LAST_N, st.integers(1, 6), st.sampled_from(["thread", "session"])),
        st.builds(KEEP_MILESTONES, st.integers(1, 6), st.sampled_from(["thread", "session"])),
        st.builds(KEEP_AGE, st.integers(1, 20).map(lambda m: timedelta(minutes=m))),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] | p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] & p[1]),
    ),
    max_leaves=3,
)


@st.composite
def sessions(draw: st.DrawFn, most_parents: int = 3) -> list[Candidate]:
    """One session of up to 20 checkpoints on up to three threads, with forks and joins."""
    found: dict[str, Candidate] = {}
    graph: dict[str, GraphNode[str]] = {}
    for n in range(draw(st.integers(1, 20))):
        some = (
            draw(
                st.lists(
                    st.sampled_from(list(found)), unique=True, min_size=1, max_size=most_parents
                )
            )
            if n
            else []
        )
        parents = nearest_kept(some, (), graph.__getitem__)  # no parent above another
        step = max((found[p].step for p in parents), default=-1) + 1
        name, thread = f"c{n:02}", draw(st.sampled_from("abc"))
        graph[name] = GraphNode(step, parents)
        found[name] = Candidate(name, thread, step, parents, at(n))
    return list(found.values())


@given(sessions(most_parents=1))
def test_lines_that_never_meet_again_have_the_shape_of_any_others(
    session: list[Candidate],
) -> None:
    for some in (session, chain(len(session))):
        checkpoints = Candidates.of(some)
        leaves, forks = retention_plan._shape_of_joined(checkpoints)
        at = {c.id: n for n, c in enumerate(checkpoints)}
        assert retention_plan._shape(checkpoints) == (
            leaves,
            forks | {at[i] for i in crossed(some)},
        )


def crossed(session: list[Candidate]) -> set[str]:
    """Where threads leave other threads."""
    thread_of = {c.id: c.thread_id for c in session}
    return {c.parents[0] for c in session if c.parents and thread_of[c.parents[0]] != c.thread_id}


@given(st.data(), sessions(), policies)
def test_no_policy_can_break_a_branch(
    data: st.DataObject, session: list[Candidate], policy: RetentionPolicy
) -> None:
    ids = st.lists(st.sampled_from([c.id for c in session]), max_size=3)
    protected = {k: data.draw(ids) for k in ("heads", "origins", "tagged", "pinned", "needed")}
    plan = planned(session, policy, now=at(20), **protected)
    dropped = set(plan.drop)
    assert dropped | kept(plan) == {c.id for c in session}
    assert not dropped & kept(plan)
    assert not dropped & {i for some in protected.values() for i in some}
    checkpoints = Candidates.of(session)
    assert not dropped & {checkpoints.ids[n] for n in policy.kept(checkpoints, at(20))}
    followed = {p for c in session for p in c.parents}
    assert dropped <= followed, "a leaf went"
    assert not dropped & crossed(session), "a branch point went"


@given(sessions(), policies)
def test_collecting_again_drops_nothing_more(
    session: list[Candidate], policy: RetentionPolicy
) -> None:
    origins = crossed(session)
    dropped = set(planned(session, policy, now=at(20), origins=origins).drop)
    graph = {c.id: GraphNode(c.step, c.parents) for c in session}
    left = [
        c._replace(parents=nearest_kept(c.parents, dropped, graph.__getitem__))
        for c in session
        if c.id not in dropped
    ]
    assert planned(left, policy, now=at(20), origins=origins).drop == ()


@given(sessions(), policies)
def test_survivors_keep_their_merge_bases_and_no_others_stay_for_it(
    session: list[Candidate], policy: RetentionPolicy
) -> None:
    plan = planned(session, policy, now=at(20))
    graph = {c.id: GraphNode(c.step, c.parents, n) for n, c in enumerate(session)}
    left = {
        i: node._replace(parents=nearest_kept(node.parents, plan.drop, graph.__getitem__))
        for i, node in graph.items()
        if i in plan.kept
    }
    bases: set[str] = set()
    for one, other in combinations(plan.kept, 2):
        found = merge_bases([one], [other], graph.__getitem__)
        assert merge_bases([one], [other], left.__getitem__) == found
        bases.update(found)
    assert {i for i, why in plan.kept.items() if why is KeepReason.MERGE_BASE} <= bases


def in_turn(rounds: int) -> list[Candidate]:
    """Two threads with two steps each, and a merge of one into the other, in every round."""
    found = [Candidate("root", "a", 0, (), at(0))]
    heads = {"a": found[0], "b": found[0]}
    for n in range(rounds):
        thread, other = ("a", "b") if n % 2 else ("b", "a")
        for name, merges in (("a", False), ("b", False)) * 2 + ((thread, True),):
            parents = (heads[name], *((heads[other],) if merges else ()))
            step = max(p.step for p in parents) + 1
            heads[name] = Candidate(
                f"{name}{len(found)}", name, step, tuple(p.id for p in parents), at(len(found))
            )
            found.append(heads[name])
    return found


@pytest.mark.parametrize("policy", [KEEP_LAST_N(1), KEEP_LAST_N(5), KEEP_MILESTONES(9)])
def test_threads_merged_in_turn_keep_few_bases(policy: RetentionPolicy) -> None:
    session = in_turn(100)
    plan = planned(session, policy, now=at(9999))
    bases = [i for i, why in plan.kept.items() if why is KeepReason.MERGE_BASE]
    assert len(bases) < len(plan.kept) - len(bases)


def test_an_age_beyond_the_first_day_keeps_everything() -> None:
    assert planned(chain(3), KEEP_AGE(timedelta.max), now=at(9)).drop == ()


def test_flags_instead_of_positions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="must return positions, not a flag for each"):
        plan_retention(Candidates.of(chain(3)), _Positions(True, False, True), now=at(9))
