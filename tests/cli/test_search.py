from __future__ import annotations

from temporalio.client import Client


async def test_server_is_there(client: Client) -> None:
    assert [w async for w in client.list_workflows("WorkflowId = 'nobody'")] == []
