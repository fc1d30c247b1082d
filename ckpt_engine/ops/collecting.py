"""Applying a retention policy: plan, then sweep."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial

from ..errors import CheckpointError, InvalidRequest, Retryable
from ..model import CollectReport, SnapshotConfig, id_from_bytes
from ..retention import KEEP_ALL, Candidate, RetentionPlan, RetentionPolicy, plan_retention
from ..store import HeadMoveRow, In, Pin, Store, TagRow, ThreadRow
from .place import Placed, StaleError
from .prepare import now_ms
from .read import moment
from .source import Source
from .sweeping import Session, Sweep, drop_checkpoints, drop_content, load, sweep_for
from .upkeep import Upkeep

__all__ = ["Collecting"]

_log = logging.getLogger("ckpt_engine")
_CHUNK = 500
_ATTEMPTS = 20
_FEWEST = 32  # checkpoints between two collections that run by themselves


class Collecting(Upkeep):
    """The verb that removes what a policy lets go."""

    def __init__(self, store: Store, config: SnapshotConfig) -> None:
        super().__init__(store, config)
        self._since: dict[int, int] = {}  # session -> checkpoints since it was collected
        self._enough: dict[int, int] = {}

    async def collect(
        self,
        policy: RetentionPolicy | None = None,
        *,
        thread_id: str | None = None,
        session_id: str | None = None,
        dry_run: bool = False,
    ) -> CollectReport:
        """Remove the checkpoints that a policy does not keep.

        Heads, branch points, tagged and pinned checkpoints, leaves, and whatever a survivor needs
        are never removed.

        Args:
            policy: What to keep; the configured one when absent.
            thread_id: Only this thread.
            session_id: Only this session; everything when neither is given.
            dry_run: Only report what would go.

        Example:
            for n in range(10):
                await engine.snapshot("chat", append=[n])
            plan = await engine.collect(KEEP_LAST_N(3), thread_id="chat", dry_run=True)
            assert len(plan.dropped) == 7
            report = await engine.collect(KEEP_LAST_N(3), thread_id="chat")
            assert report.dropped == plan.dropped
            assert (await engine.get_latest("chat")).messages == list(range(10))
        """
        if thread_id is not None and session_id is not None:
            raise InvalidRequest("give thread_id or session_id, not both")
        chosen = policy or self.config.retention
        name = thread_id or session_id
        sessions = await self._read(partial(_sessions, name=name))
        only = None if thread_id is None else [thread_id]
        dropped: list[str] = []
        kept: dict[str, int] = {}
        before = await self._store.size()
        items = 0
        for session in sessions:
            plan, sweep = await self._collect_one(session, chosen, only, dry_run=dry_run)
            dropped += plan.drop
            items += sweep.items_kept
            for reason, count in plan.counts.items():
                kept[str(reason)] = kept.get(str(reason), 0) + count
        freed = 0
        if dropped and not dry_run:
            try:
                await self._store.reclaim()
            except Retryable as err:
                _log.info("freed space is given back later: %s", err)
            freed = max(0, before - await self._store.size())
        return CollectReport(
            dropped=tuple(dropped),
            kept=kept,
            bytes_freed=freed,
            messages_kept=items,
            dry_run=dry_run,
        )

    async def _collect_one(
        self, session: int, policy: RetentionPolicy, only: list[str] | None, *, dry_run: bool
    ) -> tuple[RetentionPlan, Sweep]:
        for _ in range(_ATTEMPTS):
            plan, sweep = await self._read(
                partial(_plan, session=session, policy=policy, only=only)
            )
            if dry_run or not plan.drop:
                return plan, sweep
            try:
                await self._sweep(sweep)
            except StaleError:
                continue
            return plan, sweep
        raise StaleError

    async def _sweep(self, sweep: Sweep) -> None:
        for start in range(0, len(sweep.cids), _CHUNK):
            cids = sweep.cids[start : start + _CHUNK]
            await self._store.write(partial(drop_checkpoints, sweep=sweep, cids=cids))
        await self._store.write(partial(drop_content, sweep=sweep))
        self._caches.clear()

    def _committed(self, placed: Placed) -> None:
        super()._committed(placed)
        if self.config.retention == KEEP_ALL:
            return
        session = placed.thread.session
        self._since[session] = self._since.get(session, 0) + 1
        if self._since[session] >= self._enough.get(session, _FEWEST):
            self._work.set()
        self._begin_upkeep()

    async def _tidy(self) -> None:
        await super()._tidy()
        for session, since in list(self._since.items()):
            if self._closed or since < self._enough.get(session, _FEWEST):
                continue
            self._since[session] = 0
            try:
                plan, _ = await self._collect_one(
                    session, self.config.retention, None, dry_run=False
                )
            except CheckpointError as err:
                _log.info("collection of session %s is put off: %s", session, err)
            else:
                self._freed = self._freed or bool(plan.drop)
                # a quarter more than was kept: the cost a checkpoint stays the same
                self._enough[session] = max(_FEWEST, len(plan.kept) // 4)


def _sessions(source: Source, name: str | None) -> list[int]:
    if name is not None:
        return [source.thread(name).session]
    return sorted({row.session for row in source.tx.find(ThreadRow)})


def _plan(
    source: Source, session: int, policy: RetentionPolicy, only: list[str] | None
) -> tuple[RetentionPlan, Sweep]:
    tx, loaded = source.tx, load(source, session)
    moves = tx.find(HeadMoveRow, thread=In(list(loaded.threads)))
    undone = {(move.thread, move.undoes) for move in moves}
    returns = [m.from_id for m in moves if m.why == "rewind" and (m.thread, m.no) not in undone]
    tips = [row.open_tip for row in loaded.threads.values()]
    tags = tx.find(TagRow, thread=In(list(loaded.threads)))
    now = now_ms()
    pins = [pin for pin in tx.find(Pin) if pin.expires > now]
    plan = plan_retention(
        [_candidate(loaded, checkpoint_id) for checkpoint_id in loaded.by_id],
        policy,
        now=datetime.now(UTC),
        heads=_ids(loaded, [row.head for row in loaded.threads.values()]),
        origins=_ids(loaded, [row.origin for row in loaded.threads.values()]),
        tagged=_ids(loaded, [tag.checkpoint for tag in tags]),
        pinned=_ids(loaded, [pin.checkpoint for pin in pins]),
        needed=_ids(loaded, [*returns, *tips]),
        only_threads=only,
    )
    return plan, sweep_for(tx, loaded, plan.drop)


def _candidate(session: Session, checkpoint_id: str) -> Candidate:
    row = session.by_id[checkpoint_id]
    return Candidate(
        checkpoint_id,
        session.thread_of(row).name,
        row.step,
        session.parents[checkpoint_id],
        moment(row.at),
    )


def _ids(session: Session, cids: list[int | None]) -> list[str]:
    return [
        id_from_bytes(session.rows[cid].id)
        for cid in cids
        if cid is not None and cid in session.rows
    ]
