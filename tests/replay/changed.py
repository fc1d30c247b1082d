"""The order workflow after somebody changed its first step without a patch."""

from __future__ import annotations

from temporalio import workflow

from ckpt_engine.temporal import Rewindable
from examples.order_saga import OPTIONS, Order, reserve

__all__ = ["ChangedOrder"]


@workflow.defn(name="OrderWorkflow")
class ChangedOrder(Rewindable):
    @workflow.run
    async def run(self, order: Order) -> list[str]:
        return [await workflow.execute_activity(reserve, order, **OPTIONS)]
