"""Three-way merge: logs in order without duplicates, state by key, conflicts as values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_engine.errors import InvalidRequest
from ckpt_engine.graph import GraphNode
from ckpt_engine.merge import (
    MISSING,
    Content,
    JoinedBase,
    MergeConflict,
    base_ids,
    find_base,
    identity,
    merge_content,
    merge_logs,
    merge_state,
    resolve_base,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
logs = st.lists(st.sampled_from("abcdef"), max_size=6)
states = st.dictionaries(st.sampled_from("wxyz"), st.integers(0, 2), max_size=4)


def test_additions_follow_ours_in_order() -> None:
    assert merge_logs("ab", "abcd", "abef") == (list("abcdef"), False)


def test_what_both_sides_added_alike_is_there_once() -> None:
    assert merge_logs(["a"], ["a", "yes", "b"], ["a", "yes", "c"]) == (
        ["a", "yes", "b", "c"],
        False,
    )


def test_an_equal_message_inside_different_exchanges_is_kept() -> None:
    ours = ["hello", "book it?", "yes", "booked"]
    theirs = ["hello", "cancel it?", "yes", "cancelled"]
    merged, _ = merge_logs(["hello"], ours, theirs)
    assert merged == [*ours, *theirs[1:]]


def test_repeats_of_a_message_count() -> None:
    assert merge_logs(["go"], ["go", "x"], ["go", "go", "go"]) == (["go", "x", "go", "go"], False)


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        ("abco", "aBc", "aBco"),
        ("abco", "aBct", "aBcot"),
        ("aBc", "abct", "aBct"),
        ("abco", "ac", "aco"),
        ("abco", "S", "So"),
        ("abco", "abXct", "abXcot"),
        ("aBco", "aBct", "aBcot"),
    ],
)
def test_an_edit_on_one_side_is_kept_and_additions_follow(
    ours: str, theirs: str, merged: str
) -> None:
    assert merge_logs("abc", ours, theirs) == (list(merged), False)


def test_two_different_edits_of_the_past_are_a_conflict() -> None:
    base, ours, theirs = (Content(list(log)) for log in ("abc", "aXc", "aYc"))
    merged = merge_content(base, ours, theirs)
    assert merged.messages == list("aXc")
    (conflict,) = merged.conflicts
    assert (conflict.kind, conflict.key) == ("messages", "messages")
    assert (conflict.base, conflict.ours, conflict.theirs) == (
        list("abc"),
        list("aXc"),
        list("aYc"),
    )
    assert merge_content(base, ours, theirs, strategy="theirs").messages == list("aYc")
    settled = merge_content(base, ours, theirs, strategy="ours")
    assert (settled.messages, settled.conflicts) == (list("aXc"), ())


@pytest.mark.parametrize(("ours", "theirs"), [("abXc", "aBc"), ("aBc", "abXc"), ("ac", "ab")])
def test_no_edit_of_the_past_wins_silently_over_another(ours: str, theirs: str) -> None:
    assert merge_logs("abc", ours, theirs) == (list(ours), True)


@given(logs, logs, logs)
def test_every_addition_of_both_sides_arrives(base: list[str], o: list[str], t: list[str]) -> None:
    merged, disputed = merge_logs(base, base + o, base + t)
    assert not disputed
    assert merged[: len(base + o)] == base + o
    common = 0
    while common < min(len(o), len(t)) and o[common] == t[common]:
        common += 1
    assert merged[len(base + o) :] == t[common:]


@given(logs, logs)
def test_a_side_that_changed_nothing_takes_the_other_as_it_is(
    base: list[str], other: list[str]
) -> None:
    assert merge_logs(base, base, other) == (other, False)
    assert merge_logs(base, other, base) == (other, False)


@given(logs, logs, logs)
def test_merging_the_same_again_changes_nothing(
    base: list[str], ours: list[str], theirs: list[str]
) -> None:
    merged, disputed = merge_logs(base, ours, theirs)
    if not disputed:
        assert merge_logs(theirs, merged, theirs) == (merged, False)


def test_state_is_merged_key_by_key_and_conflicts_are_values() -> None:
    base = {"same": 1, "ours": 1, "theirs": 1, "both": 1, "gone": 1, "fought": 1}
    ours = {"same": 1, "ours": 2, "theirs": 1, "both": 3, "fought": 1, "new": "o", "clash": 1}
    theirs = {"same": 1, "ours": 1, "theirs": 2, "both": 3, "gone": 2, "clash": 2}
    merged, conflicts = merge_state(base, ours, theirs)
    assert merged == {"same": 1, "ours": 2, "theirs": 2, "both": 3, "new": "o", "clash": 1}
    assert conflicts == [
        MergeConflict(kind="state", key="clash", base=MISSING, ours=1, theirs=2),
        MergeConflict(kind="state", key="gone", base=1, ours=MISSING, theirs=2),
    ]


def test_a_strategy_settles_each_conflict_even_where_a_side_has_no_value() -> None:
    base, ours, theirs = Content(state={"k": 1}), Content(state={"k": 2}), Content()
    assert merge_content(base, ours, theirs, strategy="ours").state == {"k": 2}
    assert merge_content(base, ours, theirs, strategy="theirs").state == {}
    assert merge_content(base, theirs, ours, strategy="theirs").state == {"k": 2}
    with pytest.raises(InvalidRequest, match="mine"):
        merge_content(base, ours, theirs, strategy="mine")  # type: ignore[arg-type]


def test_a_reducer_sees_base_ours_and_theirs_of_what_both_changed() -> None:
    reducers = {"n": lambda b, o, t: o + t - (b or 0), "s": lambda b, o, t: sorted({*o, *t})}
    base = Content(state={"n": 1, "one": 0})
    ours = Content(state={"n": 3, "s": ["a"], "one": 0})
    theirs = Content(state={"n": 3, "s": ["b"], "one": 5})
    merged = merge_content(base, ours, theirs, reducers=reducers)
    assert merged.state == {"n": 5, "s": ["a", "b"], "one": 5}
    assert merged.conflicts == ()
    dropped = merge_content(base, ours, theirs, reducers={**reducers, "n": lambda *_: MISSING})
    assert "n" not in dropped.state


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_a_log_that_one_side_took_out_and_the_other_changed_conflicts(which: str) -> None:
    base, changed = {"log": ["a"]}, {"log": ["a", "b"]}
    ours, theirs = (changed, {}) if which == "theirs" else ({}, changed)
    merged, (conflict,) = merge_state(base, ours, theirs, logs={"log"})
    assert merged == ours
    assert (conflict.key, conflict.base) == ("log", ["a"])
    assert getattr(conflict, which) is MISSING
    assert merge_state(base, base, {}, logs={"log"}) == ({}, [])


def test_what_the_sides_of_a_criss_cross_disagree_about_conflicts_again() -> None:
    """Each side has merged the other and settled it its own way."""
    contents = {
        "base": Content(["q"], {"log": ["q"]}),
        "one": Content(["A"], {"log": ["A"]}),
        "two": Content(["B"], {"log": ["B"]}),
    }
    base = resolve_base(JoinedBase("base", "one", "two"), contents, logs={"log"})
    ours, theirs = contents["one"], contents["two"]
    merged = merge_content(base, ours, theirs, logs={"log"})
    assert [(c.key, c.base) for c in merged.conflicts] == [("messages", MISSING), ("log", MISSING)]
    settled = [Content([*log], {"log": [*log]}) for log in ("So", "St")]
    merged = merge_content(base, *settled, logs={"log"})
    assert (merged.messages, merged.state["log"], merged.conflicts) == (
        ["S", "o", "t"],
        ["S", "o", "t"],
        (),
    )
    seen: list[Any] = []
    merge_content(base, ours, theirs, logs={"log"}, reducers={"log": lambda *v: seen.append(v)})
    assert seen == [(None, ["A"], ["B"])]


def test_declared_logs_are_joined_and_other_lists_conflict() -> None:
    base, ours, theirs = (
        {"log": [1], "l": [1]},
        {"log": [1, 2], "l": [2]},
        {"log": [1, 3], "l": [3]},
    )
    merged, conflicts = merge_state(base, ours, theirs, logs={"log"})
    assert merged["log"] == [1, 2, 3]
    assert [c.key for c in conflicts] == ["l"]


@pytest.mark.parametrize(
    "pair", [(1, True), (1, 1.0), (0.0, -0.0), ("1", 1), ("a", b"a"), ([], {})]
)
def test_values_that_python_calls_equal_or_prints_alike_are_told_apart(
    pair: tuple[Any, Any],
) -> None:
    a, b = pair
    assert identity(a) != identity(b)
    merged, conflicts = merge_state({"k": a}, {"k": b}, {"k": a})
    assert identity(merged["k"]) == identity(b)
    assert not conflicts


@given(json_values)
def test_a_value_is_identical_to_itself(value: Any) -> None:
    assert identity(value) == identity(value)
    assert merge_state({}, {"k": value}, {"k": value})[1] == []


@given(states, states, states)
def test_swapping_the_sides_swaps_the_conflicts(
    base: dict[str, int], ours: dict[str, int], theirs: dict[str, int]
) -> None:
    merged, conflicts = merge_state(base, ours, theirs)
    swapped, mirrored = merge_state(base, theirs, ours)
    assert [(c.key, c.ours, c.theirs) for c in conflicts] == [
        (c.key, c.theirs, c.ours) for c in mirrored
    ]
    fought = {c.key for c in conflicts}
    assert {k: v for k, v in merged.items() if k not in fought} == {
        k: v for k, v in swapped.items() if k not in fought
    }


CRISS_CROSS = {
    "root": GraphNode(0, ()),
    "a": GraphNode(1, ("root",)),
    "b": GraphNode(1, ("root",)),
    "ab": GraphNode(2, ("a", "b")),
    "ba": GraphNode(2, ("b", "a")),
    "ours": GraphNode(3, ("ab",)),
    "theirs": GraphNode(3, ("ba",)),
}


def criss_cross(ours: Content, theirs: Content, contents: dict[str, Content]) -> Any:
    base = find_base(["ours"], ["theirs"], CRISS_CROSS.__getitem__)
    assert base_ids(base) == {"root", "a", "b"}
    return merge_content(resolve_base(base, contents), ours, theirs)


def test_a_plain_base_is_its_checkpoint() -> None:
    assert find_base(["a"], ["b"], CRISS_CROSS.__getitem__) == "root"
    assert isinstance(find_base(["ab"], ["ba"], CRISS_CROSS.__getitem__), JoinedBase)
    assert find_base([], ["a"], CRISS_CROSS.__getitem__) is None
    assert resolve_base(None, {}) == Content()


def test_a_criss_cross_joins_each_message_once_and_knows_what_changed_since() -> None:
    contents = {
        "root": Content("r", {"x": 0, "y": 0}),
        "a": Content("ra", {"x": 1, "y": 0}),
        "b": Content("rb", {"x": 0, "y": 1}),
    }
    ours = Content("rabO", {"x": 1, "y": 1})
    theirs = Content("rbaT", {"x": 1, "y": 2})
    merged = criss_cross(ours, theirs, contents)
    assert "".join(merged.messages) == "rabOT"
    assert merged.state == {"x": 1, "y": 2}
    assert merged.conflicts == ()


@pytest.mark.parametrize("order", ["rab", "rba"])
def test_the_order_of_a_joined_base_does_not_show(order: str) -> None:
    base = Content(order, ordered=False)
    merged = merge_content(base, Content("rab"), Content("rbac"))
    assert "".join(merged.messages) == "rabc"


def test_moving_a_message_is_an_edit() -> None:
    assert merge_logs("abc", "abcO", "acbT") == (list("acbOT"), False)
    assert merge_logs("abc", "bac", "acb") == (list("bac"), True)


def test_what_the_bases_of_a_criss_cross_dispute_conflicts_unless_settled_alike() -> None:
    contents = {
        "root": Content("r", {"x": 0}),
        "a": Content("ra", {"x": 1}),
        "b": Content("rb", {"x": 2}),
    }
    again = criss_cross(Content("rab", {"x": 1}), Content("rba", {"x": 2}), contents)
    assert again.conflicts == (
        MergeConflict(kind="state", key="x", base=MISSING, ours=1, theirs=2),
    )
    alike = criss_cross(Content("rab", {"x": 1}), Content("rba", {"x": 1}), contents)
    assert (alike.state, alike.conflicts) == ({"x": 1}, ())
