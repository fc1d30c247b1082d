"""An agent whose every body leaves a trace: a token that is another one each time it runs.

So that a second run of a body, or a result that is not the stored one, cannot stay unseen.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from ckpt_engine.temporal import Rewindable, Step, StepPolicy, current_step

from .doom import DOOM, at_point
from .ledger import Ledger


class Trip(BaseModel):
    """What an agent does: so many nodes, each one step, or a pair of steps side by side.

    Attributes:
        how: Kind of activity.
        heartbeat: Heartbeat timeout in seconds.
        attempt: Start-to-close timeout in seconds.
        told: The workflow waits for a cancelled step to end, and goes on afterwards.
        fails: How the step of node 2 ends: ``retryably`` (twice), ``finally``, or ``unstorable``,
            with something that no store takes.
        size: Bytes of each result.
    """

    nodes: int = 4
    how: Literal["async", "thread", "process", "local", "pair"] = "async"
    heartbeat: float | None = 1.5
    attempt: float = 60
    told: bool = False
    fails: Literal["", "retryably", "finally", "unstorable"] = ""
    size: int = 0


class Parcel(BaseModel):
    node: int
    token: str
    load: str = ""


def policies_of(keep: str) -> dict[str, StepPolicy]:
    """Return the policies of couriers of whose deliveries so much is kept."""
    policy = StepPolicy(redact_result=lambda parcel: {"node": parcel.node})
    if keep != "redacted":
        policy = StepPolicy(keep=keep)  # type: ignore[arg-type]
    return {"recite": StepPolicy(record=False), "deliver": policy}


def _work(step: Step, trip: Trip, node: int) -> Parcel:
    info = activity.info()
    token = uuid.uuid4().hex
    step.append({"role": "courier", "content": f"at {node}", "token": token})
    step.state["last"] = node
    step.next_node = str(node + 1)
    Ledger(Path(os.environ["LEDGER"])).note(
        "body",
        node=node,
        id=step.checkpoint_id,
        attempt=info.attempt,
        workflow=info.workflow_id,
        details=info.heartbeat_details,
    )
    if not info.is_local:
        activity.heartbeat(f"cursor-{node}")
    if trip.fails == "retryably" and node == 2 and info.attempt < 3:
        raise ApplicationError("not yet")
    if trip.fails == "finally" and node == 2:
        raise ApplicationError("never", non_retryable=True)
    if trip.fails == "unstorable" and node == 2:
        step.append(threading.Lock())
    return Parcel(node=node, token=token, load="x" * trip.size)


@activity.defn
async def deliver(trip: Trip, node: int) -> Parcel:
    at_point("before-body", node)
    parcel = _work(await current_step(), trip, node)
    await _held("in-body", node)
    _left(node)
    return parcel


@activity.defn
def deliver_sync(trip: Trip, node: int) -> Parcel:
    at_point("before-body", node)
    parcel = _work(current_step.from_thread(), trip, node)
    while DOOM.holds("in-body", node):
        time.sleep(0.02)
    _left(node)
    return parcel


async def _held(point: str, node: int) -> None:
    while DOOM.holds(point, node):
        await asyncio.sleep(0.02)
        activity.heartbeat(f"cursor-{node}")


def _left(node: int) -> None:
    at_point("after-body", node)
    Ledger(Path(os.environ["LEDGER"])).note("left", node=node)


@activity.defn
async def recite() -> list[str]:
    """Return what the conversation says, in order."""
    return [str(message["content"]) for message in (await current_step()).messages]


@workflow.defn
class Courier(Rewindable, resume="next_node"):
    """Visits node after node, then tells what the conversation says."""

    def __init__(self) -> None:
        self.detour = False

    @workflow.run
    async def run(self, trip: Trip) -> list[str]:
        at = int(self.seed.next_node) if self.seed and self.seed.next_node else 0
        while at < trip.nodes:
            try:
                await self._visit(trip, at)
            except Exception:
                if not trip.told:
                    raise
            at += 1
        words: list[str] = await workflow.execute_activity(
            recite,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=_seconds(trip.heartbeat),
        )
        return words

    async def _visit(self, trip: Trip, at: int) -> None:
        options: dict[str, Any] = {
            "args": [trip, at],
            "start_to_close_timeout": timedelta(seconds=trip.attempt),
            "retry_policy": RetryPolicy(
                initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0
            ),
            "cancellation_type": workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
            if trip.told
            else workflow.ActivityCancellationType.TRY_CANCEL,
        }
        if trip.how == "local":
            if self.detour:
                self.detour = False
                await workflow.execute_local_activity(deliver, **{**options, "args": [trip, 100]})
            await workflow.execute_local_activity(deliver, **options)
            return
        body = deliver_sync if trip.how in ("thread", "process") else deliver
        started = [
            workflow.start_activity(body, **options, heartbeat_timeout=_seconds(trip.heartbeat))
            for _ in range(2 if trip.how == "pair" else 1)
        ]
        self.visiting = started[0]
        await asyncio.gather(*started)

    @workflow.signal
    def go_another_way(self) -> None:
        self.detour = True

    @workflow.signal
    def leave_it(self) -> None:
        """Cancel the step that is running; the agent goes on with the next."""
        self.visiting.cancel()


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
