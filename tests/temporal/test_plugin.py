"""One line in an application that exists: its own converter, interceptors and plugins stay."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker, WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ckpt_engine import CheckpointInfo, InvalidRequest, create_checkpoint_engine
from ckpt_engine.errors import CheckpointError, EngineClosed
from ckpt_engine.temporal import (
    CheckpointPlugin,
    RewindRequest,
    Sessions,
    StepPolicy,
    Target,
)

from .existing_app import (
    CompanyPlugin,
    Habits,
    PostOffice,
    RewindablePostOffice,
    Sealed,
    SealedFor,
    SlowPostOffice,
    audited,
    stamp,
    weigh,
)

ACTIVITIES: list[Callable[..., Any]] = [weigh, stamp]


async def connect(env: WorkflowEnvironment, **options: Any) -> Client:
    target = env.client.service_client.config.target_host
    return await Client.connect(target, namespace=env.client.namespace, **options)


async def post(client: Client, queue: str, name: str = "lamp") -> WorkflowHandle[Any, str]:
    handle: WorkflowHandle[Any, str] = await client.start_workflow(
        PostOffice.run, name, id=f"post-{uuid.uuid4().hex[:8]}", task_queue=queue
    )
    assert await handle.result() == f"audited {name}: {len(name)} stamps"
    return handle


async def steps(url: str, workflow_id: str) -> list[CheckpointInfo]:
    """Return every checkpoint of the workflow's session, whoever committed it."""
    async with await create_checkpoint_engine(url) as engine:
        found = await engine.find_run(workflow_id)
        assert found is not None
        tree = await engine.get_checkpoint_tree(found[0].id)
        return sorted((node.info for node in tree.nodes), key=lambda info: info.step)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ckpt.db"


@pytest.mark.parametrize("ours_first", [True, False])
async def test_an_application_with_habits_needs_one_line(
    temporal_env: WorkflowEnvironment, url: str, tmp_path: Path, task_queue: str, ours_first: bool
) -> None:
    habits = Habits()
    plugins = [CheckpointPlugin(url), CompanyPlugin(habits)]
    client = await connect(temporal_env, plugins=plugins if ours_first else plugins[::-1])
    async with Worker(client, task_queue=task_queue, workflows=[PostOffice], activities=ACTIVITIES):
        handle = await post(client, task_queue)
    assert habits.seen == {"start": 1, "weigh": 1, "stamp": 1, "audited": 1}
    assert habits.traces == {"trace-7"}
    done = await steps(url, handle.id)
    assert [(s.step, s.node) for s in done] == [
        (0, "start"),
        (1, "weigh"),
        (2, "stamp"),
        (3, "audited"),
    ]
    for file in tmp_path.iterdir():
        assert b"lamp" not in file.read_bytes(), f"{file.name} has a plaintext copy"


async def test_given_to_client_and_worker_it_counts_once(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str
) -> None:
    client = await connect(temporal_env, plugins=[CheckpointPlugin(url)])
    with pytest.warns(UserWarning, match="same plugin type"):
        worker = Worker(
            client,
            task_queue=task_queue,
            workflows=[PostOffice],
            activities=[*ACTIVITIES, audited],
            plugins=[CheckpointPlugin(url)],
        )
    async with worker:
        handle = await post(client, task_queue)
    assert [s.step for s in await steps(url, handle.id)] == [0, 1, 2, 3]


async def test_two_that_differ_are_refused(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str
) -> None:
    client = await connect(temporal_env, plugins=[CheckpointPlugin(url)])
    other = CheckpointPlugin(url, policies={"weigh": StepPolicy(record=False)})
    with (
        pytest.warns(UserWarning, match="same plugin type"),
        pytest.raises(InvalidRequest, match="give one"),
    ):
        Worker(client, task_queue=task_queue, workflows=[PostOffice], plugins=[other])


async def test_given_to_the_worker_alone_it_works_as_well(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str
) -> None:
    client = await connect(temporal_env)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[PostOffice],
        activities=[*ACTIVITIES, audited],
        plugins=[CheckpointPlugin(url)],
    ):
        handle = await post(client, task_queue)
    assert [s.step for s in await steps(url, handle.id)] == [0, 1, 2, 3]


async def test_workers_of_one_plugin_share_an_engine_and_keep_their_own_converters(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str
) -> None:
    plugin = CheckpointPlugin(url)

    async def serve(queue: str, key: str, first: asyncio.Barrier) -> None:
        converter = DataConverter(payload_codec=Sealed(key))
        client = await connect(temporal_env, data_converter=converter, plugins=[plugin])
        async with Worker(
            client,
            task_queue=queue,
            workflows=[PostOffice],
            activities=[*ACTIVITIES, audited],
        ):
            handle = await post(client, queue)
            engine = plugin.engine
            await first.wait()
            assert plugin.engine is engine
            found = await engine.find_run(handle.id)
            assert found is not None
            latest = await engine.get_latest(found[0].id)
            assert latest.tools_result["metadata"]["key"] == key.encode()
            await first.wait()

    barrier = asyncio.Barrier(2)
    await asyncio.gather(
        serve(f"{task_queue}-1", "k1", barrier), serve(f"{task_queue}-2", "k2", barrier)
    )
    with pytest.raises(EngineClosed):
        _ = plugin.engine


async def test_a_codec_is_told_what_each_payload_belongs_to(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    url = f"sqlite:///{tmp_path}/ckpt.db"
    converter = DataConverter(payload_codec=SealedFor("nobody"))
    plugin = CheckpointPlugin(url)
    ours = await connect(temporal_env, data_converter=converter, plugins=[plugin])
    activities = [*ACTIVITIES, audited]
    async with Worker(ours, task_queue=task_queue, workflows=[PostOffice], activities=activities):
        handle = await post(ours, task_queue)
        found = await plugin.engine.find_run(handle.id)
        assert found is not None
        latest = await plugin.engine.get_latest(found[0].id)
    assert latest.tools_result["metadata"]["key"] == f"{handle.id} audited".encode()


async def test_the_sandbox_is_asked_once_a_task_what_a_payload_belongs_to(
    temporal_env: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: Counter[object] = Counter()
    tasks: Counter[str] = Counter()
    plain = SandboxedWorkflowRunner.create_instance

    def counting(self: SandboxedWorkflowRunner, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance, run = plain(self, det), det.info.run_id
        activate = instance.activate

        def in_task(act: Any) -> Any:
            tasks[run] += 1
            return activate(act)

        def ask(name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def answer(about: Any) -> Any:
                asked[run, tasks[run], name, about] += 1
                return call(about)

            return answer

        setattr(instance, "activate", in_task)  # noqa: B010
        for name in ("get_serialization_context", "get_external_store_context"):
            setattr(instance, name, ask(name, getattr(instance, name)))
        return instance

    monkeypatch.setattr(SandboxedWorkflowRunner, "create_instance", counting)
    plugin = CheckpointPlugin(f"sqlite:///{tmp_path}/ckpt.db")
    ours = await connect(temporal_env, plugins=[plugin])
    activities = [*ACTIVITIES, audited]
    async with Worker(ours, task_queue=task_queue, workflows=[PostOffice], activities=activities):
        await post(ours, task_queue)
    assert sum(tasks.values()) >= 4
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("url", [None, "mysql://somebody:secret@host/checkpoints", "sqlite://x"])
def test_a_url_that_no_backend_takes_is_refused_before_a_worker_is_made(url: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"sqlite:///path.*, postgresql://user") as refused:
        CheckpointPlugin(url)
    assert "secret" not in str(refused.value)


async def test_a_database_that_cannot_be_opened_fails_the_worker_and_hangs_nobody(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    plugin = CheckpointPlugin(f"sqlite:///{tmp_path}/file/ckpt.db")
    client = await connect(temporal_env, plugins=[plugin])
    worker = Worker(client, task_queue=task_queue, workflows=[PostOffice])
    with pytest.raises(CheckpointError):
        async with asyncio.timeout(60), worker:
            await asyncio.Event().wait()


async def test_histories_from_before_the_plugin_replay_with_it(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str
) -> None:
    client = await connect(temporal_env)
    async with Worker(
        client, task_queue=task_queue, workflows=[PostOffice], activities=[*ACTIVITIES, audited]
    ):
        handle = await post(client, task_queue)
    history = await handle.fetch_history()
    replayer = Replayer(workflows=[PostOffice], plugins=[CheckpointPlugin(url)])
    await replayer.replay_workflow(history)


@pytest.mark.parametrize("later", [SlowPostOffice, RewindablePostOffice])
async def test_workflows_that_were_running_before_the_plugin_came_go_on_with_it(
    temporal_env: WorkflowEnvironment, url: str, task_queue: str, later: type
) -> None:
    """The step that was done without it is a gap; those after it are checkpoints."""
    activities = [*ACTIVITIES, audited]
    plain = await connect(temporal_env)
    async with Worker(
        plain, task_queue=task_queue, workflows=[SlowPostOffice], activities=activities
    ):
        handle: WorkflowHandle[Any, str] = await plain.start_workflow(
            SlowPostOffice.run, "lamp", id=f"{task_queue}-slow", task_queue=task_queue
        )
        async with asyncio.timeout(30):
            while not [e async for e in handle.fetch_history_events() if _completed(e)]:
                await asyncio.sleep(0.05)
    client = await connect(temporal_env, plugins=[CheckpointPlugin(url)])
    async with Worker(client, task_queue=task_queue, workflows=[later], activities=activities):
        await handle.signal(SlowPostOffice.go_on)
        assert await handle.result() == "audited lamp: 4 stamps"
        done = await steps(url, handle.id)
        assert [(s.step, s.node) for s in done] == [(0, "start"), (2, "stamp"), (3, "audited")]
        assert done[1].metadata["gap"]
        if later is RewindablePostOffice:  # the step whose result nobody has is done again
            async with await create_checkpoint_engine(url) as engine:
                sessions = Sessions(client, engine)
                await sessions.rewind(handle.id, RewindRequest(to=Target(step=2)))
                again = client.get_workflow_handle(handle.id)
                assert await again.result() == "audited lamp: 4 stamps"


def _completed(event: Any) -> bool:
    return bool(event.HasField("activity_task_completed_event_attributes"))
