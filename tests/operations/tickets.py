"""A workflow that says more of itself, for those who search, as it goes on."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import SearchAttributeKey

from ckpt_engine.temporal import Rewindable, current_step

CUSTOMER = SearchAttributeKey.for_keyword("Customer")
URGENCY = SearchAttributeKey.for_int("Urgency")


@activity.defn
async def handle(what: str, following: str) -> str:
    (await current_step()).next_node = following
    return what


@workflow.defn
class Ticket(Rewindable, resume="next_node"):
    """How urgent it is, is known after the first step; a child begins after that."""

    def __init__(self) -> None:
        self.solved = False

    @workflow.run
    async def run(self) -> str:
        if self.seed is None:
            await self._handle("read", "solve")
            workflow.upsert_search_attributes([URGENCY.value_set(3)])
        await workflow.wait_condition(lambda: self.solved)
        return await self._handle("answer", "end")

    async def _handle(self, what: str, following: str) -> str:
        return await workflow.execute_activity(
            handle, args=[what, following], start_to_close_timeout=timedelta(seconds=30)
        )

    @workflow.signal
    def solve(self) -> None:
        self.solved = True
