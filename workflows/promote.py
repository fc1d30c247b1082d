"""Promotion: a branch becomes what its session goes on with, as one durable step."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from ckpt_engine.experiments.report import Promotion

    from .experiment_messages import PromoteAsk

__all__ = ["PromoteWorkflow"]


@workflow.defn
class PromoteWorkflow:
    """Promotes a branch as one durable step; its history and result are the record."""

    @workflow.run
    async def run(self, ask: PromoteAsk) -> Promotion:
        """Promote the branch and return what was done, by whom and why."""
        result: Promotion = await workflow.execute_activity(
            "experiment_promote",
            ask,
            result_type=Promotion,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=30)),
        )
        return result
