"""What the tests of the agent share: a cache of their own, and a model server on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from temporalio.client import Client
from temporalio.envconfig import ClientConnectConfig
from temporalio.testing import WorkflowEnvironment
from werkzeug import Request, Response

from ckpt_agent.worker import connect, make_worker
from ckpt_engine import CheckpointEngine, create_checkpoint_engine
from ckpt_engine.contrib.agent import AgentSpec

Reply = Response | dict[str, Any] | Callable[[Request], Response]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))


@asynccontextmanager
async def application(
    env: WorkflowEnvironment, spec: AgentSpec, folder: Path, queue: str
) -> AsyncIterator[tuple[Client, CheckpointEngine]]:
    """Run a worker for one agent; yield its client, and the engine it writes to."""
    url = f"sqlite:///{folder}/ckpt.db"
    config = ClientConnectConfig(
        target_host=env.client.service_client.config.target_host, namespace=env.client.namespace
    )
    client = await connect(config, database_url=url)
    worker = make_worker(client, spec, task_queue=queue, shutdown=timedelta(0))
    async with worker, await create_checkpoint_engine(url) as engine:
        yield client, engine


class ChatServer:
    """An OpenAI-compatible server that answers with what it was given, in turn."""

    def __init__(self, server: HTTPServer) -> None:
        self._replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.url = server.url_for("/v1")
        server.expect_request("/v1/chat/completions", method="POST").respond_with_handler(
            self._answer
        )

    def then(self, *replies: Reply) -> ChatServer:
        self._replies.extend(replies)
        return self

    def _answer(self, request: Request) -> Response:
        self.requests.append(json.loads(request.get_data()))
        reply = self._replies.pop(0)
        if callable(reply) and not isinstance(reply, Response):
            return reply(request)
        if isinstance(reply, dict):
            return Response(json.dumps(reply), content_type="application/json")
        return reply


def completion(
    text: str | None = None, calls: Sequence[tuple[str, str, Any]] = ()
) -> dict[str, Any]:
    """A chat completion: a text, or tool calls as (id, name, arguments)."""
    tool_calls = [
        {"id": i, "type": "function", "function": {"name": n, "arguments": _json(a)}}
        for i, n, a in calls
    ]
    message = {"role": "assistant", "content": text, "tool_calls": tool_calls or None}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def error(status: int, message: str, **headers: str) -> Response:
    body = json.dumps({"error": {"message": message, "type": "x", "code": None}})
    return Response(body, status, headers=headers, content_type="application/json")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture
def chat(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """The server, under ``openai-chat:`` and ``ollama:`` alike."""
    server = ChatServer(httpserver)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OLLAMA_BASE_URL", server.url)
    yield server
    httpserver.check_assertions()
