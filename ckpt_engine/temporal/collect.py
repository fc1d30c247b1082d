"""Retention on Temporal: a workflow that collects, to be started by a schedule or by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from temporalio import workflow
from temporalio.common import RetryPolicy

from .contract import COLLECT

__all__ = ["CollectRequest", "CollectWorkflow"]


class CollectRequest(BaseModel):
    """What to collect.

    Attributes:
        keep: The policy in words (see :func:`ckpt_engine.retention_words.parse_retention`); the
            engine's own when empty.
        session: Only this session; every one when absent.
        dry_run: Only report what would go.
        optimize: Also pack rows and give space back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: str = ""
    session: str | None = None
    dry_run: bool = False
    optimize: bool = True


@workflow.defn(name="ckpt_collect")
class CollectWorkflow:
    """Removes what a retention policy does not keep; comes with the plugin.

    The result is a :class:`~ckpt_engine.CollectReport` in short: counts, not ids.
    """

    @workflow.run
    async def run(self, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect once."""
        report: dict[str, Any] = await workflow.execute_activity(
            COLLECT,
            request or {},
            start_to_close_timeout=timedelta(hours=6),
            heartbeat_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=5),
        )
        return report
