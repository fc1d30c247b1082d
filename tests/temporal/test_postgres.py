"""Agents whose checkpoints are on PostgreSQL, and what becomes of them when it is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from ckpt_engine.testing.postgres import PostgresServer

from ..postgres import server, url_in
from .app import BODIES
from .conftest import App, running_app
from .test_rewind_and_branch import (  # noqa: F401  (run again here, on this module's `app`)
    test_a_branch_lives_on_its_own_and_the_parent_goes_on,
    test_a_failed_session_is_branched_and_rewound,
    test_a_finished_session_is_rewound_under_its_own_id,
    test_a_rewind_signal_stops_the_step_in_flight_and_the_root_returns_the_childs_answer,
    test_a_second_rewind_takes_the_place_of_the_first_child,
    test_every_step_is_a_checkpoint_and_step_0_tells_how_it_started,
    test_the_late_commit_of_a_step_that_was_left_is_kept_on_the_old_line,
)

AGENTS, NODES = 20, 10


@pytest.fixture
async def app(
    temporal_env: WorkflowEnvironment, tmp_path: Path, task_queue: str
) -> AsyncIterator[App]:
    async with running_app(temporal_env, url_in(tmp_path), task_queue) as running:
        yield running


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server of the test's own, to be killed."""
    server()  # skips where there can be none
    made = PostgresServer()
    yield made
    made.stop()


async def check_once(app: App, workflow_id: str, nodes: int) -> None:
    """Every step has one checkpoint, on one line, and its body ran once."""
    thread = await app.thread(workflow_id)
    tree = await app.engine.get_checkpoint_tree(thread)
    walked = [node.info for node in tree.nodes if node.info.node == "walk"]
    assert sorted(info.step for info in walked) == [info.step for info in walked]
    assert len(walked) == nodes
    assert all(len(info.parents) == 1 for info in walked)
    last = await app.engine.get_latest(thread)
    assert [m["content"] for m in last.messages] == [f"at {n}" for n in range(nodes)]
    ran = {key: count for key, count in BODIES.items() if key.startswith(f"{workflow_id}/")}
    assert set(ran.values()) == {1}, ran
    assert len(ran) == nodes


@pytest.mark.timeout(240)
async def test_agents_outlive_a_killed_database(
    temporal_env: WorkflowEnvironment, mortal: PostgresServer, task_queue: str
) -> None:
    async with running_app(
        temporal_env, mortal.url(), task_queue, max_concurrent_activities=AGENTS
    ) as app:
        BODIES.clear()
        agents = [await app.start(NODES) for _ in range(AGENTS)]
        for part in (4, 2):
            while sum(BODIES.values()) < AGENTS * NODES // part:
                await asyncio.sleep(0.005)
            mortal.kill()
            await asyncio.to_thread(mortal.start)
        for agent in agents:
            assert await agent.result() == [f"at {n}" for n in range(NODES)]
        for agent in agents:
            await check_once(app, agent.id, NODES)
        assert (await app.engine.verify()).problems == ()
