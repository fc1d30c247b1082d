"""Plans: what a policy lets go, and what stays whatever it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_engine.errors import InvalidRequest
from ckpt_engine.graph import GraphNode, nearest_kept
from ckpt_engine.retention import (
    KEEP_AGE,
    KEEP_ALL,
    KEEP_LAST_N,
    KEEP_MILESTONES,
    Candidate,
    KeepReason,
    RetentionPlan,
    RetentionPolicy,
    plan_retention,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def chain(n: int, thread: str = "t", *, start: int = 0) -> list[Candidate]:
    return [
        Candidate(f"{thread}{i}", thread, i, (f"{thread}{i - 1}",) if i > start else (), at(i))
        for i in range(start, start + n)
    ]


def kept(plan: RetentionPlan) -> set[str]:
    return set(plan.kept)


def test_keep_all_drops_nothing() -> None:
    plan = plan_retention(chain(9), KEEP_ALL, now=at(9))
    assert plan.drop == ()
    assert plan.counts == {KeepReason.LEAF: 1, KeepReason.POLICY: 8}


def test_the_last_n_are_those_of_each_thread_or_of_the_session() -> None:
    both = chain(6, "a") + chain(6, "b", start=10)
    per_thread = plan_retention(both, KEEP_LAST_N(2), now=at(20))
    assert kept(per_thread) == {"a4", "a5", "b14", "b15"}
    per_session = plan_retention(both, KEEP_LAST_N(3, per="session"), now=at(20))
    assert kept(per_session) == {"a5", "b13", "b14", "b15"}  # a5 is a leaf
    assert per_session.kept["a5"] is KeepReason.LEAF


def test_age_counts_from_now_and_includes_the_boundary() -> None:
    plan = plan_retention(chain(10), KEEP_AGE(timedelta(minutes=3)), now=at(10))
    assert kept(plan) == {"t7", "t8", "t9"}


def test_milestones_are_the_first_the_last_and_evenly_spread_between() -> None:
    plan = plan_retention(chain(101), KEEP_MILESTONES(5), now=at(0))
    assert kept(plan) == {"t0", "t25", "t50", "t75", "t100"}
    assert kept(plan_retention(chain(9), KEEP_MILESTONES(1), now=at(0))) == {"t8"}


def test_milestones_are_as_many_as_asked_where_steps_are_crowded() -> None:
    steps = [0, 1, 2, 3, 1000]
    line = [
        Candidate(f"t{s}", "t", s, (f"t{steps[n - 1]}",) if n else (), at(n))
        for n, s in enumerate(steps)
    ]
    assert len(plan_retention(line, KEEP_MILESTONES(4), now=at(0)).kept) == 4


def test_policies_combine() -> None:
    line, now = chain(101), at(100)
    either = KEEP_LAST_N(3) | KEEP_MILESTONES(3)
    assert kept(plan_retention(line, either, now=now)) == {"t0", "t50", "t98", "t99", "t100"}
    both = KEEP_LAST_N(3) & KEEP_AGE(timedelta(minutes=1))
    assert kept(plan_retention(line, both, now=now)) == {"t99", "t100"}


def test_each_reason_to_stay_is_named() -> None:
    line = chain(12)
    branch = Candidate("b", "branch", 4, ("t3",), at(13))
    plan = plan_retention(
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
    assert plan_retention([*line, rewound], KEEP_LAST_N(1), now=at(9)).kept == {
        "t1": KeepReason.BRANCH_POINT,
        "t3": KeepReason.LEAF,
        "r": KeepReason.LEAF,
    }
    tools = [Candidate(f"tool{n}", "t", 4 + n, ("t3",), at(4 + n)) for n in range(3)]
    join = Candidate("join", "t", 7, ("tool0", "tool1", "tool2"), at(7))
    assert kept(plan_retention([*line, *tools, join], KEEP_LAST_N(1), now=at(9))) == {"join"}


def test_other_threads_are_left_alone_when_one_is_named() -> None:
    both = chain(5, "a") + chain(5, "b", start=10)
    plan = plan_retention(both, KEEP_LAST_N(1), now=at(20), only_threads={"a"})
    assert plan.drop == ("a0", "a1", "a2", "a3")


def test_a_plan_is_a_value() -> None:
    first, second = (plan_retention(chain(9), KEEP_LAST_N(2), now=at(9)) for _ in range(2))
    assert first == second
    with pytest.raises(TypeError):
        first.kept["t0"] = KeepReason.HEAD  # type: ignore[index]


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
def sessions(draw: st.DrawFn) -> list[Candidate]:
    """One session of up to 20 checkpoints on up to three threads, with forks and joins."""
    found: dict[str, Candidate] = {}
    graph: dict[str, GraphNode] = {}
    for n in range(draw(st.integers(1, 20))):
        some = (
            draw(st.lists(st.sampled_from(list(found)), unique=True, min_size=1, max_size=3))
            if n
            else []
        )
        parents = nearest_kept(some, (), graph.__getitem__)  # no parent above another
        step = max((found[p].step for p in parents), default=-1) + 1
        name, thread = f"c{n:02}", draw(st.sampled_from("abc"))
        graph[name] = GraphNode(step, parents)
        found[name] = Candidate(name, thread, step, parents, at(n))
    return list(found.values())


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
    plan = plan_retention(session, policy, now=at(20), **protected)
    dropped = set(plan.drop)
    assert dropped | kept(plan) == {c.id for c in session}
    assert not dropped & kept(plan)
    assert not dropped & {i for some in protected.values() for i in some}
    assert not dropped & policy.kept(session, at(20))
    followed = {p for c in session for p in c.parents}
    assert dropped <= followed, "a leaf went"
    assert not dropped & crossed(session), "a branch point went"


@given(sessions(), policies)
def test_collecting_again_drops_nothing_more(
    session: list[Candidate], policy: RetentionPolicy
) -> None:
    origins = crossed(session)
    dropped = set(plan_retention(session, policy, now=at(20), origins=origins).drop)
    graph = {c.id: GraphNode(c.step, c.parents) for c in session}
    left = [
        c._replace(parents=nearest_kept(c.parents, dropped, graph.__getitem__))
        for c in session
        if c.id not in dropped
    ]
    assert plan_retention(left, policy, now=at(20), origins=origins).drop == ()
