"""Model requests against an OpenAI-compatible server on loopback, failures included."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.tools import ToolDefinition
from pytest_httpserver import HTTPServer
from temporalio.exceptions import ApplicationError
from werkzeug import Request, Response

from ckpt_agent.activities.conversation import from_stored, to_stored, user_message
from ckpt_agent.activities.model_call import ModelCatalogue, ask_model

from .conftest import ChatServer, completion, error

LOOK = ToolDefinition(
    name="look",
    parameters_json_schema={"type": "object", "properties": {"at": {"type": "string"}}},
)


async def ask(
    model: str = "ollama:tiny",
    messages: list[ModelMessage] | None = None,
    settings: dict[str, Any] | None = None,
) -> ModelResponse:
    return await ask_model(
        ModelCatalogue({}).get(model),
        messages or from_stored([user_message("what?")]),
        instructions="be brief",
        settings=settings or {},
        tools=[LOOK],
    )


async def failure(model: str = "ollama:tiny", **kwargs: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await ask(model, **kwargs)
    return caught.value


@pytest.mark.parametrize("model", ["ollama:tiny", "openai-chat:tiny"])
async def test_an_answer(chat: ChatServer, model: str) -> None:
    chat.then(completion("42"))
    response = await ask(model, settings={"temperature": 0.25})
    assert response.text == "42"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 7)
    sent = chat.requests[0]
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [
        ("system", "be brief"),
        ("user", "what?"),
    ]
    assert sent["temperature"] == 0.25
    assert sent["tools"][0]["function"]["name"] == "look"


async def test_openai_by_name_uses_the_responses_api(
    chat: ChatServer, httpserver: HTTPServer
) -> None:
    message = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "42", "annotations": []}],
    }
    body = {
        "id": "r1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "gpt-5",
        "status": "completed",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 2,
            "total_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    httpserver.expect_request("/v1/responses", method="POST").respond_with_json(body)
    response = await ask("openai:gpt-5")
    assert (response.text, response.usage.input_tokens) == ("42", 3)


async def test_parallel_calls_and_their_answers_travel(chat: ChatServer) -> None:
    chat.then(completion(calls=[("a", "look", {"at": "x"}), ("b", "look", '{"at": ')]))
    response = await ask()
    assert [(c.tool_call_id, c.tool_name) for c in response.tool_calls] == [
        ("a", "look"),
        ("b", "look"),
    ]
    chat.then(completion("done"))
    history = [user_message("what?"), to_stored(response), {"role": "user", "content": "hurry"}]
    await ask(messages=from_stored(history))
    roles = [(m["role"], m.get("tool_call_id")) for m in chat.requests[1]["messages"]]
    assert roles == [
        ("system", None),
        ("user", None),
        ("assistant", None),
        ("tool", "a"),
        ("tool", "b"),
        ("user", None),
    ]


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, "model-refused-key", "API key"),
        (403, "model-refused-key", "API key"),
        (404, "model-not-found", "openai-chat:"),
        (400, "model-rejected", "400 no such parameter"),
        (402, "model-quota", "credit"),
    ],
)
async def test_what_will_fail_again_is_not_retried(
    chat: ChatServer, status: int, kind: str, advice: str
) -> None:
    chat.then(error(status, "no such parameter"))
    err = await failure()
    assert (err.type, err.non_retryable) == (kind, True)
    assert advice in err.message
    assert len(chat.requests) == 1


async def test_too_many_requests_wait_as_long_as_asked(chat: ChatServer) -> None:
    chat.then(error(429, "slow down", **{"retry-after": "17"}))
    err = await failure()
    assert (err.non_retryable, err.next_retry_delay) == (False, timedelta(seconds=17))
    assert len(chat.requests) == 1  # the retries are Temporal's, where they are seen


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_what_may_pass_is_retried(chat: ChatServer, status: int) -> None:
    chat.then(error(status, "try later"))
    err = await failure()
    assert (err.non_retryable, err.next_retry_delay) == (False, None)
    assert "try later" in err.message


@pytest.mark.parametrize(
    "body",
    ["<html>gateway</html>", "{}", '{"choices": []}', "null", '{"choices": [{"index": 0}]}'],
)
async def test_a_malformed_response_is_retried(chat: ChatServer, body: str) -> None:
    chat.then(Response(body, 200, content_type="application/json"))
    err = await failure()
    assert err.type in ("model-malformed", "model-unavailable")
    assert not err.non_retryable


async def test_an_empty_response_is_retried(chat: ChatServer) -> None:
    chat.then(completion(""))
    err = await failure()
    assert (err.type, err.non_retryable) == ("model-empty", False)


async def test_a_slow_response_times_out_and_is_retried(chat: ChatServer) -> None:
    release = threading.Event()

    def slow(_: Request) -> Response:
        release.wait(20)
        return Response(json.dumps(completion("late")), content_type="application/json")

    chat.then(slow)
    try:
        err = await failure(settings={"timeout": 0.2})
    finally:
        release.set()
    assert (err.type, err.non_retryable) == ("model-unavailable", False)


async def test_a_cancelled_request_ends_at_once(chat: ChatServer) -> None:
    arrived, release = threading.Event(), threading.Event()

    def slow(_: Request) -> Response:
        arrived.set()
        release.wait(20)
        return Response("{}")

    chat.then(slow)
    task = asyncio.create_task(ask())
    try:
        assert await asyncio.to_thread(arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()


async def test_nobody_listening_is_retried(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}/v1")
    err = await failure()
    assert (err.type, err.non_retryable) == ("model-unavailable", False)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nosuchprovider:x", "nosuchprovider"),
        ("gpt-five", "gpt-five"),
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("ollama:tiny", "OLLAMA_BASE_URL"),
    ],
)
def test_a_model_that_cannot_be_used_is_said_plainly(
    model: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ApplicationError, match=said) as caught:
        ModelCatalogue({}).get(model)
    assert caught.value.non_retryable


def test_a_missing_library_names_what_to_install() -> None:
    with pytest.raises(ApplicationError, match="pip install") as caught:
        ModelCatalogue({}).get("cohere:command-r")
    assert (caught.value.type, caught.value.non_retryable) == ("model-not-installed", True)


def test_the_same_name_gives_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:9/v1")
    models = ModelCatalogue({})
    assert models.get("ollama:tiny") is models.get("ollama:tiny")


def test_stored_responses_of_a_provider_read_back() -> None:
    response = ModelResponse(
        parts=[TextPart("a"), ToolCallPart("look", '{"at": 1}', "x")],
        provider_name="ollama",
        provider_details={"finish_reason": "stop"},
        finish_reason="stop",
    )
    assert from_stored([to_stored(response)]) == [response]
