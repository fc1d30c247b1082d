"""What integrations rely on: steps under their own ids, joins, frontiers, the registry."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from ..config import SnapshotConfig
from ..errors import (
    CheckpointNotFound,
    IdReused,
    InvalidRequest,
    NotInSession,
    ThreadNotFound,
)
from ..model import CommittedStep, StepCommit, WorkflowRun, new_checkpoint_id
from ..retention import KEEP_LAST_N
from .contract_base import ContractBase, OpenEngine, contents, say

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["StepContract"]


class _Facts(BaseModel):
    fingerprint: str


def _run(number: int, workflow_id: str = "wf") -> WorkflowRun:
    return WorkflowRun(
        namespace="default",
        workflow_id=workflow_id,
        run_id=f"run {number}",
        workflow_type="Agent",
        task_queue="queue",
    )


async def _step(
    engine: CheckpointEngine, step: int, parents: tuple[str, ...], text: str = "", **given: Any
) -> str:
    """Commit a step of thread ``wf`` that says ``text``; return its id."""
    plain: dict[str, Any] = {"thread_id": "wf", "append": [say(text)] if text else []}
    commit = StepCommit(
        checkpoint_id=new_checkpoint_id(), step=step, parents=parents, **{**plain, **given}
    )
    return (await engine.commit_step(commit)).checkpoint_id


async def _begun(engine: CheckpointEngine) -> str:
    """Make thread ``wf`` and its step 0."""
    await engine.create_thread("wf")
    return await _step(engine, 0, (), state_set={"model": "m"})


class StepContract(ContractBase):
    """``commit_step``, ``join``, ``frontier_at``, threads, runs and pins."""

    async def test_a_model_may_be_what_a_step_sets(self, engine: CheckpointEngine) -> None:
        root = await _begun(engine)
        step = StepCommit(
            checkpoint_id=new_checkpoint_id(),
            thread_id="wf",
            step=1,
            parents=(root,),
            state_set=_Facts(fingerprint="set"),
            metadata=_Facts(fingerprint="f"),
        )
        assert [(await engine.commit_step(step)).created for _ in range(2)] == [True, False]
        found = await engine.get_latest("wf")
        assert found.state == {"model": "m", "fingerprint": "set"}
        assert found.metadata == {"fingerprint": "f"}
        with pytest.raises(IdReused):
            await engine.commit_step(replace(step, metadata=_Facts(fingerprint="another")))
        await _step(engine, 2, (found.id,), state=_Facts(fingerprint="all"))
        assert (await engine.get_latest("wf")).state == {"fingerprint": "all"}

    async def test_a_step_is_committed_once(self, engine: CheckpointEngine) -> None:
        root = await _begun(engine)
        commit = StepCommit(
            checkpoint_id=new_checkpoint_id(),
            thread_id="wf",
            step=1,
            parents=(root,),
            append=[say("a")],
            tools_result={"answer": b"\x00"},
            metadata={"fingerprint": "f1"},
        )
        first = await engine.commit_step(commit)
        again = await engine.commit_step(commit)
        assert (first.created, again.created) == (True, False)
        assert again.tools_result == {"answer": b"\x00"}
        found = await engine.find_committed(commit.checkpoint_id)
        assert found is not None
        assert found.tools_result == {"answer": b"\x00"}
        assert await engine.find_committed(new_checkpoint_id()) is None
        assert contents(await engine.get_latest("wf")) == ["a"]

    async def test_two_attempts_at_once_commit_one_checkpoint(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        name = new_checkpoint_id()

        async def attempt(result: int) -> CommittedStep:
            return await engine.commit_step(
                StepCommit(
                    checkpoint_id=name,
                    thread_id="wf",
                    step=1,
                    parents=(root,),
                    append=[say(str(result))],
                    tools_result=result,
                    metadata={"fingerprint": "same"},
                )
            )

        answers = await asyncio.gather(*(attempt(n) for n in range(8)))
        assert sum(a.created for a in answers) == 1
        (winner,) = {a.tools_result for a in answers}
        assert contents(await engine.get(name)) == [str(winner)]

    async def test_an_id_that_records_another_step_is_refused(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        name = new_checkpoint_id()
        given: dict[str, Any] = {"checkpoint_id": name, "thread_id": "wf", "parents": (root,)}
        await engine.commit_step(StepCommit(**given, step=1, metadata={"fingerprint": "f1"}))
        with pytest.raises(IdReused):
            await engine.commit_step(StepCommit(**given, step=1, metadata={"fingerprint": "f2"}))

    async def test_state_is_patched(self, engine: CheckpointEngine) -> None:
        root = await _begun(engine)
        one = await _step(engine, 1, (root,), state_set={"k": [1], "gone": 1})
        two = await _step(
            engine, 2, (one,), state_set={"k": [1, 2]}, state_delete=["gone", "never"]
        )
        assert (await engine.get(one)).state == {"model": "m", "k": [1], "gone": 1}
        assert (await engine.get(two)).state == {"model": "m", "k": [1, 2]}

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    async def test_parallel_steps_join_alike_in_whatever_order_they_end(
        self, engine: CheckpointEngine, order: tuple[int, ...]
    ) -> None:
        root = await _begun(engine)
        plan = await _step(engine, 1, (root,), "plan", state_set={"k": "plan"})
        tools: dict[int, str] = {}
        for n in order:
            state = {f"tool {n}": n, "k": n}
            tools[n] = await _step(
                engine, 2 + n, (plan,), f"tool {n}", first=n == 0, state_set=state
            )
        parents = tuple(tools[n] for n in range(3))
        joined = await engine.join(parents)
        after = await engine.get(await _step(engine, 5, parents, "after"))
        assert contents(after) == ["plan", "tool 0", "tool 1", "tool 2", "after"]
        assert after.messages[:-1] == list(joined.messages)
        assert after.state == {"model": "m", "k": 2, "tool 0": 0, "tool 1": 1, "tool 2": 2}
        assert after.parents == parents
        assert contents(await engine.get(tools[1])) == ["plan", "tool 1"]
        assert await engine.frontier_at("wf", 4) == parents
        assert await engine.frontier_at("wf", 3) == parents[:2]
        assert await engine.frontier_at("wf", 1) == (plan,)
        assert (await engine.get_thread("wf")).head == after.id
        assert (await engine.verify()).problems == ()

    async def test_a_parent_counts_once_and_is_of_the_session(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        one = await _step(engine, 1, (root,), "one")
        two = await engine.get(await _step(engine, 2, (one, one), "two"))
        assert (two.parents, contents(two)) == ((one,), ["one", "two"])
        assert (await engine.join((one, one))).messages == (await engine.get(one)).messages
        foreign = await engine.snapshot("foreign", append=["theirs"])
        assert foreign is not None
        with pytest.raises(NotInSession, match=f"{foreign} belongs to another session"):
            await engine.join((one, foreign))

    async def test_a_key_is_disputed_only_where_lines_beside_each_other_changed_it(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        other = await _step(engine, 1, (root,), "other", state_set={"k": "other"})
        plan = await _step(engine, 2, (root,), first=False, state_set={"turns": 1, "same": 1})
        left = await _step(engine, 3, (plan,), "left", state_set={"same": 2})
        right = await _step(engine, 4, (plan,), "right", first=False, state_set={"k": "right"})
        joined = await engine.join((other, left, right))
        assert joined.disputed == ("k",)  # and not what one of them, or what all follow, changed
        assert joined.state == {"model": "m", "k": "right", "turns": 1, "same": 2}
        after = await _step(engine, 5, (other, left, right))
        assert (await engine.get_info(after)).metadata["disputed"] == ["k"]
        settled = await _step(engine, 6, (after,), "settled", state_set={"k": "settled"})
        aside = await _step(engine, 7, (root,), "aside", first=False, state_set={"a": 1})
        assert (await engine.join((settled, aside))).disputed == ()

    async def test_many_turns_of_parallel_steps_read_back(self, engine: CheckpointEngine) -> None:
        frontier: tuple[str, ...] = (await _begun(engine),)
        step, said = 1, []
        for turn in range(12):
            model = await _step(engine, step, frontier, f"model {turn}")
            tools = [
                _step(engine, step + 1 + n, (model,), f"tool {turn}.{n}", first=n == 0)
                for n in range(3)
            ]
            frontier = tuple(await asyncio.gather(*tools))
            said += [f"model {turn}", *(f"tool {turn}.{n}" for n in range(3))]
            step += 4
        last = await engine.get(await _step(engine, step, frontier))
        assert contents(last) == said
        assert len(await engine.path(last.id)) == 1 + 12 * 4 + 1

    async def test_a_large_value_is_found_for_a_step_without_a_conversation(
        self, engine: CheckpointEngine
    ) -> None:
        large = "long " * 4000
        first = str(await engine.snapshot("chat", state={"text": large}))
        assert (await engine.join((first,))).state == {"text": large}

    async def test_a_join_brings_in_a_log_without_items(self, opened: OpenEngine) -> None:
        engine = await opened(SnapshotConfig(logs=("events",)))
        root = await _begun(engine)
        first = await _step(engine, 1, (root,), state_set={"n": 1})
        beside = await _step(engine, 2, (root,), first=False, state_set={"events": []})
        await _step(engine, 3, (first, beside))
        latest = await engine.get_latest("wf")
        assert latest.state == {"model": "m", "n": 1, "events": []}
        await engine.snapshot("wf", state={**latest.state, "events": ["one"]})
        assert (await engine.get_latest("wf")).state["events"] == ["one"]
        assert (await engine.verify()).problems == ()

    @pytest.mark.parametrize(
        "meanwhile", [{"state_delete": ["events"]}, {"state_set": {"events": b"-"}}]
    )
    async def test_a_log_that_was_no_list_meanwhile_goes_on(
        self, opened: OpenEngine, meanwhile: dict[str, Any]
    ) -> None:
        engine = await opened(SnapshotConfig(logs=("events",)))
        root = await _begun(engine)
        first = await _step(engine, 1, (root,), state_set={"events": ["a", "b"]})
        without = await _step(engine, 2, (first,), **meanwhile)
        await engine.join((without,))  # as a workflow does before each step, so it is remembered
        again = await _step(engine, 3, (without,), state_set={"events": ["a", "b", "c"]})
        joined, read = await engine.join((again,)), await engine.get(again)
        assert joined.state == read.state == {"model": "m", "events": ["a", "b", "c"]}

    async def test_logs_that_begin_side_by_side_are_joined_and_not_disputed(
        self, opened: OpenEngine
    ) -> None:
        engine = await opened(SnapshotConfig(logs=("events",)))
        root = await _begun(engine)
        left = await _step(engine, 1, (root,), state_set={"events": ["left"]})
        right = await _step(engine, 2, (root,), first=False, state_set={"events": ["right"]})
        joined = await engine.join((left, right))
        assert joined.state == {"model": "m", "events": ["left", "right"]}
        assert joined.disputed == ()
        other = await _step(engine, 3, (root,), first=False, state_set={"events": "no list"})
        assert (await engine.join((left, other))).disputed == ("events",)
        again = await _step(engine, 4, (root,), first=False, state_set={"events": ["list"]})
        assert (await engine.join((other, again))).disputed == ("events",)

    async def test_a_line_that_replaces_a_log_leaves_the_others_what_they_add(
        self, opened: OpenEngine
    ) -> None:
        engine = await opened(SnapshotConfig(logs=("events",)))
        await engine.create_thread("wf")
        root = await _step(engine, 0, (), append=["m"], state_set={"events": [0]})
        new = await _step(engine, 1, (root,), append=["ok"], state_set={"events": ["new"]})
        beside = await _step(engine, 2, (root,), first=False, append=["ok"])
        left = await _step(engine, 3, (beside,), append=["left"])
        right = await _step(engine, 4, (beside,), first=False, append=["right"])
        for parents in ((new, left, right), (right, left, new)):
            joined = await engine.join(parents)
            assert joined.messages == ["m", "ok", "ok", "left", "right"]
            assert (joined.state, joined.disputed) == ({"events": ["new"]}, ())
        after = await engine.get(await _step(engine, 5, (new, left, right), append=["after"]))
        assert after.messages == ["m", "ok", "ok", "left", "right", "after"]
        other = await _step(engine, 6, (root,), first=False, state_set={"events": ["other"]})
        joined = await engine.join((new, other))
        assert (joined.state, joined.disputed) == ({"events": ["other"]}, ("events",))

    async def test_a_conversation_that_one_line_compacts_stays_compact(
        self, engine: CheckpointEngine
    ) -> None:
        await engine.create_thread("wf")
        root = await _step(engine, 0, (), append=["long", "history"])
        compact = await _step(engine, 1, (root,), messages=["summary"])
        beside = await _step(engine, 2, (root,), first=False, state_set={"k": 1})
        for parents in ((compact, beside), (beside, compact)):
            assert (await engine.join(parents)).messages == ["summary"]
        joined = await engine.get(await _step(engine, 3, (beside, compact), append=["after"]))
        assert joined.messages == ["summary", "after"]
        assert (await engine.verify()).problems == ()

    async def test_lines_are_joined_whole_where_steps_of_theirs_were_collected(
        self, engine: CheckpointEngine
    ) -> None:
        await engine.create_thread("wf")
        root = await _step(engine, 0, (), append=["root"])
        left = await _step(engine, 1, (root,), append=["left 1"])
        right = await _step(engine, 2, (root,), first=False, append=["right 1"])
        left = await _step(engine, 3, (left,), append=["left 2"])
        right = await _step(engine, 4, (right,), append=["right 2"], state_set={"k": 1})
        assert len((await engine.collect(KEEP_LAST_N(1))).dropped) == 2
        joined = await engine.get(await _step(engine, 5, (left, right), append=["after"]))
        assert joined.messages == ["root", "left 1", "left 2", "right 1", "right 2", "after"]
        assert joined.state == {"k": 1}
        assert (await engine.verify()).problems == ()

    async def test_a_frontier_reaches_back_over_the_branch_point(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        one = await _step(engine, 1, (root,), "one")
        await _step(engine, 2, (one,), "two")
        branch = await engine.branch(one, "side", thread_id="side")
        two = await _step(engine, 2, (one,), "side two", thread_id="side")
        assert branch.step == 1
        assert await engine.frontier_at("side", 0) == (root,)
        assert await engine.frontier_at("side", 1) == (one,)
        assert await engine.frontier_at("side", 9) == (two,)
        assert contents(await engine.get(two)) == ["one", "side two"]
        with pytest.raises(InvalidRequest):
            await engine.frontier_at("wf", -1)

    async def test_a_parent_that_was_never_committed_can_be_bridged(
        self, engine: CheckpointEngine
    ) -> None:
        root = await _begun(engine)
        one = await _step(engine, 1, (root,), "one")
        lost = new_checkpoint_id()
        with pytest.raises(CheckpointNotFound):
            await _step(engine, 3, (lost,), "three")
        three = await engine.get(await _step(engine, 3, (lost,), "three", fallback_to_head=True))
        assert three.parents == (one,)
        assert contents(three) == ["one", "three"]
        assert any("gap" in key for key in three.metadata)

    async def test_a_late_step_is_kept_and_marked(self, engine: CheckpointEngine) -> None:
        root = await _begun(engine)
        await engine.branch(root, "again", thread_id="again")
        await engine.supersede("wf", "again")
        assert (await engine.get_thread("wf")).superseded_by == "again"
        assert (await engine.active_thread("wf")).id == "again"
        commit = StepCommit(
            checkpoint_id=new_checkpoint_id(), thread_id="wf", step=1, parents=(root,)
        )
        assert (await engine.commit_step(commit)).late
        assert (await engine.get(commit.checkpoint_id)).metadata["late"] is True
        assert contents(await engine.get_latest("again")) == []
        assert (await engine.promote("wf")).id == "wf"
        assert (await engine.active_thread("wf")).id == "wf"

    async def test_threads_are_made_once_and_sessions_listed_newest_first(
        self, engine: CheckpointEngine
    ) -> None:
        made = [await engine.create_thread(name) for name in ("s1", "s2", "s3")]
        assert await engine.create_thread("s2") == made[1]
        assert [t.id for t in await engine.list_sessions()] == ["s3", "s2", "s1"]
        assert [t.id for t in await engine.list_sessions(limit=1)] == ["s3"]
        with pytest.raises(ThreadNotFound):
            await engine.get_thread("s4")
        with pytest.raises(ThreadNotFound):
            await _step(engine, 0, (), thread_id="s4")

    async def test_runs_are_registered_and_found(self, engine: CheckpointEngine) -> None:
        root = await _begun(engine)
        await engine.branch(root, "side", thread_id="side")
        await engine.register_run("wf", _run(1))
        await engine.register_run("wf", _run(2))
        await engine.register_run("side", _run(3, "wf-side"))
        assert await engine.find_run("nobody") is None
        found = await engine.find_run("wf")
        assert found is not None
        assert (found[0].id, found[1].run_id) == ("wf", "run 2")
        assert [t.id for t in await engine.find_sessions("wf-side")] == ["wf"]
        assert await engine.find_sessions("wf-si") == []
        runs = (await engine.get_checkpoint_tree("wf")).runs
        assert {name: run.run_id for name, run in runs.items()} == {"wf": "run 2", "side": "run 3"}

    async def test_a_name_may_hold_anything_that_is_text(self, engine: CheckpointEngine) -> None:
        name = "üñí / ' \" % \n " + "x" * 900
        await engine.create_thread(name)
        assert (await engine.get_thread(name)).id == name
        with pytest.raises(InvalidRequest):
            await engine.create_thread("\ud800")
