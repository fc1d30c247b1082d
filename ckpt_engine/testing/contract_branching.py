"""Rewind, undo, branch, merge, tags, tree and diff."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import (
    CheckpointNotFound,
    Conflict,
    InvalidRequest,
    MergeConflictError,
    NameTaken,
    NotInSession,
)
from ..merge import MISSING, MergeConflict
from .contract_base import ContractBase, OpenEngine, contents, say

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["BranchingContract"]


async def _said(engine: CheckpointEngine, thread: str, *texts: str, **given: Any) -> list[str]:
    """Append each text in a checkpoint of its own; return the ids."""
    return [str(await engine.snapshot(thread, append=[say(text)], **given)) for text in texts]


class BranchingContract(ContractBase):
    """Everything that moves a head or joins lines."""

    async def test_a_rewind_moves_the_head_and_deletes_nothing(
        self, engine: CheckpointEngine
    ) -> None:
        ids = await _said(engine, "t", *"abcd", next_node="model")
        before = [await engine.get(i) for i in ids]
        result = await engine.rewind(ids[1])
        assert result.checkpoint == before[1]
        assert (result.thread_id, result.rewind_depth) == ("t", 2)
        assert (result.snapshot_count_before, result.can_replay) == (4, True)
        assert (await engine.get_latest("t")).id == ids[1]
        assert [await engine.get(i) for i in ids] == before
        (other,) = await _said(engine, "t", "x")
        assert contents(await engine.get(other)) == ["a", "b", "x"]
        assert contents(await engine.get(ids[3])) == list("abcd")
        assert len({info.id for info in await engine.list_time_travel_points("t")}) == 3

    async def test_undo_takes_rewinds_back_one_by_one(self, engine: CheckpointEngine) -> None:
        ids = await _said(engine, "t", *"abcd")
        await engine.rewind(ids[2])
        await engine.rewind(ids[0])
        assert (await engine.undo("t")).checkpoint.id == ids[2]
        assert (await engine.undo("t")).checkpoint.id == ids[3]
        assert (await engine.get_latest("t")).id == ids[3]
        with pytest.raises(InvalidRequest):
            await engine.undo("t")

    async def test_undo_survives_work_after_the_rewind(self, engine: CheckpointEngine) -> None:
        ids = await _said(engine, "t", *"abc")
        await engine.rewind(ids[0])
        (new,) = await _said(engine, "t", "x")
        assert (await engine.undo("t")).checkpoint.id == ids[2]
        assert contents(await engine.get(new)) == ["a", "x"]

    async def test_a_head_is_moved_by_compare_and_set(self, engine: CheckpointEngine) -> None:
        ids = await _said(engine, "t", *"abc")
        with pytest.raises(Conflict):
            await engine.rewind(ids[0], expected_head=ids[1])
        assert (await engine.get_latest("t")).id == ids[2]
        await engine.rewind(ids[0], expected_head=ids[2])
        assert (await engine.get_latest("t")).id == ids[0]

    async def test_of_two_moves_that_expect_the_same_head_one_wins(
        self, engine: CheckpointEngine
    ) -> None:
        ids = await _said(engine, "t", *"abc")
        moves = (engine.rewind(i, expected_head=ids[2]) for i in ids[:2])
        results = await asyncio.gather(*moves, return_exceptions=True)
        assert sorted(type(r).__name__ for r in results) == ["Conflict", "TimeTravelResult"]

    async def test_a_snapshot_that_expects_a_head_goes_on_from_that_or_not_at_all(
        self, opened: OpenEngine
    ) -> None:
        engine, other = await opened(), await opened()
        ids = await _said(engine, "t", *"ab")
        work = (engine.snapshot("t", append=[say(c)], expected_head=ids[1]) for c in "xy")
        results = await asyncio.gather(*work, return_exceptions=True)
        assert sorted(type(r).__name__ for r in results) == ["Conflict", "str"]
        head = (await engine.get_latest("t")).id
        if self.durable:
            await other.snapshot("t", append=[say("o")], expected_head=head)
            head = (await other.get_latest("t")).id
        with pytest.raises(Conflict):
            await engine.snapshot("t", append=[say("z")], expected_head=ids[1])
        await engine.snapshot("t", append=[say("w")], expected_head=head)
        with pytest.raises(Conflict):
            await engine.snapshot("t", append=[say("v")], expected_head=None)
        await engine.snapshot("new", append=[say("a")], expected_head=None)
        with pytest.raises(InvalidRequest):
            await engine.snapshot("t", parent_checkpoint_id=head, expected_head=head)
        assert (await engine.verify()).problems == ()

    async def test_a_rewind_stays_in_its_session(self, engine: CheckpointEngine) -> None:
        (mine,), (other,) = await _said(engine, "mine", "a"), await _said(engine, "other", "b")
        with pytest.raises(NotInSession):
            await engine.rewind(other, thread_id="mine")
        with pytest.raises(CheckpointNotFound):
            await engine.rewind("0" * 32)
        assert (await engine.get_latest("mine")).id == mine

    async def test_a_branch_goes_on_where_it_left_and_the_origin_goes_on_too(
        self, engine: CheckpointEngine
    ) -> None:
        await engine.snapshot("t", append=[say("a")], state={"k": 1}, next_node="tools")
        origin = await engine.get_latest("t")
        branch = await engine.branch(origin.id, "side")
        assert (branch.session_id, branch.branch) == ("t", "side")
        assert (branch.origin, branch.head) == (origin.id, origin.id)
        seen = await engine.get_latest(branch.id)
        assert (seen.messages, seen.state, seen.next_node) == ([say("a")], {"k": 1}, "tools")
        (side,), (main,) = await _said(engine, branch.id, "s"), await _said(engine, "t", "m")
        assert contents(await engine.get(side)) == ["a", "s"]
        assert contents(await engine.get(main)) == ["a", "m"]
        assert (await engine.get(side)).parents == (origin.id,)
        assert (await engine.get(side)).step == origin.step + 1

    async def test_branches_nest(self, engine: CheckpointEngine) -> None:
        current = "t"
        for depth in range(12):
            await _said(engine, current, str(depth))
            head = await engine.get_latest(current)
            await _said(engine, current, "noise")
            current = (await engine.branch(head.id, f"level {depth}")).id
        assert contents(await engine.get_latest(current)) == [str(n) for n in range(12)]
        threads = await engine.list_threads("t")
        assert [t.branch for t in threads] == ["main", *(f"level {n}" for n in range(12))]

    async def test_a_name_is_unique_in_its_session(self, engine: CheckpointEngine) -> None:
        (a,), (b,) = await _said(engine, "t", "a"), await _said(engine, "u", "b")
        await engine.branch(a, "side")
        with pytest.raises(NameTaken, match="side"):
            await engine.branch(a, "side")
        with pytest.raises(NameTaken):
            await engine.branch(a, "main")
        await engine.branch(b, "side")
        with pytest.raises(CheckpointNotFound):
            await engine.branch("0" * 32, "lost")

    async def test_a_branch_can_be_asked_for_again(self, engine: CheckpointEngine) -> None:
        (a,) = await _said(engine, "t", "a")
        first = await engine.branch(a, "side", thread_id="t-side")
        assert await engine.branch(a, "side", thread_id="t-side") == first
        (b,) = await _said(engine, "t", "b")
        with pytest.raises(NameTaken):
            await engine.branch(b, "side", thread_id="t-side")
        with pytest.raises(NameTaken):
            await engine.branch(b, "other", thread_id="t-side")

    async def test_a_merge_appends_and_has_both_parents(self, engine: CheckpointEngine) -> None:
        (root,) = await _said(engine, "t", "root", state={"n": 0, "m": 0})
        side = (await engine.branch(root, "side")).id
        (theirs,) = await _said(engine, side, "s", state={"n": 0, "m": 5})
        (ours,) = await _said(engine, "t", "o", state={"n": 1, "m": 0})
        result = await engine.merge_branch(side, "t")
        merged = await engine.get_latest("t")
        assert result.checkpoint_id == merged.id
        assert merged.parents == (ours, theirs)
        assert contents(merged) == ["root", "o", "s"]
        assert merged.state == {"n": 1, "m": 5}
        again = await engine.merge_branch(side, "t")
        assert (again.checkpoint_id, (await engine.get_latest("t")).id) == (merged.id, merged.id)
        await _said(engine, side, "s2")
        await engine.merge_branch(side, "t")
        assert contents(await engine.get_latest("t")) == ["root", "o", "s", "s2"]

    async def test_conflicts_come_back_as_values(self, engine: CheckpointEngine) -> None:
        (root,) = await _said(engine, "t", "root", state={"k": 0})
        side = (await engine.branch(root, "side")).id
        await _said(engine, side, "s", state={"k": 2, "new": "s"})
        (ours,) = await _said(engine, "t", "o", state={"k": 1, "new": "o"})
        with pytest.raises(MergeConflictError) as caught:
            await engine.merge_branch(side, "t")
        assert caught.value.conflicts == (
            MergeConflict(kind="state", key="k", base=0, ours=1, theirs=2),
            MergeConflict(kind="state", key="new", base=MISSING, ours="o", theirs="s"),
        )
        assert (await engine.get_latest("t")).id == ours

    async def test_reducers_are_not_advised_where_only_messages_conflict(
        self, engine: CheckpointEngine
    ) -> None:
        (root,) = await _said(engine, "t", "root")
        side = (await engine.branch(root, "side")).id
        await engine.snapshot(side, messages=["edited there"])
        await engine.snapshot("t", messages=["edited here"])
        with pytest.raises(
            MergeConflictError, match=r'messages; choose strategy="ours" or "theirs"$'
        ):
            await engine.merge_branch(side, "t")

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            ({"strategy": "ours"}, 1),
            ({"strategy": "theirs"}, 2),
            ({"reducers": {"k": lambda base, ours, theirs: ours + theirs - base}}, 3),
            ({"strategy": "ours", "reducers": {"k": lambda *sides: sum(sides)}}, 3),
        ],
    )
    async def test_a_strategy_or_a_reducer_settles_a_conflict(
        self, engine: CheckpointEngine, given: dict[str, Any], value: int
    ) -> None:
        (root,) = await _said(engine, "t", "root", state={"k": 0})
        side = (await engine.branch(root, "side")).id
        await _said(engine, side, "s", state={"k": 2})
        await _said(engine, "t", "o", state={"k": 1})
        await engine.merge_branch(side, "t", **given)
        assert (await engine.get_latest("t")).state == {"k": value}

    @pytest.mark.parametrize("strategy", ["raise", "ours", "theirs"])
    async def test_a_reducer_is_called_once(self, engine: CheckpointEngine, strategy: Any) -> None:
        """It may well change what it is given."""

        def joined(base: list[int], ours: list[int], theirs: list[int]) -> list[int]:
            ours.extend(theirs[len(base) :])
            return ours

        (first,) = await _said(engine, "t", "hello", state={"list": [1]})
        side = (await engine.branch(first, "side")).id
        await engine.snapshot("t", state={"list": [1, 2]})
        await engine.snapshot(side, state={"list": [1, 3]})
        await engine.merge_branch(side, "t", strategy=strategy, reducers={"list": joined})
        assert (await engine.get_latest("t")).state == {"list": [1, 2, 3]}

    async def test_a_criss_cross_merge_takes_each_message_once(
        self, engine: CheckpointEngine
    ) -> None:
        (root,) = await _said(engine, "t", "root", state={"x": 0, "y": 0})
        side = (await engine.branch(root, "side")).id
        (a,) = await _said(engine, "t", "a", state={"x": 1, "y": 0})
        (b,) = await _said(engine, side, "b", state={"x": 0, "y": 1})
        kept = (await engine.branch(b, "kept")).id
        old = (await engine.branch(a, "old")).id
        await engine.merge_branch(kept, "t")
        await engine.merge_branch(old, side)
        await _said(engine, side, "c", state={"x": 1, "y": 2})
        await engine.merge_branch(side, "t")
        merged = await engine.get_latest("t")
        assert contents(merged) == ["root", "a", "b", "c"]
        assert merged.state == {"x": 1, "y": 2}

    async def test_a_merge_stays_in_its_session(self, engine: CheckpointEngine) -> None:
        await _said(engine, "t", "a")
        await _said(engine, "u", "b")
        with pytest.raises(NotInSession):
            await engine.merge_branch("u", "t")
        with pytest.raises(InvalidRequest):
            await engine.merge_branch("t", "t", strategy="guess")  # type: ignore[arg-type]

    async def test_the_tree_has_every_node_and_edge(self, engine: CheckpointEngine) -> None:
        root, second = await _said(engine, "t", "root", "second")
        side = (await engine.branch(root, "side")).id
        (s,) = await _said(engine, side, "s")
        merged = (await engine.merge_branch(side, "t")).checkpoint_id
        tree = await engine.get_checkpoint_tree(side)
        assert tree.session_id == "t"
        assert [t.branch for t in tree.threads] == ["main", "side"]
        assert {n.info.id for n in tree.nodes} == {root, second, s, merged}
        assert {n.info.id for n in tree.nodes if n.is_head} == {merged, s}
        assert {(e.parent, e.child, e.kind) for e in tree.edges} == {
            (root, second, "step"),
            (root, s, "fork"),
            (second, merged, "step"),
            (s, merged, "merge"),
        }
        places = {n.info.id: place for place, n in enumerate(tree.nodes)}
        assert all(places[e.parent] < places[e.child] for e in tree.edges)

    async def test_a_diff_names_what_differs(self, engine: CheckpointEngine) -> None:
        (root,) = await _said(engine, "t", "root", state={"same": 1, "gone": 1, "changed": 1})
        side = (await engine.branch(root, "side")).id
        (a,) = await _said(engine, "t", "a")
        (b,) = await _said(engine, side, "b", state={"same": 1, "changed": True, "added": 0})
        diff = await engine.diff(a, b)
        assert (diff.merge_base, diff.common_messages) == (root, 1)
        assert (diff.messages_removed, diff.messages_added) == ((say("a"),), (say("b"),))
        assert [(c.key, c.kind) for c in diff.state] == [
            ("added", "added"),
            ("changed", "changed"),
            ("gone", "removed"),
        ]

    async def test_tags_name_checkpoints(self, engine: CheckpointEngine) -> None:
        ids = await _said(engine, "t", *"abc")
        await engine.tag(ids[1], "best")
        assert (await engine.get(ids[1])).tags == ("best",)
        assert (await engine.resolve_tag("t", "best")).id == ids[1]
        await engine.untag("t", "best")
        assert (await engine.get(ids[1])).tags == ()
        with pytest.raises(CheckpointNotFound):
            await engine.resolve_tag("t", "best")

    async def test_branches_of_one_checkpoint_at_once(self, opened: OpenEngine) -> None:
        engine = await opened()
        (root,) = await _said(engine, "t", "root")
        threads = await asyncio.gather(*(engine.branch(root, f"b{n}") for n in range(20)))
        await asyncio.gather(*(_said(engine, t.id, t.branch, "end") for t in threads))
        for thread in threads:
            found = contents(await engine.get_latest(thread.id))
            assert found == ["root", thread.branch, "end"]
        assert (await engine.verify()).problems == ()
