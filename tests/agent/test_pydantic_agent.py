"""An Agent of pydantic-ai under its own integration: checkpointed, rewound and branched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from pydantic_ai.messages import ModelMessagesTypeAdapter
from temporalio.client import Client, WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from ckpt_engine import CheckpointEngine, create_checkpoint_engine
from ckpt_engine.contrib.pydantic_ai import POLICIES
from ckpt_engine.temporal import (
    BranchRequest,
    CheckpointPlugin,
    Overrides,
    RewindRequest,
    Sessions,
    Target,
)

from .climate import ASKED, CALLED, Answer, Talk, in_words
from .conftest import ChatServer, completion


@dataclass
class Agents:
    client: Client
    engine: CheckpointEngine
    sessions: Sessions
    queue: str

    @property
    def key(self) -> str:
        """A word that no other test says."""
        return self.queue.replace("-", "")

    async def run(self, workflow: Any, question: str) -> tuple[str, Any]:
        handle = await self.client.start_workflow(
            workflow, question, id=f"{self.queue}-a", task_queue=self.queue
        )
        return handle.id, await handle.result()

    async def words(self, workflow_id: str) -> list[str]:
        """Return the newest checkpoint's messages, in words."""
        found = await self.engine.find_run(workflow_id)
        assert found is not None
        messages = (await self.engine.get_latest(found[0].id)).messages
        return in_words(ModelMessagesTypeAdapter.validate_python(messages))


@asynccontextmanager
async def agents(
    env: WorkflowEnvironment, folder: Path, queue: str, *, ours_first: bool = False
) -> AsyncIterator[Agents]:
    url = f"sqlite:///{folder}/ckpt.db"
    plugins = [PydanticAIPlugin(), CheckpointPlugin(url, policies=POLICIES)]
    client = await Client.connect(
        env.client.service_client.config.target_host,
        namespace=env.client.namespace,
        plugins=plugins[::-1] if ours_first else plugins,
    )
    worker = Worker(client, task_queue=queue, workflows=[Answer, Talk])
    async with worker, await create_checkpoint_engine(url) as engine:
        yield Agents(client, engine, Sessions(client, engine), queue)


@pytest.fixture
async def app(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> AsyncIterator[Agents]:
    async with agents(temporal_env, tmp_path, task_queue) as running:
        yield running


def say(*texts: str, **more: Any) -> Overrides:
    return Overrides(messages=[{"role": "user", "content": text} for text in texts], **more)


@pytest.mark.parametrize("ours_first", [True, False])
async def test_its_checkpoints_have_its_messages(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str, ours_first: bool
) -> None:
    async with agents(temporal_env, tmp_path, task_queue, ours_first=ours_first) as app:
        key = app.key
        workflow_id, answer = await app.run(Answer.run, f"{key} ?")
        assert answer == "first heard 1"
        calls = [f"calls {key}-a", f"calls {key}-b"]
        returned = [
            f"returns {key}-a".replace(key, key.upper()).upper().replace("RETURNS", "returns")
        ]
        returned.append(returned[0][:-1] + "B")
        said = [f"user {key} ?", *calls, *returned]
        assert ASKED[key] == [["first:", said[0]], ["first:", *said]]
        assert await app.words(workflow_id) == [*said, "says first heard 1"]
        found = await app.engine.find_run(workflow_id)
        assert found is not None
        points = await app.engine.list_time_travel_points(found[0].id)
        triggers = [str(p.trigger) for p in reversed(points)]
        assert triggers == ["task_boundary", "llm_call", "tool_call", "tool_call", "llm_call"]


async def test_a_rewind_asks_nothing_again_and_adds_after_the_tools_have_answered(
    app: Agents,
) -> None:
    key = app.key
    workflow_id, _ = await app.run(Answer.run, f"{key} ?")
    request = RewindRequest(to=Target(step=1), overrides=say("and more"))
    await app.sessions.rewind(workflow_id, request)
    assert await app.client.get_workflow_handle(workflow_id).result() == "first heard 2"
    assert len(ASKED[key]) == 3
    assert ASKED[key][2][-1] == "user and more"
    assert [w.split()[0] for w in ASKED[key][2][1:]] == [
        *("user", "calls", "calls", "returns", "returns", "user"),
    ]
    assert (CALLED[f"{key}-a"], CALLED[f"{key}-b"]) == (2, 2)


async def test_what_was_added_before_is_still_said_after_a_further_rewind(app: Agents) -> None:
    key = app.key
    workflow_id, _ = await app.run(Answer.run, f"{key} ?")
    for text in ("one", "two"):
        request = RewindRequest(to=Target(back=1), overrides=say(text))
        await app.sessions.rewind(workflow_id, request)
        await app.client.get_workflow_handle(workflow_id).result()
    users = [word for word in ASKED[key][-1] if word.startswith("user")]
    assert users == [f"user {key} ?", "user one", "user two"]
    assert len(ASKED[key]) == 4
    assert CALLED[f"{key}-a"] == 1


async def test_a_conversation_does_not_leak_into_the_next(app: Agents) -> None:
    key = app.key
    workflow_id, answers = await app.run(Talk.run, key)
    assert answers == ["first heard 1", "first heard 2", "first heard 1"]
    assert ASKED[f"{key}-other"][0] == ["first:", f"user {key}-other one"]
    # The second turn of the first conversation is told more; the other conversation is not.
    request = BranchRequest(at=Target(step=4), name="more", overrides=say("extra"))
    child = await app.sessions.branch(workflow_id, request)
    answers = await app.client.get_workflow_handle(child.workflow_id).result()
    assert answers == ["first heard 1", "first heard 3", "first heard 1"]
    assert ASKED[key][-1][-2:] == ["user extra", "user two"]
    assert not [words for words in ASKED[f"{key}-other"] if "user extra" in words]


async def test_a_branch_asks_another_model(app: Agents, chat: ChatServer) -> None:
    workflow_id, _ = await app.run(Answer.run, f"{app.key} ?")
    chat.then(completion("a stranger's answer"))
    for model, answer in (
        ("second", "second heard 2"),
        ("openai-chat:tiny", "a stranger's answer"),
    ):
        request = BranchRequest(
            at=Target(step=3),
            name=model.partition(":")[0],
            overrides=say("You there?", model=model),
        )
        child = await app.sessions.branch(workflow_id, request)
        assert await app.client.get_workflow_handle(child.workflow_id).result() == answer
    sent = chat.requests[0]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[-1]["content"] == "You there?"


async def test_a_message_that_is_none_is_said_to_be_none(app: Agents) -> None:
    workflow_id, _ = await app.run(Answer.run, f"{app.key} ?")
    request = RewindRequest(to=Target(step=3), overrides=Overrides(messages=[{"text": "hm"}]))
    await app.sessions.rewind(workflow_id, request)
    with pytest.raises(WorkflowFailureError) as caught:
        await app.client.get_workflow_handle(workflow_id).result()
    cause: BaseException = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert "an added message is" in str(cause)
