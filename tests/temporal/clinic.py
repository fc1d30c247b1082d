"""An application with values of its own and straight-line code, for tests of what is kept."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity, workflow

from ckpt_engine.temporal import Rewindable, current_step

TIMEOUT = timedelta(seconds=30)
BODIES: list[str] = []


class Patient(BaseModel):
    name: str
    visits: list[int]


@activity.defn
async def admit(name: str) -> Patient:
    BODIES.append("admit")
    return Patient(name=name, visits=[1])


@activity.defn
async def treat(patient: Patient) -> Patient:
    BODIES.append("treat")
    step = await current_step()
    step.append({"role": "nurse", "content": f"treated {patient.name}"})
    return patient.model_copy(update={"visits": [*patient.visits, 2]})


@workflow.defn
class Clinic(Rewindable):
    """Straight-line code: after a rewind, steps before the seed answer from the store."""

    @workflow.run
    async def run(self, name: str) -> Patient:
        admitted = await workflow.execute_activity(admit, name, start_to_close_timeout=TIMEOUT)
        treated = await workflow.execute_activity(treat, admitted, start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(treat, treated, start_to_close_timeout=TIMEOUT)
