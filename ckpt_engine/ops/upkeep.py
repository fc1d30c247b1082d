"""What the engine does beside the agents' work: packing rows, and giving space back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from ..config import SnapshotConfig
from ..errors import CheckpointError
from ..reports import OptimizeReport
from ..store import Expect, Store
from . import sealing
from .base import EngineBase
from .cache import Lru
from .place import Placed

__all__ = ["Upkeep"]

_log = logging.getLogger("ckpt_engine")
_ENOUGH = 32  # loose rows of a lineage that are packed when there is time
_AT_LAST = 128  # that are packed however busy the agents are
_LULL = 0.1  # seconds without a commit after which there is time to pack
_LOOK = 0.5  # seconds between looking for such a lull


@dataclass(slots=True)
class _Loose:
    """Rows written to a lineage since it was packed, and when the last one was."""

    rows: int = 0
    newest: float = 0.0


class Upkeep(EngineBase):
    """Background work; it never raises into an agent's call."""

    def __init__(self, store: Store, config: SnapshotConfig) -> None:
        super().__init__(store, config)
        self._loose: dict[int, _Loose] = {}  # by lineage
        self._packed: Lru[int, int] = Lru(10_000)  # lineage -> key up to which its rows are packed
        self._newest = 0.0
        self._freed = False  # there may be pages to give back
        self._gone = 0  # rows removed since space was reclaimed for others
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()

    def _committed(self, placed: Placed) -> None:
        """Take note of a commit."""
        self._newest = time.monotonic()
        if not self.config.idle_seal_seconds:
            return
        lineage = placed.row.lineage
        if placed.batches:
            loose = self._loose.get(lineage)
            if loose is None:
                loose = self._loose[lineage] = _Loose()
                if self._packed.get(lineage) is None:
                    self._packed.put(lineage, placed.batches[0] - 1)
            loose.rows += len(placed.batches)
            loose.newest = self._newest
            if loose.rows >= _AT_LAST:
                self._work.set()
        self._begin_upkeep()

    def _begin_upkeep(self) -> None:
        """See to it that the background work runs, also where the event loop is another one now."""
        if not (_runs(self._task) or self._closed):
            self._work = asyncio.Event()
            self._task = asyncio.create_task(self._keep_up(), name="ckpt upkeep")

    async def _keep_up(self) -> None:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                wait = _LOOK if self._loose else max(_LOOK, self.config.idle_seal_seconds)
                await asyncio.wait_for(self._work.wait(), wait)
            self._work.clear()
            try:
                await self._tidy()
                if self._freed and not self._closed and time.monotonic() - self._newest > _LULL:
                    self._freed = False
                    await self._store.reclaim()
                    await self._store.write_back()
            except CheckpointError as err:
                _log.info("upkeep is put off: %s", err)

    async def _tidy(self) -> None:
        """Pack the lineages that have grown enough or were idle; few while agents are busy."""
        due = self._due()
        for start in range(0, len(due), sealing.TOGETHER):
            if self._closed:
                return
            self._gone += await self._seal(due[start : start + sealing.TOGETHER])
            self._freed = True
            if self._store.reclaim_after and self._gone >= self._store.reclaim_after:
                self._gone = 0
                await self._store.reclaim()

    def _due(self) -> list[int]:
        """Return the lineages that are to be packed now."""
        now = time.monotonic()
        enough = _ENOUGH if now - self._newest > _LULL else _AT_LAST
        idle = now - self.config.idle_seal_seconds
        return [
            n for n, loose in self._loose.items() if loose.rows >= enough or loose.newest < idle
        ]

    async def _seal(self, lineages: Sequence[int], *, whole: bool = False) -> int:
        """Pack a few lineages together; return how many rows became fewer."""
        after: dict[int, int] = {}
        for lineage in lineages:
            self._loose.pop(lineage, None)
            after[lineage] = 0 if whole else self._packed.get(lineage) or 0
        gone = 0
        while after:
            plan = await self._store.read(partial(sealing.plan_blocks, after=after, whole=whole))
            fewer = await self._replace(plan) if plan.blocks else 0
            gone += fewer
            for lineage, key in plan.done.items():
                self._packed.put(lineage, key)
                del after[lineage]
            if not (plan.done or fewer):
                break  # others are packing it
        return gone

    async def _replace(self, plan: sealing.Plan) -> int:
        bodies = await asyncio.to_thread(sealing.sealed_bodies, plan.blocks)
        return await self._store.write(
            partial(sealing.replace_rows, blocks=plan.blocks, bodies=bodies), Expect(plan.threads)
        )

    async def optimize(self) -> OptimizeReport:
        """Pack all rows and give free space back to the file system.

        On PostgreSQL agents have to wait while the tables are rewritten.

        Example:
            await engine.snapshot("chat", append=["hello"])
            report = await engine.optimize()
            assert report.size_after <= report.size_before
        """
        self._check_open()
        before = await self._store.size()
        gone, last = 0, 0
        while lineages := await self._store.read(
            partial(sealing.lineages_after, pk=last, limit=500)
        ):
            for start in range(0, len(lineages), sealing.TOGETHER):
                gone += await self._seal(lineages[start : start + sealing.TOGETHER], whole=True)
            last = lineages[-1]
        await self._store.reclaim(thorough=True)
        await self._store.write_back()
        return OptimizeReport(sealed=gone, size_before=before, size_after=await self._store.size())

    async def _end_upkeep(self, deadline: float) -> None:
        """Stop the background work; pack what can be until then, by the monotonic clock."""
        task, self._task = self._task, None
        if task is not None and _runs(task):
            self._work.set()
            await task
        try:
            while time.monotonic() < deadline and self._loose:
                await self._seal(list(islice(self._loose, sealing.TOGETHER)))
        except CheckpointError as err:
            _log.info("packing is left to the next time: %s", err)


def _runs(task: asyncio.Task[None] | None) -> bool:
    """Tell whether a task goes on; one begun as its event loop was ending never does."""
    return task is not None and not task.done() and not task.get_loop().is_closed()
