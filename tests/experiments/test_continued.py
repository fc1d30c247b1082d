"""An experiment whose history grows long goes on in a new run, with its trials and its ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from ckpt_agent.activities.analyst import analyst

from ..conftest import start_server
from .conftest import running
from .test_workflow import TABLES, questions, spec


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def short_histories() -> AsyncIterator[WorkflowEnvironment]:
    env = await start_server("limit.historyCount.suggestContinueAsNew=150")
    try:
        yield env
    finally:
        await env.shutdown()


async def test_it_continues_as_new_and_its_budget_still_holds(
    short_histories: WorkflowEnvironment,
    tmp_path: Path,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    two = [
        {"name": "whole", "settings": {"decimals": 0}},
        {"name": "exact", "settings": {"decimals": 2}},
    ]
    limits = {"total": {"steps": 60}, "per_trial": {"steps": 6}}
    async with running(short_histories, analyst({}), tmp_path, task_queue) as app:
        base = await app.session(TABLES)
        handle = await app.start(
            spec(base.checkpoint, variants=two, questions=questions(7), budget=limits)
        )
        report = await handle.result()
        first = app.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
        described = await first.describe()
    assert described.status == WorkflowExecutionStatus.CONTINUED_AS_NEW
    assert report.spent.steps <= 60
    states = [t.state for t in report.trials]
    assert states.count("scored") >= 10  # as many as sixty steps are enough for
    assert set(states[:10]) == {"scored"}
    assert states[-1] == "budget"
    assert len({t.workflow_id for t in report.trials if t.workflow_id}) == sum(
        bool(t.workflow_id) for t in report.trials
    )
