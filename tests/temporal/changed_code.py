"""The workflows of the examples after somebody changed which step they begin with."""

from __future__ import annotations

from temporalio import workflow

from ckpt_engine.temporal import Rewindable
from examples import approval, batch
from examples.order_saga import OPTIONS, Order, reserve


@workflow.defn(name="OrderWorkflow")
class ChangedOrder(Rewindable):
    @workflow.run
    async def run(self, order: Order) -> list[str]:
        return [await workflow.execute_activity(reserve, order, **OPTIONS)]


@workflow.defn(name="BatchWorkflow")
class ChangedBatch(Rewindable):
    """Lists one item more than it is asked for."""

    @workflow.run
    async def run(self, count: int) -> str:
        items = await workflow.execute_activity(
            batch.list_items, count + 1, start_to_close_timeout=batch.TIMEOUT
        )
        return str(items)


@workflow.defn(name="ApprovalWorkflow")
class ChangedApproval(Rewindable):
    """Reminds twice."""

    @workflow.signal
    def approve(self, by: str) -> None:
        pass

    @workflow.run
    async def run(self, what: str, patience_seconds: float) -> list[str]:
        return [
            await workflow.execute_activity(step, what, start_to_close_timeout=approval.TIMEOUT)
            for step in (approval.submit, approval.remind, approval.remind)
        ]
