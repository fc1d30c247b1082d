"""Sessions that can be searched for in Temporal, once the namespace knows how."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import InvalidRequest, create_checkpoint_engine
from ckpt_engine.temporal import BranchRequest, CheckpointPlugin, RewindRequest, Sessions, Target
from ckpt_engine.temporal.registration import register
from ckpt_engine.temporal.search_attributes import BRANCH, SESSION, THREAD
from tests.temporal.app import ACTIVITIES, Walker
from tests.temporal.conftest import POLICIES

from .tickets import CUSTOMER, URGENCY, Ticket, handle


async def connect(env: WorkflowEnvironment, url: str, namespace: str) -> Client:
    return await Client.connect(
        env.client.service_client.config.target_host,
        namespace=namespace,
        data_converter=pydantic_data_converter,
        plugins=[CheckpointPlugin(url, policies=POLICIES, search_attributes=True)],
    )


@pytest.fixture
async def namespace(client: Client) -> str:
    """A namespace that has no search attributes of anybody's."""
    name = f"ns-{uuid.uuid4().hex[:8]}"
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=name, workflow_execution_retention_period=Duration(seconds=86_400)
        )
    )
    async with asyncio.timeout(60):
        while True:
            other = await Client.connect(client.service_client.config.target_host, namespace=name)
            try:
                _ = [found async for found in other.list_workflows()]
            except RPCError:
                await asyncio.sleep(0.1)  # the server has not heard of it everywhere yet
            else:
                return name


async def test_everything_that_came_of_a_session_is_found(
    temporal_env: WorkflowEnvironment, namespace: str, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    client = await connect(temporal_env, url, namespace)
    workflow_id = f"walk-{uuid.uuid4().hex[:8]}"
    async with (
        Worker(client, task_queue=task_queue, workflows=[Walker], activities=ACTIVITIES),
        await create_checkpoint_engine(url) as engine,
    ):
        await client.execute_workflow(
            Walker.run, args=[workflow_id, 3, -1], id=workflow_id, task_queue=task_queue
        )
        sessions = Sessions(client, engine)
        branch = BranchRequest(at=Target(step=1), name="aside")
        aside = await sessions.branch(workflow_id, branch)
        await client.get_workflow_handle(aside.workflow_id).result()
        again = await sessions.rewind(workflow_id, RewindRequest(to=Target(step=1)))
        await client.get_workflow_handle(again.workflow_id).result()
        thread = (await engine.get_thread(aside.thread)).session_id

        async def found(query: str) -> dict[str, str]:
            return {
                str(seen.typed_search_attributes[BRANCH]): seen.id
                async for seen in client.list_workflows(query)
            }

        async with asyncio.timeout(60):  # the server's index is a moment behind
            while len(await found(f"{SESSION.name} = '{thread}'")) < 3:
                await asyncio.sleep(0.1)
        assert await found(f"{SESSION.name} = '{thread}'") == {
            "main": workflow_id,
            "aside": aside.workflow_id,
            "rewind-1": workflow_id,
        }
        assert await found(f"{THREAD.name} = '{aside.thread}'") == {"aside": aside.workflow_id}
    assert await register(client) == []


async def test_children_carry_the_search_attributes_that_their_parent_has_by_then(
    temporal_env: WorkflowEnvironment, namespace: str, tmp_path: Path, task_queue: str
) -> None:
    client = await connect(temporal_env, f"sqlite:///{tmp_path}/ckpt.db", namespace)
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=namespace,
            search_attributes={
                CUSTOMER.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
                URGENCY.name: IndexedValueType.INDEXED_VALUE_TYPE_INT,
            },
        )
    )
    given = TypedSearchAttributes([SearchAttributePair(CUSTOMER, "ann")])
    async with (
        Worker(client, task_queue=task_queue, workflows=[Ticket], activities=[handle]),
        await create_checkpoint_engine(f"sqlite:///{tmp_path}/ckpt.db") as engine,
    ):
        async with asyncio.timeout(60):
            while True:
                try:
                    ticket = await client.start_workflow(
                        Ticket.run, id=task_queue, task_queue=task_queue, search_attributes=given
                    )
                except RPCError:
                    await asyncio.sleep(0.1)  # the server has not heard of them everywhere yet
                else:
                    break
            while (await ticket.describe()).typed_search_attributes.get(URGENCY) is None:
                await asyncio.sleep(0.05)
        sessions = Sessions(client, engine)
        branch = BranchRequest(at=Target(step=1), name="aside")
        children = [
            await sessions.branch(ticket.id, branch),
            await sessions.rewind(ticket.id, RewindRequest(to=Target(step=1))),
        ]
        for child in children:
            there = client.get_workflow_handle(child.workflow_id)
            seen = (await there.describe()).typed_search_attributes
            assert (seen[CUSTOMER], seen[URGENCY]) == ("ann", 3)
            assert seen[BRANCH] == child.branch
            await there.signal(Ticket.solve)
            assert await there.result() == "answer"
        assert await ticket.result() == "answer"


async def test_what_cannot_be_registered_is_said_with_what_to_do(
    temporal_env: WorkflowEnvironment, tmp_path: Path
) -> None:
    client = await connect(temporal_env, f"sqlite:///{tmp_path}/ckpt.db", "no-such-namespace")
    with pytest.raises(InvalidRequest, match="temporal operator search-attribute create"):
        await register(client)
