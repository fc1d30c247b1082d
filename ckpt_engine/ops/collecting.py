"""Applying a retention policy: plan, then sweep."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Generic, TypeVar

from ..checks import check_flag
from ..config import SnapshotConfig
from ..errors import CheckpointError, InvalidRequest, Retryable
from ..model import id_from_bytes, ids_from_bytes
from ..reports import CollectReport
from ..retention import Candidates, KeepAll, OnDemand, RetentionPolicy, check_policy
from ..retention_plan import KeepReason, plan_retention
from ..store import HeadMoveRow, In, Pin, RunRow, Store, TagRow, ThreadRow, Tx
from .cache import Lru
from .dropping import check_unneeded, drop_checkpoints, drop_content, drop_states
from .place import Placed, StaleError
from .prepare import now_ms
from .read import moment
from .session import Session, load, picked, times_of
from .source import Source
from .sweeping import Sweep, sweep_for
from .upkeep import Upkeep

__all__ = ["Collecting"]

_log = logging.getLogger("ckpt_engine")
_CHUNK = 2500  # checkpoints that are removed in one write, so that others need not wait
_ATTEMPTS = 20
_FEWEST = 32  # checkpoints between two collections that run by themselves while an agent works
_READ = 8  # checkpoints that may be looked at, on average, for each that was committed
_IDLE = 5.0  # seconds without a commit after which a session is at rest, where none are configured

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class _Made(OnDemand[B], Generic[A, B]):
    """Values that are made from others."""

    make: Callable[[A], B]
    stored: Sequence[A]

    def __len__(self) -> int:
        return len(self.stored)

    def made(self, n: int) -> B:
        """Return the value made from the one at a position."""
        return self.make(self.stored[n])


class _Times(OnDemand[datetime]):
    """Times of commit, which are read when the first of them is asked for."""

    def __init__(self, tx: Tx, session: Session) -> None:
        self._of = tx, session
        self._read: list[int] | None = None

    def __len__(self) -> int:
        return len(self._of[1])

    def made(self, n: int) -> datetime:
        """Return the time of the checkpoint at a position."""
        if self._read is None:
            self._read = times_of(*self._of)
        return moment(self._read[n])


@dataclass(slots=True)
class _Since:
    """What this process committed to a session since it was last collected.

    Attributes:
        size: How many checkpoints it has, as far as is known; at least those of its largest thread.
        commits: How many of them are new.
        newest: When the last one was committed, in seconds.
    """

    size: int
    commits: int = 0
    newest: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a collection of one session does.

    Attributes:
        ids: Stored ids of what goes, oldest first.
        changed: Stored ids of what gets other parents.
        counts: Reason -> how many stay for it.
        sweep: How it is carried out.
    """

    ids: list[bytes]
    changed: list[bytes]
    counts: dict[KeepReason, int]
    sweep: Sweep


class Collecting(Upkeep):
    """The verb that removes what a policy lets go."""

    def __init__(self, store: Store, config: SnapshotConfig) -> None:
        super().__init__(store, config)
        self._since: dict[int, _Since] = {}  # by session
        self._kept: Lru[int, int] = Lru(10_000)  # session -> how many the last collection kept

    async def collect(
        self,
        policy: RetentionPolicy | None = None,
        *,
        thread_id: str | None = None,
        session_id: str | None = None,
        dry_run: bool = False,
    ) -> CollectReport:
        """Remove the checkpoints that a policy does not keep.

        Heads, branch points, tagged and pinned checkpoints, leaves, the merge bases of survivors,
        and whatever else one needs are never removed.

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
        check_flag(dry_run, "dry_run")
        chosen = self.config.retention if policy is None else check_policy(policy)
        name = session_id if thread_id is None else thread_id
        sessions, before = await asyncio.gather(
            self._read(partial(_sessions, name=name)), self._store.size()
        )
        only = None if thread_id is None else [thread_id]
        dropped: list[bytes] = []
        kept: Counter[str] = Counter()
        items = 0
        for session in sessions:
            plan = await self._collect_one(session, chosen, only, dry_run=dry_run)
            dropped += plan.ids
            items += plan.sweep.items_kept
            kept.update({str(reason): count for reason, count in plan.counts.items()})
        freed = 0
        if dropped and not dry_run:
            try:
                await self._store.reclaim()
            except Retryable as err:
                _log.info("freed space is given back later: %s", err)
            freed = max(0, before - await self._store.size())
            self._freed = True  # the files get shorter when there is time to write the log back
            self._begin_upkeep()
        return CollectReport(
            dropped=ids_from_bytes(dropped),
            kept=dict(kept),
            bytes_freed=freed,
            messages_kept=items,
            dry_run=dry_run,
        )

    async def _collect_one(
        self, session: int, policy: RetentionPolicy, only: list[str] | None, *, dry_run: bool
    ) -> _Plan:
        gone: list[bytes] = []  # by plans that were overtaken
        for _ in range(_ATTEMPTS):
            look = partial(_plan, session=session, policy=policy, only=only)
            plan = await self._read_anyway(look)
            if dry_run or not plan.ids:
                return replace(plan, ids=gone + plan.ids)
            try:
                await self._sweep(plan, gone)
            except StaleError:
                continue
            finally:
                # what is gone may stay: it is looked for again before a checkpoint goes on from it
                self._caches.checkpoints.drop(*plan.changed)
                self._caches.cids.drop(*plan.sweep.relink)
            return replace(plan, ids=gone)
        raise StaleError

    async def _sweep(self, plan: _Plan, gone: list[bytes]) -> None:
        """Carry out a plan; ``gone`` gathers the ids of what went."""
        states = plan.sweep.states_by_part(_CHUNK)
        for part, start in enumerate(range(0, len(plan.ids), _CHUNK)):
            last = part + 1 == len(states)
            await self._store.write(
                partial(_drop, sweep=plan.sweep, start=start, states=states[part], last=last)
            )
            gone += plan.ids[start : start + _CHUNK]

    def _committed(self, placed: Placed) -> None:
        super()._committed(placed)
        if isinstance(self.config.retention, KeepAll):
            return
        session = placed.thread.session
        since = self._since.get(session)
        if since is None:
            since = self._since[session] = _Since(self._kept.get(session) or 0)
        since.commits += 1
        since.newest = self._newest
        since.size = max(since.size, placed.thread.n_cp)
        if since.commits >= self._enough(session):
            self._work.set()
        self._begin_upkeep()

    def _enough(self, session: int) -> int:
        """Return after how many commits a session is collected: the cost of each stays the same."""
        return max(_FEWEST, (self._kept.get(session) or 0) // 4)

    async def _tidy(self) -> None:
        await super()._tidy()
        quiet = time.monotonic() - (self.config.idle_seal_seconds or _IDLE)
        for session, since in list(self._since.items()):
            if self._closed:
                return
            if since.commits >= self._enough(session):
                await self._collect_by_itself(session)
            elif since.newest < quiet:
                await self._collect_at_rest(session, since)

    async def _end_upkeep(self, deadline: float) -> None:
        await super()._end_upkeep(deadline)
        for session, since in list(self._since.items()):
            if time.monotonic() > deadline:
                return
            await self._collect_at_rest(session, since)

    async def _collect_at_rest(self, session: int, since: _Since) -> None:
        """Collect a session that nothing more is committed to for now, if that is worth it."""
        if random.random() * since.size < _READ * since.commits:  # noqa: S311  (nothing secret)
            await self._collect_by_itself(session)
        else:
            del self._since[session]

    async def _collect_by_itself(self, session: int) -> None:
        del self._since[session]
        try:
            plan = await self._collect_one(session, self.config.retention, None, dry_run=False)
        except InvalidRequest as err:
            _log.warning("session %s cannot be collected: %s", session, err)
        except CheckpointError as err:
            _log.info("collection of session %s is put off: %s", session, err)
        else:
            self._freed = self._freed or bool(plan.ids)
            self._kept.put(session, sum(plan.counts.values()))


def _sessions(source: Source, name: str | None) -> list[int]:
    if name is not None:
        return [source.thread(name).session]
    return sorted({row.session for row in source.tx.find(ThreadRow)})


def _drop(tx: Tx, *, sweep: Sweep, start: int, states: Sequence[int], last: bool) -> None:
    check_unneeded(tx, sweep)
    drop_checkpoints(tx, sweep, start, start + _CHUNK)
    drop_states(tx, states)
    if last:
        drop_content(tx, sweep)


def _plan(source: Source, session: int, policy: RetentionPolicy, only: list[str] | None) -> _Plan:
    tx, loaded = source.tx, load(source.tx, session)
    pks, threads = list(loaded.threads), loaded.threads.values()
    moves = tx.find(HeadMoveRow, thread=In(pks))
    undone = {(move.thread, move.undoes) for move in moves}
    returns = [m.from_id for m in moves if m.why == "rewind" and (m.thread, m.no) not in undone]
    now = now_ms()
    plan = plan_retention(
        _candidates(tx, loaded),
        policy,
        now=datetime.now(UTC),
        heads=loaded.positions(row.head for row in threads),
        origins=loaded.positions(row.origin for row in threads),
        tagged=loaded.positions(tag.checkpoint for tag in tx.find(TagRow, thread=In(pks))),
        pinned=loaded.positions(p.checkpoint for p in tx.find(Pin) if p.expires > now),
        needed=[
            *loaded.positions([*returns, *(row.open_tip for row in threads)]),
            *_starts(tx, loaded),
        ],
        only_threads=only,
    )
    sweep = sweep_for(tx, session, loaded, plan.drop)
    return _Plan(
        ids=picked(loaded.ids, plan.drop),
        changed=picked(loaded.ids, loaded.positions(sweep.relink)),
        counts=plan.counts,
        sweep=sweep,
    )


def _starts(tx: Tx, session: Session) -> Iterable[int]:
    """Return the first checkpoint of each thread that a workflow runs: what that was started with.

    Without it no other run could take up a session that has ended.
    """
    (ran,) = tx.columns(RunRow, "thread", thread=In(list(session.threads)))
    if not ran:
        return []
    firsts = dict(zip(reversed(session.lineage), range(len(session) - 1, -1, -1), strict=True))
    found: dict[int, int] = {}
    for lineage, n in firsts.items():
        thread = session.lineages[lineage].thread
        found[thread] = min(n, found.get(thread, n))
    return [found[thread] for thread in set(ran) & found.keys()]


def _candidates(tx: Tx, session: Session) -> Candidates:
    names = {pk: session.threads[line.thread].name for pk, line in session.lineages.items()}
    return Candidates(
        ids=_Made(id_from_bytes, session.ids),
        threads=picked(names, session.lineage),
        steps=session.steps,
        times=_Times(tx, session),
        firsts=session.firsts,
        further=session.further,
    )
