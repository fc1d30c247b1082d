"""An order with compensations: charge, reserve, ship; what was done is undone when one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from ckpt_engine.temporal import Rewindable

OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_attempts=2),
}


@dataclass
class Order:
    """What is bought, for how much, sent where; an empty address cannot be shipped to."""

    id: str
    amount: int
    address: str = "12 Canal Street"


@activity.defn
async def charge(order: Order) -> str:
    """Take the money."""
    return f"payment-{order.id}-{order.amount}"


@activity.defn
async def reserve(order: Order) -> str:
    """Put the goods aside."""
    return f"reservation-{order.id}"


@activity.defn
async def ship(order: Order) -> str:
    """Send the parcel."""
    if not order.address:
        raise ApplicationError("no address to ship to", non_retryable=True)
    return f"parcel-{order.id}"


@activity.defn
async def refund(payment: str) -> str:
    """Give the money back."""
    return f"refunded {payment}"


@activity.defn
async def release(reservation: str) -> str:
    """Put the goods back."""
    return f"released {reservation}"


@workflow.defn
class OrderWorkflow(Rewindable):
    """Straight-line code that knows nothing of checkpoints."""

    @workflow.run
    async def run(self, order: Order) -> list[str]:
        """Return what was done, in order."""
        done: list[str] = []
        undo: list[tuple[Callable[..., Any], str]] = []
        try:
            payment = await workflow.execute_activity(charge, order, **OPTIONS)
            done.append(payment)
            undo.append((refund, payment))
            reservation = await workflow.execute_activity(reserve, order, **OPTIONS)
            done.append(reservation)
            undo.append((release, reservation))
            done.append(await workflow.execute_activity(ship, order, **OPTIONS))
        except ActivityError:
            for compensation, what in reversed(undo):
                done.append(await workflow.execute_activity(compensation, what, **OPTIONS))
        return done


ACTIVITIES: list[Callable[..., Any]] = [charge, reserve, ship, refund, release]
