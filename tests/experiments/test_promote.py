"""The best branch becomes what its session goes on with, or is merged, once, with a record."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from ckpt_agent.workflows.experiment_messages import PromoteAsk
from ckpt_agent.workflows.promote import PromoteWorkflow
from ckpt_engine.experiments import Report, Trial
from ckpt_engine.experiments.report import Promotion

from .conftest import App
from .test_workflow import TABLES, questions, spec

TWO = [
    {"name": "whole", "settings": {"decimals": 0}},
    {"name": "exact", "settings": {"decimals": 2}},
]


async def promote(app: App, report: Report, trial: Trial, **changed: Any) -> Promotion:
    ask = PromoteAsk.model_validate(
        {
            "experiment_id": report.experiment_id,
            "trial": trial.name,
            "session": report.seeds[0].workflow_id,
            "thread": trial.workflow_id,
            "checkpoint": trial.head,
            "by": "ann",
            "why": "it is exact",
            **changed,
        }
    )
    return await app.client.execute_workflow(
        PromoteWorkflow.run,
        ask,
        id=f"{report.experiment_id}/promote/{trial.head}/{len(changed)}",
        task_queue=app.queue,
    )


async def test_a_running_session_is_rewound_to_the_branch(shipped: App) -> None:
    root = await shipped.begin(
        "What is the average wind in 2012?", settings={"delay_seconds": 60, "decimals": 0}
    )
    while (await root.query("checkpoint_status"))["step"] < 2:
        pass  # the model is being asked, and takes its time
    report = await shipped.run(
        spec(
            "",
            **{"from": {"session": root.id, "step": 1}},
            variants=TWO,
            questions=questions(1),
        )
    )
    best = next(t for t in report.trials if t.variant == "exact")
    assert best.score == 1
    done = await promote(shipped, report, best)
    result = await root.result()
    assert questions(1)[0]["expected"] in (result.answer or "")
    head = await shipped.engine.get(result.checkpoint)
    active = await shipped.engine.active_thread(head.session_id)
    assert active.id == done.thread
    record = await shipped.engine.get_info(done.checkpoint)
    assert record.parents == (best.head,)
    assert "promoted by ann: it is exact" in record.metadata["reason"]
    # losers stay addressable
    loser = next(t for t in report.trials if t.variant == "whole")
    assert (await shipped.engine.get(loser.head)).thread_id == loser.workflow_id


async def test_a_branch_is_merged_into_a_thread_that_nobody_extends(shipped: App) -> None:
    base = await shipped.session(TABLES, settings={"decimals": 0})
    report = await shipped.run(spec(base.checkpoint, variants=TWO, questions=questions(1)))
    best = next(t for t in report.trials if t.variant == "exact")
    done = await promote(shipped, report, best, how="merge", into="main", strategy="theirs")
    merged = await shipped.engine.get(done.checkpoint)
    assert merged.parents == (base.checkpoint, best.head)
    assert merged.metadata["promoted_by"] == "ann"
    assert merged.metadata["experiment"] == report.experiment_id
    assert merged.state["settings"] == {"decimals": 2}
    assert (await shipped.engine.get_thread(base.thread)).head == done.checkpoint
    with pytest.raises(WorkflowFailureError) as caught:
        await promote(shipped, report, best, how="merge", into="elsewhere")
    err: BaseException = caught.value
    while err.__cause__ is not None:
        err = err.__cause__
    assert "the session has no thread 'elsewhere'; it has main" in str(err)


async def test_asked_twice_it_is_done_once(shipped: App) -> None:
    base = await shipped.session(TABLES)
    report = await shipped.run(spec(base.checkpoint, variants=TWO, questions=questions(1)))
    best = report.trials[0]
    first = await promote(shipped, report, best)
    threads = await shipped.engine.list_threads(base.thread)
    again = await promote(shipped, report, best)  # as a retry of the activity would
    assert (again.thread, again.checkpoint) == (first.thread, first.checkpoint)
    assert await shipped.engine.list_threads(base.thread) == threads
