"""Straight-line workflows that know nothing of seeds, rewound and branched."""

from __future__ import annotations

import asyncio
import importlib
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
)

from ckpt_engine.temporal import BranchRequest, RewindRequest, Target
from examples import approval, batch, order_saga

from . import changed_code
from .conftest import App, running_app


class Bodies(Interceptor):
    """Counts how often the body of each activity has run (it stands inside the plugin's)."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        count = self.count

        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                original = input.fn

                async def body(*args: Any) -> Any:
                    count[activity.info().activity_type] += 1
                    return await original(*args)

                input.fn = body
                return await super().execute_activity(input)

        return Inbound(next)


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


@pytest.fixture
async def shop(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, bodies: Bodies
) -> AsyncIterator[App]:
    async with running_app(
        temporal_env,
        f"sqlite:///{tmp_path}/ckpt.db",
        task_queue,
        workflows=[order_saga.OrderWorkflow, batch.BatchWorkflow, approval.ApprovalWorkflow],
        activities=ALL_ACTIVITIES,
        interceptors=[bodies],
    ) as app:
        yield app


ALL_ACTIVITIES = [*order_saga.ACTIVITIES, *batch.ACTIVITIES, *approval.ACTIVITIES]


async def started(app: App, workflow: Any, *args: Any) -> WorkflowHandle[Any, Any]:
    workflow_id = f"{app.task_queue}-{uuid.uuid4().hex[:6]}"
    handle: WorkflowHandle[Any, Any] = await app.client.start_workflow(
        workflow, args=list(args), id=workflow_id, task_queue=app.task_queue
    )
    return handle


async def finished(app: App, workflow: Any, *args: Any) -> WorkflowHandle[Any, Any]:
    handle = await started(app, workflow, *args)
    await handle.result()
    return handle


async def test_a_saga_is_rewound_and_the_steps_before_answer_from_the_store(
    shop: App, bodies: Bodies
) -> None:
    order = order_saga.Order("o1", 40)
    handle = await finished(shop, order_saga.OrderWorkflow.run, order)
    assert bodies.count == {"charge": 1, "reserve": 1, "ship": 1}
    await shop.sessions.rewind(handle.id, RewindRequest(to=Target(step=2)))
    again = await shop.client.get_workflow_handle(handle.id).result()
    assert again == ["payment-o1-40", "reservation-o1", "parcel-o1"]
    assert bodies.count == {"charge": 1, "reserve": 1, "ship": 2}


async def test_a_saga_that_was_compensated_is_branched_from_before_the_failure(
    shop: App, bodies: Bodies
) -> None:
    handle = await finished(shop, order_saga.OrderWorkflow.run, order_saga.Order("o2", 9, ""))
    assert bodies.count == {"charge": 1, "reserve": 1, "ship": 1, "refund": 1, "release": 1}
    child = await shop.sessions.branch(handle.id, BranchRequest(at=Target(step=2), name="again"))
    words = await shop.client.get_workflow_handle(child.workflow_id).result()
    assert words[-2:] == ["released reservation-o2", "refunded payment-o2-9"]
    assert bodies.count["charge"] == 1
    assert bodies.count["refund"] == 2
    # And from within the compensations: the failed step has no result, so it runs again.
    inside = await shop.sessions.branch(handle.id, BranchRequest(at=Target(step=4), name="inside"))
    assert await shop.client.get_workflow_handle(inside.workflow_id).result() == words
    assert bodies.count["ship"] == 3
    assert bodies.count["refund"] == 3
    assert bodies.count["release"] == 2


@pytest.mark.parametrize(("step", "again"), [(1, 5), (3, 3), (6, 0)])
async def test_a_batch_is_rewound_into_its_parallel_group(
    shop: App, bodies: Bodies, step: int, again: int
) -> None:
    handle = await finished(shop, batch.BatchWorkflow.run, 5)
    assert bodies.count == {"list_items": 1, "square": 5, "publish": 1}
    await shop.sessions.rewind(handle.id, RewindRequest(to=Target(step=step)))
    assert await shop.client.get_workflow_handle(handle.id).result() == "total 55"
    assert bodies.count == {"list_items": 1, "square": 5 + again, "publish": 2}


async def test_timers_before_the_seed_do_not_wait_and_signals_come_again(
    shop: App, bodies: Bodies
) -> None:
    """The branch would wait for a person for a week, if nobody told it that Ann said yes."""
    handle = await shop.client.start_workflow(
        approval.ApprovalWorkflow.run,
        args=["holiday", 1.0],
        id=f"{shop.task_queue}-approval",
        task_queue=shop.task_queue,
    )
    await handle.signal(approval.ApprovalWorkflow.approve, "Ann")
    first = await handle.result()
    assert first[2] == "holiday done, approved by Ann"
    child = await shop.sessions.branch(handle.id, BranchRequest(at=Target(step=3), name="later"))
    assert await shop.client.get_workflow_handle(child.workflow_id).result() == first
    assert bodies.count == {"submit": 1, "remind": 1, "carry_out": 1, "archive": 2}


async def test_a_rewind_of_a_rewind_replays_through_both(shop: App, bodies: Bodies) -> None:
    handle = await finished(shop, order_saga.OrderWorkflow.run, order_saga.Order("o3", 5))
    for _ in range(2):
        await shop.sessions.rewind(handle.id, RewindRequest(to=Target(back=0)))
        words = await shop.client.get_workflow_handle(handle.id).result()
        assert words == ["payment-o3-5", "reservation-o3", "parcel-o3"]
    await shop.sessions.rewind(handle.id, RewindRequest(to=Target(back=1)))
    assert await shop.client.get_workflow_handle(handle.id).result() == words
    assert bodies.count["charge"] == 1
    assert bodies.count["reserve"] == 1


async def test_a_running_workflow_is_rewound_while_it_waits_for_a_person(
    shop: App, bodies: Bodies
) -> None:
    handle = await shop.client.start_workflow(
        approval.ApprovalWorkflow.run,
        args=["desk", 0.1],
        id=f"{shop.task_queue}-desk",
        task_queue=shop.task_queue,
    )
    async with asyncio.timeout(30):
        while bodies.count["remind"] == 0:
            await asyncio.sleep(0.05)
    await shop.sessions.rewind(handle.id, RewindRequest(to=Target(step=1)))
    await handle.signal(approval.ApprovalWorkflow.approve, "Bob")
    assert (await handle.result())[2] == "desk done, approved by Bob"
    assert bodies.count["submit"] == 1
    assert bodies.count["remind"] == 2


@pytest.mark.parametrize(
    ("run", "args", "changed", "at", "says"),
    [
        (
            order_saga.OrderWorkflow.run,
            (order_saga.Order("o4", 5),),
            changed_code.ChangedOrder,
            2,
            "step 1 was 'charge' (.*), and now the code has ended without it",
        ),
        (
            batch.BatchWorkflow.run,
            (3,),
            changed_code.ChangedBatch,
            2,
            "step 1 was 'list_items' (.*) with other arguments",
        ),
        (
            approval.ApprovalWorkflow.run,
            ("holiday", 0.1),
            changed_code.ChangedApproval,
            3,
            "step 3 was 'carry_out' (.*), and now the code asks for 'remind'",
        ),
    ],
)
async def test_code_that_asks_for_another_step_is_told_which(
    shop: App,
    temporal_env: WorkflowEnvironment,
    run: Any,
    args: tuple[Any, ...],
    changed: type,
    at: int,
    says: str,
) -> None:
    handle = await started(shop, run, *args)
    if run is approval.ApprovalWorkflow.run:
        await handle.signal(approval.ApprovalWorkflow.approve, "Ann")
    await handle.result()
    queue = f"{shop.task_queue}-changed"
    async with running_app(
        temporal_env, shop.url, queue, workflows=[changed], activities=ALL_ACTIVITIES
    ) as app:
        found = await app.engine.find_run(handle.id)
        assert found is not None
        await app.engine.register_run(found[0].id, replace(found[1], task_queue=queue))
        request = BranchRequest(at=Target(step=at), name="changed")
        child = await app.sessions.branch(handle.id, request)
        with pytest.raises(WorkflowFailureError) as caught:
            await app.client.get_workflow_handle(child.workflow_id).result()
    cause: Any = caught.value.cause
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ApplicationError)
    assert cause.type == "diverged"
    assert re.search(says, cause.message)


async def test_step_0_says_how_children_find_their_way(shop: App) -> None:
    handle = await finished(shop, order_saga.OrderWorkflow.run, order_saga.Order("o5", 5))
    start = await shop.engine.time_travel_to_step(await shop.thread(handle.id), 0)
    assert start.metadata["resume"] == "replay"


@pytest.mark.parametrize(
    ("module", "run", "args", "result"),
    [
        (
            order_saga,
            "OrderWorkflow",
            ({"id": "o6", "amount": 3, "address": ""},),
            ["payment-o6-3", "reservation-o6", "released reservation-o6", "refunded payment-o6-3"],
        ),
        (batch, "BatchWorkflow", (4,), "total 30"),
        (
            approval,
            "ApprovalWorkflow",
            ("desk", 0.1),
            [
                "submitted desk",
                "reminded about desk",
                "desk done, approved by Ann",
                "desk archived",
            ],
        ),
    ],
)
async def test_the_mixin_and_the_plugin_are_all_that_the_examples_have_of_checkpoints(
    client: Client,
    task_queue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    run: str,
    args: tuple[Any, ...],
    result: Any,
) -> None:
    """Without the two lines that name it, the same source is a plain Temporal application."""
    source = Path(module.__file__ or "").read_text()
    lines = source.replace("(Rewindable)", "").splitlines(keepends=True)
    plain = [line for line in lines if "import Rewindable" not in line]
    assert len(plain) == len(lines) - 1
    assert not [line for line in plain if "ckpt" in line or "Rewindable" in line]
    name = f"plain_{run.lower()}"
    (tmp_path / f"{name}.py").write_text("".join(plain))
    monkeypatch.syspath_prepend(tmp_path)
    application = importlib.import_module(name)
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[getattr(application, run)],
        activities=application.ACTIVITIES,
    )
    async with worker:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            run, args=args, id=f"{task_queue}-plain", task_queue=task_queue
        )
        if module is approval:
            await handle.signal("approve", "Ann")
        assert await handle.result() == result
