"""The scope and the decorator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from ..config import SnapshotConfig
from ..errors import InvalidRequest, Unstorable
from ..model import CheckpointInfo, SnapshotTrigger
from ..scopes import Scope, current_scope
from .contract_base import ContractBase, OpenEngine, contents, say

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["CaptureContract"]

EVERY_TRIGGER = SnapshotConfig(triggers=frozenset(SnapshotTrigger))


async def _points(engine: CheckpointEngine, thread: str = "t") -> list[CheckpointInfo]:
    return (await engine.list_time_travel_points(thread))[::-1]


def _phases(points: Sequence[CheckpointInfo]) -> list[str]:
    return [str(point.metadata["phase"]) for point in points]


async def _stream(
    engine: CheckpointEngine, name: str = "stream", **given: Any
) -> AsyncGenerator[Scope, None]:
    """Append a number and let the caller go on, again and again."""
    async with engine.snapshot_scope("t", name=name, **given) as scope:
        for number in range(5):
            scope.append(number)
            scope.result = number
            yield scope


async def _until(engine: CheckpointEngine, phase: str, count: int) -> None:
    """Work until so many checkpoints of a phase are there."""
    while not any(await engine.list_sessions()):  # noqa: ASYNC110 - the engine tells nobody
        await asyncio.sleep(0.001)
    while _phases(await _points(engine)).count(phase) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


class CaptureContract(ContractBase):
    """``snapshot_scope`` and ``snapshot_on``."""

    async def test_a_scope_checkpoints_on_entering_and_on_leaving(
        self, engine: CheckpointEngine
    ) -> None:
        state = {"n": 0}
        async with engine.snapshot_scope("t", name="work", state=state, tags=["done"]) as scope:
            assert current_scope() is scope
            scope.append(say("a"), say("b"))
            state["n"] = 1
            scope.result = {"rows": [{"deep": [1, None]}], "long": "x" * 50_000}
        assert current_scope() is None
        enter, leave = [await engine.get(p.id) for p in await _points(engine)]
        assert (enter.metadata["phase"], enter.state, enter.messages) == ("enter", {"n": 0}, [])
        assert (leave.metadata["phase"], leave.state) == ("exit", {"n": 1})
        assert contents(leave) == ["a", "b"]
        assert leave.tools_result == scope.result
        assert (leave.node, leave.tags, leave.parents) == ("work", ("done",), (enter.id,))
        assert scope.checkpoints == [enter.id, leave.id]

    async def test_a_scope_records_an_exception_and_raises_it(
        self, engine: CheckpointEngine
    ) -> None:
        boom = ValueError("boom \ud800")

        async def work() -> None:
            async with engine.snapshot_scope("t") as scope:
                scope.append(say("before it broke"))
                raise boom

        with pytest.raises(ValueError, match="boom") as caught:
            await work()
        assert caught.value is boom
        leave = await engine.get_latest("t")
        recorded = leave.metadata["exception"]
        assert (recorded["type"], recorded["message"]) == ("ValueError", "boom \ud800")
        assert "raise boom" in recorded["traceback"]
        assert contents(leave) == ["before it broke"]
        assert _phases(await _points(engine)) == ["enter", "exit"]

    async def test_cancelling_is_recorded_and_cancels(self, engine: CheckpointEngine) -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with engine.snapshot_scope("t"):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        latest = await engine.get_latest("t")
        assert latest.metadata["exception"]["type"] == "CancelledError"

    async def test_scopes_nest(self, engine: CheckpointEngine) -> None:
        async with engine.snapshot_scope("t", name="outer") as outer:
            async with engine.snapshot_scope("t", name="inner") as inner:
                assert inner.parent is outer
            with pytest.raises(KeyError):
                async with engine.snapshot_scope("t", name="failing"):
                    raise KeyError("inner only")
        points = await _points(engine)
        assert [(p.node, p.metadata["phase"], p.metadata["depth"]) for p in points] == [
            ("outer", "enter", 0),
            ("inner", "enter", 1),
            ("inner", "exit", 1),
            ("failing", "enter", 1),
            ("failing", "exit", 1),
            ("outer", "exit", 0),
        ]
        assert "exception" not in points[-1].metadata
        assert [p.summary for p in points[:2]] == ["outer: enter", "inner: enter"]
        assert [p.parents for p in points[1:]] == [(p.id,) for p in points[:-1]]

    async def test_what_scopes_within_each_other_append_is_in_order(
        self, engine: CheckpointEngine
    ) -> None:
        async with engine.snapshot_scope("t", name="turn") as turn:
            turn.append("question")
            async with engine.snapshot_scope("t", name="tool") as tool:
                assert (await engine.get_latest("t")).messages == ["question"]
                tool.append("found")
                async with engine.snapshot_scope("other") as other:
                    other.append("of another thread")
                    async with engine.snapshot_scope("t") as deep:
                        assert (await engine.get_latest("t")).messages == ["question", "found"]
                        deep.append("deep")
            turn.append("answer")
        assert (await engine.get_latest("t")).messages == ["question", "found", "deep", "answer"]
        assert (await engine.get_latest("other")).messages == ["of another thread"]

    async def test_messages_of_several_scopes_are_in_the_order_of_their_appending(
        self, engine: CheckpointEngine
    ) -> None:
        unused = SnapshotTrigger.TASK_BOUNDARY  # not enabled
        async with engine.snapshot_scope("t") as outer:
            async with engine.snapshot_scope("t") as inner:
                for number, scope in enumerate((inner, outer, inner, outer)):
                    scope.append(number)
            async with engine.snapshot_scope("t", trigger=unused) as silent:
                for number, scope in enumerate((silent, outer, silent, outer), 4):
                    scope.append(number)
        assert (await engine.get_latest("t")).messages == list(range(8))

    async def test_an_outer_scope_commits_what_inner_ones_appended_before(
        self, engine: CheckpointEngine
    ) -> None:
        async with engine.snapshot_scope("t") as outer, engine.snapshot_scope("t") as inner:
            inner.append(0)
            outer.append(1)
            inner.append(2)
            await outer.snapshot()
            assert (await engine.get_latest("t")).messages == [0, 1, 2]
            inner.append(3)
        assert (await engine.get_latest("t")).messages == [0, 1, 2, 3]

    async def test_what_an_inner_scope_cannot_commit_does_not_stop_the_outer_one(
        self, engine: CheckpointEngine
    ) -> None:
        async def work(failure: Exception | None) -> None:
            async with engine.snapshot_scope("t") as inner:
                inner.append(object())
                if failure is not None:
                    raise failure

        async with engine.snapshot_scope("t") as outer:
            outer.append("said")
            with pytest.raises(Unstorable):
                await work(None)
            with pytest.raises(ValueError, match="broke"):
                await work(ValueError("broke"))
        assert (await engine.get_latest("t")).messages == ["said"]

    async def test_what_a_scope_accepts_is_committed_also_while_it_ends(
        self, engine: CheckpointEngine
    ) -> None:
        accepted: list[int] = []

        async def later(scope: Scope) -> None:
            while True:
                await asyncio.sleep(0)
                scope.append(len(accepted))
                accepted.append(len(accepted))
                begun.set()

        begun = asyncio.Event()
        async with engine.snapshot_scope("t") as scope:
            task = asyncio.create_task(later(scope))
            await begun.wait()
        with pytest.raises(InvalidRequest, match="has ended"):
            await task
        assert (await engine.get_latest("t")).messages == accepted
        assert _phases(await _points(engine)) == ["enter", "exit"]

    @pytest.mark.parametrize("turns", range(8))
    async def test_what_a_scope_without_checkpoints_leaves_goes_with_the_outer_one(
        self, engine: CheckpointEngine, turns: int
    ) -> None:
        unused = SnapshotTrigger.TASK_BOUNDARY  # not enabled

        async def work() -> None:
            async with engine.snapshot_scope("t", trigger=unused) as inner:
                inner.append("said")
                said.set()

        async with engine.snapshot_scope("t"):
            said = asyncio.Event()
            task = asyncio.create_task(work())
            await said.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        assert (await engine.get_latest("t")).messages == ["said"]

    async def test_whatever_ends_the_work_is_recorded(self, engine: CheckpointEngine) -> None:
        class GoneError(BaseException):
            """Such as those with which test runners give up."""

        with pytest.raises(GoneError):
            async with engine.snapshot_scope("t"):
                raise GoneError
        points = await _points(engine)
        assert _phases(points) == ["enter", "exit"]
        assert points[-1].metadata["exception"]["type"].endswith("GoneError")

    async def test_a_generator_that_is_left_early_ends_its_scope(self, opened: OpenEngine) -> None:
        engine = await opened(EVERY_TRIGGER)

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL)
        async def search() -> None: ...

        async for scope in _stream(engine, interval_seconds=0.02):
            if scope.result == 2:
                break
        await _until(engine, "exit", 1)  # the event loop closes it, in a context of its own
        leave = await engine.get_latest("t")
        assert (leave.messages, leave.tools_result) == ([0, 1, 2], 2)
        assert leave.metadata["left_early"] is True
        assert current_scope() is None
        with pytest.raises(InvalidRequest, match="no thread"):
            await search()
        with pytest.raises(InvalidRequest, match="has ended"):
            scope.append("too late")
        before = len(await _points(engine))
        async with engine.snapshot_scope("t", name="later", interval_seconds=0.02) as later:
            assert later.parent is None
            while len(later.checkpoints) < 4:  # noqa: ASYNC110 - the engine tells nobody
                await asyncio.sleep(0.001)
        assert {point.node for point in (await _points(engine))[before:]} == {"later"}

    async def test_closing_a_generator_waits_for_its_last_checkpoint(
        self, opened: OpenEngine
    ) -> None:
        engine = await opened(EVERY_TRIGGER)
        async with engine.snapshot_scope("t", name="turn", interval_seconds=60) as turn:
            async with aclosing(_stream(engine)) as stream:
                assert await anext(stream) is current_scope()
            assert current_scope() is turn
            leave = await engine.get_latest("t")
            assert (leave.node, leave.messages, leave.tools_result) == ("stream", [0], 0)
            assert leave.metadata["phase"] == "exit"
            stream = _stream(engine)
            await anext(stream)
            await asyncio.create_task(stream.aclose())
            assert current_scope() is turn
            assert (await engine.get_latest("t")).messages == [0, 0]

    async def test_what_a_generator_cannot_commit_is_told_to_who_closes_it(
        self, engine: CheckpointEngine
    ) -> None:
        stream = _stream(engine)
        (await anext(stream)).append(object())
        with pytest.raises(Unstorable) as refused:
            await stream.aclose()
        assert "stream had done its work" in refused.value.__notes__[0]
        assert current_scope() is None

    async def test_scopes_of_generators_side_by_side_end_in_any_order(
        self, engine: CheckpointEngine
    ) -> None:
        one, two = _stream(engine, "one"), _stream(engine, "two")
        await anext(one)
        inner = await anext(two)
        assert (inner.parent and inner.parent.name, inner.depth) == ("one", 1)
        await one.aclose()
        assert current_scope() is inner
        assert (inner.parent, inner.depth) == (None, 0)
        await two.aclose()
        assert current_scope() is None

    async def test_generators_that_are_left_one_after_another_are_not_within_each_other(
        self, engine: CheckpointEngine
    ) -> None:
        for _ in range(5):
            async for _ in _stream(engine):
                break
        await _until(engine, "exit", 5)
        # the next one begins before the event loop can close the one before
        assert max(point.metadata["depth"] for point in await _points(engine)) <= 1

    async def test_a_generator_that_is_closed_after_its_engine_says_what_is_missing(
        self, engine: CheckpointEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        stream = _stream(engine)
        scope = await anext(stream)
        await engine.close()
        await stream.aclose()
        assert "stream was left early, without a checkpoint: the engine was closed" in caplog.text
        assert current_scope() is None
        with pytest.raises(InvalidRequest, match="has ended"):
            scope.append("too late")

    async def test_a_scope_is_entered_once(self, engine: CheckpointEngine) -> None:
        once = engine.snapshot_scope("t")
        async with once:
            with pytest.raises(InvalidRequest, match="once"):
                await once.__aenter__()
        assert _phases(await _points(engine)) == ["enter", "exit"]

    async def test_what_was_appended_is_committed_once(self, engine: CheckpointEngine) -> None:
        async with engine.snapshot_scope("t") as scope:
            scope.append("first")
            await asyncio.gather(*(scope.snapshot() for _ in range(3)))
            scope.append("second")
            await scope.snapshot(append=["given"])
            scope.append("third")
            await scope.snapshot(messages=["anew"])
        points = [await engine.get(i) for i in scope.checkpoints]
        assert points[-3].messages == ["first", "second", "given"]
        assert [p.messages for p in points[-2:]] == [["anew"], ["anew", "third"]]

    @pytest.mark.parametrize("turns", range(6))
    async def test_a_snapshot_that_is_cancelled_is_not_committed_twice(
        self, engine: CheckpointEngine, turns: int
    ) -> None:
        begun = asyncio.Event()

        async def work() -> None:
            async with engine.snapshot_scope("t") as scope:
                scope.append("said")
                begun.set()
                await scope.snapshot()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await begun.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        latest = await engine.get_latest("t")
        assert (latest.messages, latest.metadata["phase"]) == (["said"], "exit")

    async def test_disabled_triggers_take_nothing_and_the_work_is_done(
        self, opened: OpenEngine
    ) -> None:
        engine = await opened(SnapshotConfig(triggers=frozenset({SnapshotTrigger.TOOL_CALL})))

        @engine.snapshot_on(SnapshotTrigger.LLM_CALL, thread_id="t")
        async def model() -> str:
            return "answer"

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t")
        async def tool() -> str:
            return await model()

        async with engine.snapshot_scope("t", trigger=SnapshotTrigger.TASK_BOUNDARY) as scope:
            assert await tool() == "answer"
        assert scope.checkpoints == []
        assert [p.node for p in await _points(engine)] == ["tool", "tool"]
        async with engine.snapshot_scope("t", trigger=SnapshotTrigger.TOOL_CALL) as outer:
            async with engine.snapshot_scope("t", trigger=SnapshotTrigger.LLM_CALL) as inner:
                inner.append("said inside")
            outer.append("said after")
        assert (await engine.get_latest("t")).messages == ["said inside", "said after"]
        assert (inner.checkpoints, len(outer.checkpoints)) == ([], 2)

    async def test_the_decorator_stores_the_whole_result(self, engine: CheckpointEngine) -> None:
        result: dict[str, object] = {"rows": list(range(2000)), "bytes": b"\x00\xff", "none": None}

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL)
        async def search(thread_id: str, query: str) -> dict[str, object]:
            """Look something up."""
            return result

        assert search.__name__ == "search"
        assert await search("t", "x") == result
        before, after = [await engine.get(p.id) for p in await _points(engine)]
        assert (before.node, before.trigger, before.tools_result) == ("search", "tool_call", None)
        assert after.tools_result == result

    async def test_the_decorator_makes_plain_functions_async(
        self, engine: CheckpointEngine
    ) -> None:
        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id=lambda n: f"thread {n}")
        def double(n: int) -> int:
            assert threading.current_thread() is not threading.main_thread()
            assert current_scope() is not None
            return 2 * n

        assert [await double(2), await double(3)] == [4, 6]
        for n in (2, 3):
            assert (await engine.get_latest(f"thread {n}")).tools_result == 2 * n

    async def test_the_decorator_finds_a_thread_by_default_and_among_further_arguments(
        self, engine: CheckpointEngine
    ) -> None:
        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL)
        async def search(query: str, thread_id: str = "by default") -> str:
            return query

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL)
        async def look(**given: str) -> str:
            return given["query"]

        assert await search("one") == "one"
        assert await look(query="two", thread_id="given") == "two"
        found = [(await engine.get_latest(name)).tools_result for name in ("by default", "given")]
        assert found == ["one", "two"]

    async def test_whatever_is_raised_is_recorded_and_reaches_the_caller(
        self, engine: CheckpointEngine
    ) -> None:
        class SilentError(Exception):
            def __str__(self) -> str:
                raise NotImplementedError

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t")
        def broken(failure: Exception) -> None:
            raise failure

        for failure, seen in ((StopIteration(), RuntimeError), (SilentError(), SilentError)):
            with pytest.raises(seen):
                await asyncio.wait_for(broken(failure), 60)
            recorded = (await engine.get_latest("t")).metadata["exception"]
            assert recorded["type"].endswith(seen.__name__)

    async def test_the_decorator_records_what_is_raised(self, engine: CheckpointEngine) -> None:
        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t")
        def broken() -> None:
            raise OSError("no such file")

        with pytest.raises(OSError, match="no such file"):
            await broken()
        points = await _points(engine)
        assert _phases(points) == ["enter", "exit"]
        assert points[-1].metadata["exception"]["type"] == "OSError"

    async def test_the_decorator_finds_the_thread_of_the_scope_and_reads_live_content(
        self, engine: CheckpointEngine
    ) -> None:
        class Agent:
            def __init__(self) -> None:
                self.log: list[Any] = []

            @engine.snapshot_on(
                SnapshotTrigger.LLM_CALL,
                messages=lambda self, _: self.log,
                state=lambda self, text: {"asked": text},
            )
            async def ask(self, text: str) -> str:
                self.log.append(say(text))
                return text.upper()

        with pytest.raises(InvalidRequest, match="thread"):
            await Agent().ask("nowhere")
        async with engine.snapshot_scope("t"):
            assert await Agent().ask("hello") == "HELLO"
        points = [await engine.get(p.id) for p in await _points(engine)]
        assert [contents(p) for p in points] == [[], [], ["hello"], ["hello"]]
        assert points[2].state == {"asked": "hello"}

    async def test_a_result_that_cannot_be_stored_is_still_returned(
        self, engine: CheckpointEngine
    ) -> None:
        handle = object()

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t")
        async def connect() -> object:
            return handle

        assert await connect() is handle
        latest = await engine.get_latest("t")
        assert latest.tools_result is None
        assert "object" in latest.metadata["result_refused"]

    async def test_generators_are_refused(self, engine: CheckpointEngine) -> None:
        with pytest.raises(InvalidRequest, match="generator"):

            @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t")
            async def stream() -> Any:
                yield 1

    async def test_intervals_run_while_work_goes_on(self, opened: OpenEngine) -> None:
        engine = await opened(EVERY_TRIGGER)
        state = {"done": 0}
        async with engine.snapshot_scope("t", state=state, interval_seconds=0.02) as scope:
            scope.append(say("first"))
            await _until(engine, "interval", 1)
            state["done"] = 1
            scope.append(say("second"))
            await _until(engine, "interval", 2)
        points = [await engine.get(p.id) for p in await _points(engine)]
        intervals = [p for p in points if p.trigger == SnapshotTrigger.INTERVAL]
        assert len(intervals) >= 2
        assert contents(intervals[0]) == ["first"]
        assert (contents(points[-1]), points[-1].state) == (["first", "second"], {"done": 1})
        assert _phases(points) == ["enter", *["interval"] * len(intervals), "exit"]
        assert len(await _points(engine)) == len(points)

    async def test_intervals_run_while_a_plain_function_blocks(self, opened: OpenEngine) -> None:
        engine = await opened(EVERY_TRIGGER)
        go_on = threading.Event()

        @engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="t", interval_seconds=0.02)
        def slow() -> str:
            assert go_on.wait(30)
            return "done"

        running = asyncio.create_task(slow())
        await _until(engine, "interval", 2)
        go_on.set()
        assert await running == "done"
        assert _phases(await _points(engine))[:3] == ["enter", "interval", "interval"]

    async def test_no_intervals_where_they_are_not_enabled(
        self, engine: CheckpointEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with engine.snapshot_scope("t", interval_seconds=0.001):
            await asyncio.sleep(0.02)
        assert "INTERVAL" in caplog.text
        assert _phases(await _points(engine)) == ["enter", "exit"]
        with pytest.raises(InvalidRequest, match="interval"):
            await engine.snapshot_scope("t", interval_seconds=0).__aenter__()

    async def test_intervals_have_what_the_innermost_scope_has(self, opened: OpenEngine) -> None:
        config = SnapshotConfig(triggers=frozenset(SnapshotTrigger), interval_seconds=0.02)
        engine = await opened(config)
        said: list[str] = []
        async with engine.snapshot_scope("t", name="outer"):
            async with engine.snapshot_scope("t", name="inner", messages=said) as inner:
                said.append("deep inside")
                await _until(engine, "interval", 2)
                taken = list(inner.checkpoints)
            await _until(engine, "interval", len(taken) + 1)
        points = [p for p in await _points(engine) if p.trigger == SnapshotTrigger.INTERVAL]
        assert {p.node for p in points if p.id in taken} == {"inner"}
        assert points[-1].node == "outer"
        assert (await engine.get(taken[-1])).messages == ["deep inside"]
