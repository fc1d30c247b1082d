"""Snapshots and reading them back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from ..config import SnapshotConfig
from ..errors import (
    CheckpointNotFound,
    EngineClosed,
    InvalidRequest,
    NotInSession,
    ThreadNotFound,
    TooLarge,
    Unstorable,
)
from ..model import SnapshotTrigger, StepCommit, new_checkpoint_id
from ..retention import KEEP_LAST_N
from .contract_base import ContractBase, OpenEngine, contents, say

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["VerbContract"]

ODD_VALUES: list[Any] = [
    None,
    True,
    0,
    1.0,
    -0.0,
    float("nan"),
    float("inf"),
    2**63,
    -(10**60),
    "",
    "\ud800 alone",
    "nul \x00 inside",
    b"",
    bytes(range(256)),
    "x" * 10_000,
    [],
    {},
    {"": [{"b": 1, "a": 2}]},
    [[[1, [2.5, "x", b"y", None]]]],
]


class _Plan(BaseModel):
    name: str
    steps: list[int] = []


class _Failing:
    def committed(self, writes: int) -> None:
        raise ValueError("committed")

    def looked_up(self, *, hit: bool) -> None:
        raise ValueError("looked up")


def _nested(depth: int) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    return value


class VerbContract(ContractBase):
    """``snapshot``, ``snapshot_safe``, ``get``, ``get_latest``, lists and steps."""

    async def test_a_checkpoint_comes_back_whole(self, engine: CheckpointEngine) -> None:
        result = {"rows": [1, 2, {"deep": [None, b"\x00"]}], "text": "x" * 20_000}
        checkpoint_id = await engine.snapshot(
            "t",
            messages=[say("hello")],
            state={"plan": ["a", "b"], "n": 1},
            tools_result=result,
            trigger=SnapshotTrigger.TOOL_CALL,
            next_node="model",
            node="search",
            tags=["first"],
            summary="asked the database",
            metadata={"cost": 0.5},
        )
        assert checkpoint_id is not None
        found = await engine.get(checkpoint_id)
        assert found.messages == [say("hello")]
        assert found.state == {"plan": ["a", "b"], "n": 1}
        assert found.tools_result == result
        assert (found.id, found.thread_id, found.session_id) == (checkpoint_id, "t", "t")
        assert (found.step, found.parents) == (0, ())
        assert (found.trigger, found.node, found.next_node) == ("tool_call", "search", "model")
        assert (found.tags, found.summary) == (("first",), "asked the database")
        assert found.metadata["cost"] == 0.5
        assert found.message_count == 1
        info = await engine.get_info(checkpoint_id)
        assert (info.id, info.digest, info.message_count) == (found.id, found.digest, 1)

    async def test_parents_and_steps_link_by_themselves(self, engine: CheckpointEngine) -> None:
        ids = [await engine.snapshot("t", append=[say(str(n))]) for n in range(5)]
        found = [await engine.get(str(i)) for i in ids]
        assert [c.step for c in found] == [0, 1, 2, 3, 4]
        assert [c.parents for c in found] == [(), *((i,) for i in ids[:-1])]
        assert contents(found[-1]) == ["0", "1", "2", "3", "4"]
        assert (await engine.get_latest("t")).id == ids[-1]

    async def test_state_stays_unless_given(self, engine: CheckpointEngine) -> None:
        await engine.snapshot("t", state={"a": 1, "b": [1]})
        await engine.snapshot("t", append=[say("x")])
        assert (await engine.get_latest("t")).state == {"a": 1, "b": [1]}
        await engine.snapshot("t", state={"b": [1, 2]})
        assert (await engine.get_latest("t")).state == {"b": [1, 2]}
        await engine.snapshot("t", state={})
        assert (await engine.get_latest("t")).state == {}

    async def test_a_full_conversation_may_extend_edit_or_shorten_the_old_one(
        self, engine: CheckpointEngine
    ) -> None:
        logs = ["ab", "abc", "aBc", "a", "", "xyz", "xyz"]
        ids = [await engine.snapshot("t", messages=[say(m) for m in log]) for log in logs]
        for checkpoint_id, log in zip(ids, logs, strict=True):
            assert contents(await engine.get(str(checkpoint_id))) == list(log)

    async def test_a_conversation_may_be_shortened_again_and_again(
        self, engine: CheckpointEngine
    ) -> None:
        logs = ["abcdefgh", "aSefgh", "aSefghij", "aTgUhij", "aTgUhija", "Vhja", "jjVhjaW", "W"]
        texts = [[letter * 90 for letter in log] for log in logs]
        ids = [await engine.snapshot("t", messages=[say(m) for m in text]) for text in texts]
        for checkpoint_id, text in zip(ids, texts, strict=True):
            assert contents(await engine.get(str(checkpoint_id))) == text
        branch = await engine.branch(str(ids[3]), "b")
        await engine.snapshot(branch.id, append=[say("more")])
        await engine.collect(KEEP_LAST_N(1), thread_id="t")
        assert contents(await engine.get_latest("t")) == texts[-1]
        assert contents(await engine.get_latest(branch.id)) == [*texts[3], "more"]
        assert (await engine.verify()).ok

    async def test_messages_and_append_exclude_each_other(self, engine: CheckpointEngine) -> None:
        with pytest.raises(InvalidRequest):
            await engine.snapshot("t", messages=[say("a")], append=[say("b")])
        with pytest.raises(ThreadNotFound):
            await engine.get_latest("t")

    @pytest.mark.parametrize("value", ODD_VALUES, ids=lambda v: repr(v)[:20])
    async def test_odd_values_come_back_as_they_were(
        self, engine: CheckpointEngine, value: Any
    ) -> None:
        for _ in range(2):
            await engine.snapshot("t", append=[value], state={"k": value}, tools_result=value)
        found = await engine.get_latest("t")
        assert repr(found.messages) == repr([value, value])
        assert repr(found.state) == repr({"k": value})
        assert repr(found.tools_result) == repr(value)

    async def test_models_and_tuples_come_back_in_their_json_form(
        self, engine: CheckpointEngine
    ) -> None:
        plan = _Plan(name="p", steps=[1])
        await engine.snapshot("t", append=[plan], state={"p": plan}, tools_result=(plan, (1,)))
        found = await engine.get_latest("t")
        assert found.messages == [{"name": "p", "steps": [1]}]
        assert found.state == {"p": {"name": "p", "steps": [1]}}
        assert found.tools_result == [{"name": "p", "steps": [1]}, [1]]

    async def test_a_model_may_be_the_whole_state_and_metadata(
        self, engine: CheckpointEngine
    ) -> None:
        plan = _Plan(name="p", steps=[1])
        stored = {"name": "p", "steps": [1]}
        await engine.check_storable(state=plan)
        first = await engine.snapshot("t", append=[say("a")], state=plan, metadata=plan)
        plan.steps.append(2)  # what was given is what it was then
        found = await engine.get(str(first))
        assert (found.state, found.metadata) == (stored, stored)
        live: Any = lambda: plan  # noqa: E731
        async with engine.snapshot_scope("scope", state=live):
            plan.steps.append(3)
        assert (await engine.get_latest("scope")).state == {"name": "p", "steps": [1, 2, 3]}
        side = await engine.branch(str(first), "side")
        await engine.snapshot(side.id, append=[say("b")])
        merged = await engine.merge_branch(side.id, "t", metadata=plan)
        assert (await engine.get_info(merged.checkpoint_id)).metadata["name"] == "p"

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ({"state": {"a": {"b": [1, object()]}}}, r"a.*b.*1"),
            ({"append": [{"content": {1, 2}}]}, "content"),
            ({"tools_result": {"k": {3: "number as key"}}}, "k"),
            ({"tools_result": _nested(5000)}, r"^tools_result.{20,80}….{20,80}: nested"),
        ],
    )
    async def test_what_cannot_be_stored_is_refused_with_the_path_to_it(
        self, engine: CheckpointEngine, given: dict[str, Any], path: str
    ) -> None:
        await engine.snapshot("t", state={"fine": 1})
        with pytest.raises(Unstorable, match=path):
            await engine.snapshot("t", **given)
        assert await engine.snapshot_safe("t", **given) is None
        assert (await engine.get_latest("t")).step == 0
        assert (await engine.verify()).problems == ()

    async def test_deep_nesting_is_stored(self, engine: CheckpointEngine) -> None:
        await engine.snapshot("t", state={"deep": _nested(100)})
        assert (await engine.get_latest("t")).state == {"deep": _nested(100)}

    async def test_what_is_storable_is_what_a_snapshot_takes(
        self, engine: CheckpointEngine
    ) -> None:
        for depth in (255, 256, 257):
            for given in ({"messages": [_nested(depth)]}, {"state": {"deep": _nested(depth)}}):
                taken = await engine.snapshot_safe("t", **given)
                if taken is None:
                    with pytest.raises(Unstorable, match="nested deeper"):
                        await engine.check_storable(**given)
                else:
                    await engine.check_storable(**given)
        found = await engine.get_latest("t")
        assert (found.messages, found.state) == ([_nested(256)], {"deep": _nested(255)})
        with pytest.raises(Unstorable, match=r"^messages\[1\]\['k'\]: "):
            await engine.check_storable(messages=["fine", {"k": object()}])

    async def test_a_trigger_may_be_named_and_an_unknown_one_is_refused(
        self, engine: CheckpointEngine
    ) -> None:
        named: Any = "tool-call"
        await engine.snapshot("t", append=[say("a")], trigger=named)
        assert (await engine.get_latest("t")).trigger == SnapshotTrigger.TOOL_CALL
        assert len(await engine.list_time_travel_points("t", trigger=named)) == 1
        unknown: Any = "often"
        with pytest.raises(InvalidRequest, match="there are tool_call"):
            await engine.snapshot("t", trigger=unknown)
        with pytest.raises(InvalidRequest, match="there are tool_call"):
            await engine.list_time_travel_points("t", trigger=unknown)

    async def test_a_trigger_that_is_not_enabled_is_a_no_op_that_says_so(
        self, engine: CheckpointEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            taken = await engine.snapshot("t", trigger=SnapshotTrigger.TASK_BOUNDARY)
        assert taken is None
        assert "task_boundary" in caplog.text.lower()
        with pytest.raises(ThreadNotFound):
            await engine.get_latest("t")

    async def test_above_the_size_limit_nothing_is_stored_and_the_thread_goes_on(
        self, opened: OpenEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = await opened(SnapshotConfig(max_snapshot_size_mb=0.01))
        await engine.snapshot("t", append=[say("small")])
        with pytest.raises(TooLarge, match=r"0\.01"):
            await engine.snapshot("t", append=[say("x" * 20_000)])
        assert await engine.snapshot_safe("t", append=[say("x" * 20_000)]) is None
        assert caplog.records
        for given in (["x" * 20_000], "y" * 20_000, {"rows": ["z"] * 20_000}):
            with pytest.raises(TooLarge):  # however small it is when it is compressed
                await engine.snapshot("t", tools_result=given)
        with pytest.raises(TooLarge):
            await engine.snapshot("t", node="é" * 6_000)
        tags = [f"{n}{'x' * 900}" for n in range(12)]
        with pytest.raises(TooLarge):
            await engine.snapshot("t", tags=tags)
        head = (await engine.get_latest("t")).id
        step = StepCommit(
            checkpoint_id=new_checkpoint_id(), thread_id="t", step=1, parents=(head,), tags=tags
        )
        with pytest.raises(TooLarge):
            await engine.commit_step(step)
        await engine.snapshot("t", append=[say("small again")], node="é" * 3_000, tags=tags[:3])
        assert contents(await engine.get_latest("t")) == ["small", "small again"]

    @pytest.mark.parametrize("deltas", [True, False])
    async def test_states_read_back_with_deltas_and_without(
        self, opened: OpenEngine, deltas: bool
    ) -> None:
        engine = await opened(SnapshotConfig(delta_snapshots=deltas))
        states = [{"n": n, "same": "s" * 100, "list": list(range(n))} for n in range(70)]
        ids = [await engine.snapshot("t", state=state) for state in states]
        for checkpoint_id, state in zip(ids, states, strict=True):
            assert (await engine.get(str(checkpoint_id))).state == state

    async def test_declared_logs_grow_like_the_conversation(self, opened: OpenEngine) -> None:
        engine = await opened(SnapshotConfig(logs=("events",)))
        states: list[dict[str, Any]] = [{"events": list(range(n)), "n": n} for n in range(40)]
        states += [{"events": ["edited"], "n": 1}, {"n": 2}, {"events": ["anew"]}]
        ids = [await engine.snapshot("t", state=state) for state in states]
        for checkpoint_id, state in zip(ids, states, strict=True):
            assert (await engine.get(str(checkpoint_id))).state == state

    async def test_values_belong_to_whoever_holds_them(self, engine: CheckpointEngine) -> None:
        messages, state = [say("a")], {"list": [1]}
        await engine.snapshot("t", messages=messages, state=state)
        messages.append(say("later"))
        state["list"].append(2)
        first = await engine.get_latest("t")
        first.messages[0]["content"] = "spoilt"
        first.state["list"].append(3)
        again = await engine.get_latest("t")
        assert (again.messages, again.state) == ([say("a")], {"list": [1]})

    async def test_a_named_parent_starts_a_line_of_its_own(self, engine: CheckpointEngine) -> None:
        ids = [str(await engine.snapshot("t", append=[say(str(n))])) for n in range(4)]
        other = await engine.snapshot("t", append=[say("x")], parent_checkpoint_id=ids[1])
        found = await engine.get(str(other))
        assert (found.parents, found.step, contents(found)) == ((ids[1],), 2, ["0", "1", "x"])
        assert contents(await engine.get(ids[3])) == ["0", "1", "2", "3"]

    async def test_a_parent_must_exist_in_the_session(self, engine: CheckpointEngine) -> None:
        mine, other = [str(await engine.snapshot(t, append=[say(t)])) for t in ("mine", "other")]
        with pytest.raises(NotInSession):
            await engine.snapshot("mine", parent_checkpoint_id=other)
        with pytest.raises(CheckpointNotFound):
            await engine.snapshot("mine", parent_checkpoint_id="0" * 32)
        assert (await engine.get_latest("mine")).id == mine

    async def test_unknown_names_are_told_apart(self, engine: CheckpointEngine) -> None:
        with pytest.raises(CheckpointNotFound):
            await engine.get("0" * 32)
        with pytest.raises(InvalidRequest):
            await engine.get("not an id")
        with pytest.raises(ThreadNotFound, match="nobody"):
            await engine.get_latest("nobody")
        with pytest.raises(ThreadNotFound):
            await engine.list_time_travel_points("nobody")

    async def test_many_at_once_on_one_thread_lose_nothing(self, engine: CheckpointEngine) -> None:
        ids = await asyncio.gather(*(engine.snapshot("t", append=[say(str(n))]) for n in range(30)))
        assert len(set(ids)) == 30
        latest = await engine.get_latest("t")
        assert latest.step == 29
        assert sorted(map(int, contents(latest))) == list(range(30))
        assert (await engine.verify()).problems == ()

    async def test_points_are_listed_newest_first_and_by_page(
        self, engine: CheckpointEngine
    ) -> None:
        for n in range(10):
            trigger = SnapshotTrigger.TOOL_CALL if n % 3 == 0 else SnapshotTrigger.MANUAL
            tags = ["mark"] if n == 4 else []
            await engine.snapshot("t", append=[say(str(n))], trigger=trigger, tags=tags)
        points = engine.list_time_travel_points

        def steps(infos: Any) -> list[int]:
            return [info.step for info in infos]

        assert steps(await points("t")) == list(range(9, -1, -1))
        assert steps(await points("t", limit=3)) == [9, 8, 7]
        assert steps(await points("t", limit=3, before=7)) == [6, 5, 4]
        assert steps(await points("t", trigger=SnapshotTrigger.TOOL_CALL)) == [9, 6, 3, 0]
        assert steps(await points("t", tag="mark")) == [4]
        assert all(info.summary for info in await points("t"))

    async def test_a_list_says_what_happened_and_what_is_special(
        self, engine: CheckpointEngine
    ) -> None:
        first = await engine.snapshot("t", append=[say("hello"), say("hi", "assistant")])
        call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
        await engine.snapshot("t", append=[call], node="model")
        await engine.snapshot("t", node="f", tools_result={"rows": 3})
        await engine.snapshot("t", node="g", state={"n": 1})
        await engine.snapshot("t", messages=[say("anew " * 2000)])
        await engine.snapshot("t", append=[say("x")], summary="as I say")
        with pytest.raises(ValueError, match="no"):
            async with engine.snapshot_scope("t", name="work"):
                raise ValueError("no")
        branch = await engine.branch(str(first), "side")
        await engine.snapshot(branch.id, append=[say("other")])
        await engine.merge_branch(branch.id, "t")
        listed = await engine.list_time_travel_points("t")
        points = [point for point in listed[::-1] if point.thread_id == "t"]
        lines = [point.summary for point in points]
        assert lines[:4] == [
            "assistant: hi (+1)",
            "assistant calls f()",
            'f: {"rows": 3}',
            "g: n = 1",
        ]
        assert lines[4].startswith("conversation replaced (1): user: anew anew")
        assert (lines[4][-1], len(lines[4])) == ("…", 127)
        assert lines[5:7] == ["as I say", "work: enter"]
        assert lines[7:] == ["work: ValueError: no", "merge of side"]
        labels = {point.step: point.labels for point in points if point.labels}
        assert labels == {4: ("edited",), 7: ("error",), 8: ("joined",)}
        whole = [await engine.get(point.id) for point in points]
        assert [(w.summary, w.labels) for w in whole] == [(p.summary, p.labels) for p in points]

    async def test_a_list_says_what_changed_in_the_state(self, engine: CheckpointEngine) -> None:
        plan = ["look it up", "compare what was found", "write it down"]
        for state in (
            {"budget": 3, "mood": "good"},
            {"budget": 2, "mood": "good", "plan": plan},
            {"budget": 2, "plan": [*plan, "send it"], "draft": "word " * 2000},
            {"budget": 2, "plan": [*plan, "send it"], "draft": "word " * 2000},
        ):
            await engine.snapshot("t", state=state)
        await engine.snapshot("t", append=[say("hello")], state={})
        listed = await engine.list_time_travel_points("t")
        assert [point.summary for point in listed[::-1]] == [
            "state: budget = 3, mood = good",
            "state: budget = 2, plan",
            "state: plan, draft, no mood",
            "manual",
            "user: hello",
        ]

    async def test_a_list_can_be_printed_whatever_it_is_about(
        self, engine: CheckpointEngine
    ) -> None:
        odd = "\x1b[31mred\x1b[0m\x00\n\u2028 \ud800"
        await engine.snapshot("t", append=[""])
        await engine.snapshot("t", append=[say(odd, odd)])
        await engine.snapshot("t", tools_result="", node="a\nb\x1b[2J")
        await engine.snapshot("t", tools_result=odd)
        await engine.snapshot("t", state={"": 1, "a\nb\x07": odd})
        await engine.snapshot("t", state={"k": b"raw"})
        await engine.snapshot("t", node="a\nb\x07")
        listed = await engine.list_time_travel_points("t")
        assert [point.summary for point in listed[::-1]] == [
            '""',
            "\ufffdred\ufffd\ufffd \ufffd: \ufffdred\ufffd\ufffd \ufffd",
            'a b\ufffd: ""',
            "\ufffdred\ufffd\ufffd \ufffd",
            'state: "" = 1, a b\ufffd = \ufffdred\ufffd\ufffd \ufffd',
            'state: k = 3 bytes, no "", no a b\ufffd',
            "a b\ufffd",
        ]

    async def test_a_step_is_found_at_or_before(self, engine: CheckpointEngine) -> None:
        ids = [str(await engine.snapshot("t", append=[say(str(n))])) for n in range(4)]
        branch = await engine.branch(ids[1], "side")
        await engine.snapshot(branch.id, append=[say("side")])
        assert (await engine.time_travel_to_step("t", 2)).id == ids[2]
        assert (await engine.time_travel_to_step("t", 99)).id == ids[3]
        assert (await engine.time_travel_to_step(branch.id, 1)).id == ids[1]
        assert contents(await engine.time_travel_to_step(branch.id, 3)) == ["0", "1", "side"]
        with pytest.raises(CheckpointNotFound):
            await engine.time_travel_to_step("t", -1)
        with pytest.raises(CheckpointNotFound):
            await engine.frontier_at("t", -(2**63))
        with pytest.raises(InvalidRequest):
            await engine.frontier_at("t", -(2**63) - 1)

    async def test_the_steps_of_what_was_merged_are_not_those_of_the_line(
        self, engine: CheckpointEngine
    ) -> None:
        main = [str(await engine.snapshot("t", append=[say(f"m{n}")])) for n in range(3)]
        branch = await engine.branch(main[0], "side")
        side = [str(await engine.snapshot(branch.id, append=[say(f"b{n}")])) for n in range(5)]
        await engine.merge_branch(branch.id, "t")
        line = [*main, main[2], main[2], main[2], (await engine.get_latest("t")).id]
        for step, expected in enumerate([*line, line[-1]]):
            assert (await engine.time_travel_to_step("t", step)).id == expected
        for step, expected in enumerate([main[0], *side]):
            assert (await engine.time_travel_to_step(branch.id, step)).id == expected
        await engine.snapshot("t", append=[say("after")])
        assert contents(await engine.time_travel_to_step("t", 5)) == ["m0", "m1", "m2"]
        await engine.collect(KEEP_LAST_N(1), thread_id="t")
        assert (await engine.time_travel_to_step("t", 6)).id == main[0]

    async def test_ids_can_be_shortened(self, engine: CheckpointEngine) -> None:
        ids = [str(await engine.snapshot("t")) for _ in range(3)]
        assert (await engine.resolve(ids[1])).id == ids[1]
        assert (await engine.resolve(ids[1][:12])).id == ids[1]
        with pytest.raises(InvalidRequest):
            await engine.resolve(ids[1][:3])
        with pytest.raises(CheckpointNotFound):
            await engine.resolve("f" * 31 + "0")

    async def test_steps_ids_and_heads_survive_a_restart(self, opened: OpenEngine) -> None:
        if not self.durable:
            pytest.skip("nothing is kept")
        first = await opened()
        ids = [await first.snapshot("t", append=[say(str(n))], state={"n": n}) for n in range(3)]
        await first.close()
        second = await opened()
        assert (await second.get_latest("t")).state == {"n": 2}
        ids.append(await second.snapshot("t", append=[say("3")]))
        found = [await second.get(str(i)) for i in ids]
        assert [c.step for c in found] == [0, 1, 2, 3]
        assert contents(found[-1]) == ["0", "1", "2", "3"]
        assert found[-1].parents == (ids[2],)

    async def test_two_engines_share_a_thread(self, opened: OpenEngine) -> None:
        if not self.durable:
            pytest.skip("nothing is shared")
        both = [await opened(), await opened()]
        ids = await asyncio.gather(
            *(both[n % 2].snapshot("t", append=[say(str(n))]) for n in range(20))
        )
        latest = await both[0].get_latest("t")
        assert latest.step == 19
        assert len({info.id for info in await both[1].path(latest.id)} & set(ids)) == 20

    @pytest.mark.parametrize("step", [False, True])
    async def test_content_is_that_of_the_call_whatever_becomes_of_it_meanwhile(
        self, opened: OpenEngine, step: bool
    ) -> None:
        first = await opened()
        root = await first.snapshot("t", state={"n": 0})
        engine = await opened(SnapshotConfig(logs=("events",)))  # which remembers nothing
        if await engine.find_committed(str(root)) is None:
            root = await engine.snapshot("t", state={"n": 0})  # nothing is shared
        messages: list[Any] = [{"n": n} for n in range(20_000)]
        state: dict[str, Any] = {"events": [[n] for n in range(20_000)], "n": 20_000}
        metadata: dict[str, Any] = {"n": [20_000]}
        given: dict[str, Any] = {"messages": messages, "state": state, "metadata": metadata}
        taken = new_checkpoint_id()
        commit = StepCommit(
            checkpoint_id=taken, thread_id="t", step=1, parents=(str(root),), **given
        )
        work = engine.commit_step(commit) if step else engine.snapshot("t", **given)
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        messages[-1]["n"] = state["n"] = metadata["n"][0] = "later"
        state["events"].clear()
        state.update({f"key {n}": n for n in range(100)})
        await task
        found = await engine.get_latest("t")
        assert found.messages == [{"n": n} for n in range(20_000)]
        assert found.state == {"events": [[n] for n in range(20_000)], "n": 20_000}
        assert found.metadata["n"] == [20_000]
        assert (await engine.verify()).problems == ()

    async def test_also_where_another_snapshot_of_the_thread_was_first(
        self, engine: CheckpointEngine
    ) -> None:
        await engine.snapshot("t", append=["begin"])
        messages, state, rows = ["b"], {"k": [1]}, [1]
        both = (
            asyncio.ensure_future(engine.snapshot("t", append=["a"])),
            asyncio.ensure_future(
                engine.snapshot(
                    "t", append=messages, state=state, tools_result=rows, metadata={"rows": rows}
                )
            ),
        )
        await asyncio.sleep(0)
        messages.append("later")
        state["k"].append(2)
        rows.append(2)
        await asyncio.gather(*both)
        found = await engine.get_latest("t")
        assert (found.messages, found.state) == (["begin", "a", "b"], {"k": [1]})
        assert (found.tools_result, found.metadata["rows"]) == ([1], [1])

    async def test_what_contains_itself_twice_is_refused(self, engine: CheckpointEngine) -> None:
        tree: dict[str, Any] = {"children": []}
        tree["children"] += [{"parent": tree}, {"parent": tree}]
        for known in (False, True):
            for append in ([tree], [*range(2001), tree]):
                with pytest.raises(Unstorable, match="contains itself"):
                    await engine.snapshot("t", append=append)
            if not known:
                await engine.snapshot("t")

    async def test_what_an_observer_raises_is_logged_and_hinders_nobody(
        self, engine: CheckpointEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine.observe(_Failing())
        for n in range(20):  # by themselves, and where the store allows it in place
            await engine.snapshot("t", append=[n])
        await asyncio.gather(*(engine.snapshot("t", append=["at once"]) for _ in range(4)))
        engine.observe(None)
        assert len((await engine.get_latest("t")).messages) == 24
        logged = {str(record.exc_info[1]) for record in caplog.records if record.exc_info}
        assert logged == {"committed", "looked up"}
        caplog.clear()

    async def test_a_closed_engine_says_so(self, opened: OpenEngine) -> None:
        engine = await opened()
        await engine.close()
        await engine.close()
        with pytest.raises(EngineClosed):
            await engine.snapshot("t")
        assert await engine.snapshot_safe("t") is None

    async def test_a_checkpoint_says_the_schema_version_of_its_content(
        self, opened: OpenEngine
    ) -> None:
        engine = await opened(SnapshotConfig(schema_version=2))
        first = await engine.snapshot("t", append=["a"], metadata={"cost": 1})
        assert (await engine.get(str(first))).metadata == {"cost": 1, "schema": 2}
        branch = await engine.branch(str(first), "side")
        await engine.snapshot(branch.id, append=["b"])
        merged = await engine.merge_branch(branch.id, "t")
        assert (await engine.get(merged.checkpoint_id)).metadata["schema"] == 2

    async def test_what_goes_on_from_older_content_is_of_its_schema_version(
        self, opened: OpenEngine
    ) -> None:
        if not self.durable:
            pytest.skip("nothing is older than the engine")
        old = await opened()
        first = await old.snapshot("t", append=["a"], state={"n": 1})
        engine = await opened(SnapshotConfig(schema_version=2))
        grown = await engine.snapshot("t", append=["b"], state={"n": 2})
        whole = await engine.snapshot("t", messages=["A"], state={"n": 3})
        branch = await engine.branch(str(grown), "older")
        await engine.snapshot(branch.id, append=["c"])
        merged = await engine.merge_branch(branch.id, "t", strategy="ours")
        made = [str(one) for one in (first, grown, whole, merged.checkpoint_id)]
        found = [(await engine.get(one)).metadata.get("schema") for one in made]
        assert found == [None, None, 2, None]
