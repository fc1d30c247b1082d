"""What is of the wrong type is refused by name: nothing of it is taken apart or half-written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, RootModel

from ckpt_engine import (
    KEEP_LAST_N,
    CheckpointEngine,
    SnapshotConfig,
    SnapshotTrigger,
    StepCommit,
    WorkflowRun,
    create_checkpoint_engine,
    new_checkpoint_id,
)
from ckpt_engine.errors import Corrupted, InvalidRequest, Unstorable
from ckpt_engine.retention import Candidates, RetentionPolicy
from ckpt_engine.stores.sqlite import translated

Call = Callable[[CheckpointEngine], Awaitable[Any]]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[CheckpointEngine]:
    async with await create_checkpoint_engine(tmp_path / "ckpt.db") as engine:
        await engine.snapshot("t", append=["first"])
        yield engine


def taken(**given: Any) -> Call:
    return lambda engine: engine.snapshot("t", **given)


def committed(**given: Any) -> Call:
    async def commit(engine: CheckpointEngine) -> None:
        head = (await engine.get_thread("t")).head
        step = {"checkpoint_id": new_checkpoint_id(), "thread_id": "t", "step": 1}
        await engine.commit_step(StepCommit(**{**step, "parents": (head,), **given}))

    return commit


def pinned(ttl: Any) -> Call:
    return lambda engine: engine.pin([], "me", ttl_seconds=ttl)


def registered(**given: Any) -> Call:
    run = {"namespace": "n", "workflow_id": "w", "run_id": "r", "workflow_type": "T"}
    return lambda engine: engine.register_run(
        "t", WorkflowRun(**{**run, "task_queue": "q", **given})
    )


def rewound(**given: Any) -> Call:
    async def rewind(engine: CheckpointEngine) -> None:
        await engine.rewind((await engine.get_latest("t")).id, **given)

    return rewind


def scoped(**given: Any) -> Call:
    async def work(engine: CheckpointEngine) -> None:
        async with engine.snapshot_scope("t", **given) as scope:
            scope.append("done in vain")

    return work


def inside(**given: Any) -> Call:
    async def work(engine: CheckpointEngine) -> None:
        async with engine.snapshot_scope("beside") as scope:
            await scope.snapshot(**given)

    return work


async def appended_late(engine: CheckpointEngine) -> None:
    async with engine.snapshot_scope("t") as scope:
        pass
    scope.append("too late")


async def taken_late(engine: CheckpointEngine) -> None:
    async with engine.snapshot_scope("beside") as scope:
        pass
    await scope.snapshot()


def decorated(thread_id: Any) -> Call:
    async def work(engine: CheckpointEngine) -> None:
        @engine.snapshot_on(SnapshotTrigger.MANUAL)
        async def search(thread_id: str) -> str:
            return thread_id

        await search(thread_id)

    return work


class Broken(RetentionPolicy):
    def kept(self, checkpoints: Candidates, now: datetime) -> list[int]:
        return [1 // 0]


DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]

MESSAGE = {"role": "user", "content": "hello"}
WRONG: dict[str, Call] = {
    "append=[...]": taken(append=MESSAGE),
    "not a str: for one alone give append": taken(append="hello"),
    "append must be a list of messages, not a set": taken(append={1, 2}),
    "append must be a list of messages, not a int": taken(append=5),
    "messages must be a list of messages, not a bytes": taken(messages=b"ab"),
    "state must be a dict, not a list": taken(state=[("a", 1)]),
    "metadata must be a dict, not a list": taken(metadata=[1]),
    "node must be text, not 7": taken(node=7),
    "node cannot have a lone surrogate": taken(node="a\ud800"),
    "next_node must be text": taken(next_node=b"x"),
    "summary must be text": taken(summary=["x"]),
    "commit_step takes a StepCommit, not a dict": lambda engine: engine.commit_step({}),  # type: ignore[arg-type]
    "step must be a whole number from 0 to 2.*, not 1.5": committed(step=1.5),
    "step must be a whole number from 0 to 2.*, not True": committed(step=True),
    "step must be a whole number from 0 to 2.*, not 9223372036854775808": committed(step=2**63),
    "step must be a whole number from 0 to 2.*, not nan": committed(step=float("nan")),
    "node must be text, not 3": committed(node=3),
    "a tag cannot have a lone surrogate": committed(tags=["\ud800"]),
    "tags must be a list of names, not None": committed(tags=None),
    "'nope' is not a trigger": committed(trigger="nope"),
    "metadata must be a dict, not a tuple": committed(metadata=(1,)),
    "append must be a list of messages, not None": committed(append=None),
    "state_delete must be a list of keys, not a str": committed(state_delete="ab"),
    "parents must be a list of checkpoint ids": committed(parents="ab"),
    "give messages .all. or append": committed(messages=["a"], append=["b"]),
    "give state .all. or state_set": committed(state={}, state_set={"a": 1}),
    "a tag cannot have a lone": lambda engine: engine.snapshot("t", tags=["\ud800"]),
    "ttl_seconds must be above 0, not nan": pinned(float("nan")),
    "ttl_seconds must be above 0, not -1": pinned(-1),
    "ttl_seconds must be above 0, not '1'": pinned("1"),
    "an owner is text": lambda engine: engine.unpin(""),
    "'zz' is not a checkpoint id": taken(expected_head="zz"),
    "a thread id is text.*not 5": lambda engine: engine.get_latest(5),  # type: ignore[arg-type]
    "a thread id cannot have": lambda engine: engine.get_latest("a\ud800"),
    "a thread id is text.*not 6": lambda engine: engine.undo(6),  # type: ignore[arg-type]
    "a thread id is text.*not 7": lambda engine: engine.forget(thread_id=7),  # type: ignore[arg-type]
    "limit must be a whole number": lambda engine: engine.list_time_travel_points(
        "t",
        limit="5",  # type: ignore[arg-type]
    ),
    "before must be a whole number": lambda engine: engine.list_time_travel_points(
        "t",
        before="1",  # type: ignore[arg-type]
    ),
    "step must be a whole number": lambda engine: engine.time_travel_to_step("t", "1"),  # type: ignore[arg-type]
    "limit must be .* not 9223372036854775808": lambda engine: engine.list_time_travel_points(
        "t", limit=2**63
    ),
    "step must be .* from -2..63 to .*not -1180591620717411303424": lambda engine: (
        engine.time_travel_to_step("t", -(2**70))
    ),
    "step must be .* not -9223372036854775809": lambda engine: engine.frontier_at(
        "t", -(2**63) - 1
    ),
    "before must be .* not 9223372036854775808": lambda engine: engine.list_time_travel_points(
        "t", before=2**63
    ),
    "a tag is text.*not 5": lambda engine: engine.list_time_travel_points("t", tag=5),  # type: ignore[arg-type]
    "a tag is text.*not 6": lambda engine: engine.untag("t", 6),  # type: ignore[arg-type]
    "a tag is text.*not 7": lambda engine: engine.resolve_tag("t", 7),  # type: ignore[arg-type]
    "limit must be .* not '6'": lambda engine: engine.list_sessions(limit="6"),  # type: ignore[arg-type]
    "before must be a datetime": lambda engine: engine.list_sessions(before="now"),  # type: ignore[arg-type]
    "created_at must be a datetime": lambda engine: engine.create_thread("new", created_at=5),  # type: ignore[arg-type]
    "step must be .* not None": lambda engine: engine.time_travel_to_step("t", None),  # type: ignore[arg-type]
    "step must be .* not 0.5": lambda engine: engine.frontier_at("t", 0.5),  # type: ignore[arg-type]
    "parents must be .* not None": lambda engine: engine.join(None),  # type: ignore[arg-type]
    "checkpoint_ids must be .* not None": lambda engine: engine.pin(None, "me", ttl_seconds=1),  # type: ignore[arg-type]
    "state must be a dict, not a tuple": lambda engine: engine.check_storable(state=(1,)),  # type: ignore[arg-type]
    "messages must be a list .* not a float": lambda engine: engine.check_storable(messages=0.5),  # type: ignore[arg-type]
    "metadata must be a dict, not a set": lambda engine: engine.merge_branch(
        "t",
        "t",
        metadata={1},  # type: ignore[arg-type]
    ),
    "reducers must be a dict, not a list": lambda engine: engine.merge_branch(
        "t",
        "t",
        reducers=[max],  # type: ignore[arg-type]
    ),
    "reducers.'n'. is no function": lambda engine: engine.merge_branch(
        "t",
        "t",
        reducers={"n": 1},  # type: ignore[dict-item]
    ),
    "a workflow id cannot have": lambda engine: engine.find_run("a\ud800"),
    "a workflow id is text": lambda engine: engine.find_sessions(5),  # type: ignore[arg-type]
    "register_run takes a WorkflowRun, not a int": lambda engine: engine.register_run("t", 3),  # type: ignore[arg-type]
    "run_id must be text, not 3": registered(run_id=3),
    "task_queue cannot have a lone": registered(task_queue="\ud800"),
    "'yy' is not a checkpoint id": rewound(expected_head="yy"),
    "a thread id is text.*not ''": lambda engine: engine.collect(thread_id=""),
    "dry_run is True or False, not 0": lambda engine: engine.collect(KEEP_LAST_N(1), dry_run=0),  # type: ignore[arg-type]
    "the retention policy .* failed: ZeroDivisionError": lambda engine: engine.collect(Broken()),
    "append must be a list of messages, not a str": taken(append=""),
    "tags must be a list of names, not 0": taken(tags=0),
    "node must be text, not a int": taken(node=10**5000),
    "a thread id is text.*not a list": lambda engine: engine.get_latest(DEEP),  # type: ignore[arg-type]
    "a int is not a checkpoint id": lambda engine: engine.get(10**5000),  # type: ignore[arg-type]
    "a list is not a trigger": taken(trigger=DEEP),
    "no strategy a list": lambda engine: engine.merge_branch("t", "t", strategy=DEEP),  # type: ignore[arg-type]
    "a retention policy .*not a list": lambda engine: engine.collect(DEEP),  # type: ignore[arg-type]
    r"\['x'\] is not a checkpoint id": lambda engine: engine.join([["x"]]),  # type: ignore[list-item]
    r"\['y'\] is not a checkpoint id": lambda engine: engine.pin([["y"]], "me", ttl_seconds=1),  # type: ignore[list-item]
    r"\['z'\] is not a checkpoint id": committed(parents=(["z"],)),
    "first is True or False, not 'x'": committed(first="x"),
    "a key in state_delete must be text": committed(state_delete=[None]),
    "ttl_seconds must be above 0, not True": pinned(True),
    "created_at is too early or too late": lambda engine: engine.create_thread(
        "new", created_at=datetime.max.replace(tzinfo=UTC)
    ),
    "tags must be a list of names, not 'abc'": scoped(tags="abc"),
    "metadata must be a dict, not a int": scoped(metadata=5),
    "an interval is greater than 0 seconds, not '1'": scoped(interval_seconds="1"),
    "name must be text, not 5": scoped(name=5),
    "append must be a list of messages, not a bool": inside(append=True),
    "metadata must be a dict, not a str": inside(metadata="x"),
    "give messages .all. or append .the new ones., not": inside(messages=["a"], append=["b"]),
    "t. has ended: nothing would commit": appended_late,
    "beside. has ended: take its engine's snapshot": taken_late,
    "phase must be text, not 5": inside(phase=5),
    "'never' is not a trigger": inside(trigger="never"),
    "a thread id is text.*not 8": decorated(8),
    "a thread id is text of 1 .*not ''": decorated(""),
    "a retention policy is one such as": lambda engine: engine.collect("last:3"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", WRONG)
async def test_an_argument_of_another_type_is_refused(
    engine: CheckpointEngine, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message.replace("[...]", r"\[\.\.\.\]")):
        await WRONG[message](engine)
    assert (await engine.get_latest("t")).messages == ["first"]
    assert (await engine.verify()).problems == ()


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ("a retention policy", {"retention": "last:3"}),
        ("logs must be a list", {"logs": "events"}),
        ("a key in logs", {"logs": (1,)}),
        ("logs must be a list .* not None", {"logs": None}),
        ("triggers must be a set", {"triggers": 5}),
        ("triggers must be a set", {"triggers": "manual"}),
        ("a list is not a trigger", {"triggers": [DEEP]}),
        ("busy_timeout must be greater than 0, not a int", {"busy_timeout": 10**5000}),
        ("interval_seconds must be", {"interval_seconds": "a"}),
        ("busy_timeout must be", {"busy_timeout": None}),
        ("cache_mb must be", {"cache_mb": float("inf")}),
        ("idle_seal_seconds must be", {"idle_seal_seconds": -1}),
        ("max_snapshot_size_mb must be", {"max_snapshot_size_mb": float("nan")}),
        ("group_size must be a whole number from 1", {"group_size": 1.5}),
        ("connections must be a whole number from 1", {"connections": 0}),
        ("schema_version must be a whole number", {"schema_version": True}),
        ("in_place is True or False", {"in_place": "no"}),
        ("delta_snapshots is True or False", {"delta_snapshots": 1}),
        ("upcast must be a function", {"upcast": "v2"}),
    ],
)
def test_a_configuration_is_checked_when_it_is_made(message: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=message):
        SnapshotConfig(**given)


def test_policies_are_combined_with_policies() -> None:
    for combined in (lambda: KEEP_LAST_N(3) | 5, lambda: KEEP_LAST_N(3) & "all"):  # type: ignore[operator]
        with pytest.raises(InvalidRequest, match="a retention policy"):
            combined()


@pytest.mark.parametrize(("url", "config"), [(None, None), (5, None), ("memory:", {"logs": ()})])
async def test_what_is_no_url_or_configuration_is_refused(url: Any, config: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"give sqlite:|SnapshotConfig\(\.\.\.\)"):
        await create_checkpoint_engine(url, config)


@pytest.mark.parametrize("where", ["message", "content", "result"])
async def test_a_number_of_very_many_digits_is_listed(engine: CheckpointEngine, where: str) -> None:
    """Python does not turn it into text, so a line about it cannot have it."""
    many = -(10**5000)
    message = {"message": many, "content": {"role": "user", "content": {"n": many}}}.get(where, "x")
    await engine.snapshot("t", append=[message], tools_result=many if where == "result" else None)
    await engine.snapshot("t", append=["next"])
    points = await engine.list_time_travel_points("t")
    assert ("many digits" in points[1].summary) == (where != "result")
    assert (await engine.get(points[1].id)).messages == ["first", message]
    assert len((await engine.get_checkpoint_tree("t")).nodes) == 3


async def test_pages_have_every_point_where_steps_are_equal(engine: CheckpointEngine) -> None:
    (first,) = await engine.list_time_travel_points("t")
    side = await engine.branch(first.id, "side")
    await engine.snapshot(side.id, append=["theirs"])
    await engine.snapshot("t", append=["ours"])
    await engine.merge_branch(side.id, "t")
    every = await engine.list_time_travel_points("t")
    assert [point.step for point in every] == [2, 1, 1, 0]
    for limit in (1, 2, 3):
        paged, page = [], await engine.list_time_travel_points("t", limit=limit)
        while page:
            paged += page
            before = page[-1].step
            page = await engine.list_time_travel_points("t", limit=limit, before=before)
        assert paged == every


class Blob(BaseModel):
    data: bytes


class Steps(RootModel[list[int]]):
    """Its JSON form is a list."""


async def test_a_model_without_a_json_form_is_refused_by_its_path(engine: CheckpointEngine) -> None:
    with pytest.raises(Unstorable, match=r"append\[1\]\['blob'\]: a .*Blob has no JSON form"):
        await engine.snapshot("t", append=["fine", {"blob": Blob(data=b"\xff")}])
    with pytest.raises(Unstorable, match="state: a Blob has no JSON form"):
        await engine.snapshot("t", state=Blob(data=b"\xff"))


@pytest.mark.parametrize("name", ["state", "state_set", "metadata"])
@pytest.mark.parametrize(("given", "kind"), [(Steps([1]), "Steps"), (Blob, "ModelMetaclass")])
async def test_a_model_that_is_no_object_is_refused(
    engine: CheckpointEngine, name: str, given: Any, kind: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} must be a dict, not a {kind}"):
        await committed(**{name: given})(engine)
    if name != "state_set":
        with pytest.raises(InvalidRequest, match=f"{name} must be a dict, not a {kind}"):
            await engine.snapshot("t", **{name: given})


def test_a_message_of_the_driver_that_is_no_text_means_damage() -> None:
    """As where a damaged schema is named in it."""
    with pytest.raises(Corrupted, match=r"a\.db is damaged"), translated("a.db"):
        b"\xff".decode()


@pytest.mark.parametrize(
    "decorate",
    [
        lambda engine: engine.snapshot_on("nope"),
        lambda engine: engine.snapshot_on("manual", thread_id=5),
        lambda engine: engine.snapshot_on("manual", tags=5),
        lambda engine: engine.snapshot_on("manual", messages=["a"]),
        lambda engine: engine.snapshot_on("manual", state={"a": 1}),
        lambda engine: engine.snapshot_on("manual", interval_seconds=0),
        lambda engine: engine.snapshot_on("manual")(None),
        lambda engine: engine.snapshot_on("manual")(dict),
    ],
)
async def test_a_decorator_is_checked_before_anything_is_called(
    engine: CheckpointEngine, decorate: Callable[[Any], Any]
) -> None:
    with pytest.raises(InvalidRequest):
        decorate(engine)


async def test_whatever_can_be_called_can_be_decorated(engine: CheckpointEngine) -> None:
    double = engine.snapshot_on(SnapshotTrigger.TOOL_CALL, thread_id="p")(partial(max, 3))
    assert await double(2) == 3
    assert (await engine.get_latest("p")).node == "partial"


async def test_members_of_an_enum_are_names(engine: CheckpointEngine) -> None:
    class Name(str, Enum):  # noqa: UP042  (its text is another one than a StrEnum's)
        ROOT = "root"
        SIDE = "side"
        BEST = "best"

    root = await engine.snapshot(
        Name.ROOT, node=Name.BEST, tags=[Name.BEST, SnapshotTrigger.MANUAL]
    )
    assert root is not None
    side = await engine.branch(root, Name.SIDE)
    await engine.tag(root, Name.SIDE)
    await engine.pin([root], Name.BEST, ttl_seconds=60)
    await registered(workflow_id=Name.BEST)(engine)
    step = StepCommit(
        checkpoint_id=new_checkpoint_id(), thread_id=Name.SIDE, step=1, parents=(root,)
    )
    await engine.branch(root, "other", thread_id=Name.SIDE)
    await engine.commit_step(replace(step, node=Name.SIDE))
    assert (side.id, side.branch) == ("root/side", "side")
    assert (await engine.get_info(root)).tags == ("best", "manual", "side")
    assert (await engine.get_latest("side")).node == "side"
    assert await engine.find_run("best") is not None
    assert (await engine.verify()).problems == ()


async def test_an_engine_is_for_one_event_loop_at_a_time(engine: CheckpointEngine) -> None:
    with pytest.raises(InvalidRequest, match="open one engine for each"):
        await asyncio.to_thread(asyncio.run, engine.get_latest("t"))
