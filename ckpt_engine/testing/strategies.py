"""Hypothesis strategies for what an agent hands to the engine."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["messages", "state_values", "states", "stored_values"]

_text = st.text(max_size=8) | st.sampled_from(
    ["\ud800", "\x00", "é" * 5000, "same long text " * 400]
)
_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, -(2**64) - 1, 10**40, float("nan"), float("-inf"), -0.0])
)

stored_values = st.recursive(
    st.none() | st.booleans() | _numbers | _text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=5,
)
"""Anything that can be stored and comes back equal: JSON values of every odd kind, and bytes."""

messages = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": _text},
        optional={"tool_calls": st.lists(stored_values, max_size=2)},
    ),
    st.sampled_from([{"role": "user", "content": "yes"}, {"role": "assistant", "content": "ok"}]),
    st.sampled_from([{"role": "tool", "content": letter * 90} for letter in "abc"]),
    stored_values,
)
"""Messages, some of them often the same, some long enough to be pointed at."""

state_values = stored_values
"""Values of state keys."""

states = st.dictionaries(st.sampled_from(["plan", "todo", "budget", "notes"]), state_values)
"""States over a few keys, so that sides of a merge meet in them."""
