"""A trial that did not begin as its seed plus exactly its override is found out."""

from __future__ import annotations

from typing import Any

from temporalio.testing import ActivityEnvironment

from ckpt_agent.activities.analyst import analyst
from ckpt_agent.activities.experiment import ExperimentActivities
from ckpt_agent.workflows.experiment_messages import MeasureAsk

from .conftest import App
from .test_workflow import TABLES, questions, spec


async def test_every_way_to_begin_otherwise_is_seen(shipped: App) -> None:
    base = await shipped.session(TABLES)
    report = await shipped.run(spec(base.checkpoint, questions=questions(1)))
    trial = next(t for t in report.trials if t.variant == "exact")
    activities = ExperimentActivities(lambda: shipped.engine, analyst({}))
    asked = {"role": "user", "content": questions(1)[0]["say"]}
    right: dict[str, Any] = {
        "thread": trial.workflow_id,
        "first": trial.first,
        "seed": base.checkpoint,
        "digest": report.seeds[0].digest,
        "messages": [asked],
        "state": {"settings": {"decimals": 2}},
    }
    wrong: dict[str, dict[str, Any]] = {
        "": {},
        "it did not begin at the seed": {"digest": "0" * 32},
        "it did not begin": {"first": trial.head},
        "its messages differ": {"messages": []},
        "its messages": {"messages": [asked, asked]},
        "its state differs": {"state": {}},
        "its state": {"state": {"settings": {"decimals": 3}}},
        "its override was not applied": {
            "state": {"settings": {"decimals": 2}, "instructions": "Be brief."}
        },
    }
    for message, changed in wrong.items():
        ask = MeasureAsk.model_validate({**right, **changed})
        found = await ActivityEnvironment().run(activities.measure, ask)
        assert found.same_seed is (message == "")
        assert found.problem.startswith(message)
