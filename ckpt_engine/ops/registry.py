"""Threads, sessions, tags, and which workflow runs what."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime

from ..checks import check_count, check_ids, check_name, check_text, check_time
from ..errors import CheckpointNotFound, Erased, InvalidRequest, NotInSession, ThreadNotFound, shown
from ..model import ID_LENGTH, CheckpointInfo, Thread, WorkflowRun, id_from_bytes, id_to_bytes
from ..store import CheckpointRow, In, Pin, RunRow, TagRow, ThreadRow, Tx, Upto
from . import heads, read
from .base import EngineBase
from .called import session_called, thread_called
from .pins import drop_pins, put_pins
from .prepare import now_ms
from .roots import make_root
from .source import Source
from .tombstones import check_unerased
from .walk import session_lineages

__all__ = ["Registry"]

_LONGEST = 1e10  # seconds: three hundred years


class Registry(EngineBase):
    """The verbs that name things."""

    async def create_thread(self, thread_id: str, *, created_at: datetime | None = None) -> Thread:
        """Make a root thread without checkpoints; return the one there is, if there is one.

        The name of a thread that was erased is taken into use again.

        Args:
            thread_id: Its id.
            created_at: When it was made; now when absent. Without a time zone it is in UTC.

        Raises:
            InvalidRequest: The id is no name, or the time none that can be stored.

        Example:
            await engine.create_thread("chat")
            assert (await engine.get_thread("chat")).head is None
        """
        check_time(created_at, "created_at")
        at = now_ms() if created_at is None else _stored_time(created_at)
        row = None
        with contextlib.suppress(Erased):
            row = await self._read(lambda source: source.maybe_thread(thread_id))
        if row is None:
            row = await self._write(lambda tx, _: make_root(tx, thread_id, at, anew=True))
        made = row
        return (await self._read(lambda source: read.threads(source, [made])))[0]

    async def get_thread(self, thread_id: str) -> Thread:
        """Return a thread.

        Raises:
            ThreadNotFound: There is none of this id.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            assert (await engine.get_thread("chat")).head == first
        """
        return await self._read(lambda source: read.threads(source, [source.thread(thread_id)])[0])

    async def list_threads(self, session_id: str) -> list[Thread]:
        """Return a session's threads, the root first, then in the order of their making.

        Args:
            session_id: The session, or any thread of it.

        Example:
            first = await engine.snapshot("chat")
            await engine.branch(first, "cheap")
            assert [t.branch for t in await engine.list_threads("chat")] == ["main", "cheap"]
        """
        return await self._read(
            lambda source: read.threads(source, session_threads(source, session_id))
        )

    async def list_sessions(
        self, *, limit: int = 50, before: datetime | None = None
    ) -> list[Thread]:
        """Return root threads, newest first.

        Args:
            limit: At most so many.
            before: Only those made before this time.

        Example:
            await engine.snapshot("chat")
            await engine.snapshot("other")
            assert [root.id for root in await engine.list_sessions()] == ["other", "chat"]
        """
        check_count(limit, "limit")
        check_time(before, "before")

        def find(source: Source) -> list[Thread]:
            rows: list[ThreadRow] = []
            below = None
            latest = _millis(before) if before is not None else None
            while len(rows) < limit:
                page = source.tx.find(
                    ThreadRow, **({"pk": Upto(below)} if below else {}), order="-pk", limit=500
                )
                rows += [
                    row
                    for row in page
                    if row.session == row.pk and (latest is None or row.at < latest)
                ]
                if len(page) < 500:
                    break
                below = page[-1].pk - 1
            rows.sort(key=lambda row: (row.at, row.pk), reverse=True)
            return read.threads(source, rows[:limit])

        return await self._read(find)

    async def supersede(self, thread_id: str, by: str) -> None:
        """Record that a rewind started thread ``by`` in place of this one, and make it active.

        Raises:
            NotInSession: They belong to different sessions.

        Example:
            first = await engine.snapshot("chat")
            again = await engine.branch(first, "again")
            await engine.supersede("chat", by=again.id)
            assert (await engine.active_thread("chat")).id == again.id
        """
        await self._write(lambda tx, source: heads.supersede(tx, source, thread_id, by))
        self._caches.threads.drop(check_name(thread_id, "a thread id"))

    async def active_thread(self, session_id: str) -> Thread:
        """Return the thread that a session goes on with.

        Raises:
            ThreadNotFound: There is no such session.

        Example:
            await engine.snapshot("chat")
            assert (await engine.active_thread("chat")).id == "chat"
        """
        return await self._read(
            lambda source: read.threads(source, [heads.active(source, session_id)])[0]
        )

    async def promote(self, thread_id: str) -> Thread:
        """Make a thread the one that its session goes on with.

        Example:
            first = await engine.snapshot("chat")
            branch = await engine.branch(first, "cheap")
            await engine.promote(branch.id)
            assert (await engine.active_thread("chat")).id == branch.id
        """
        row = await self._write(lambda tx, source: heads.promote(tx, source, thread_id))
        return (await self._read(lambda source: read.threads(source, [row])))[0]

    # --- workflows ---

    async def register_run(self, thread_id: str, run: WorkflowRun) -> None:
        """Record which workflow runs a thread; the newest counts.

        Example:
            await engine.create_thread("chat")
            run = WorkflowRun(
                namespace="default", workflow_id="w", run_id="r", workflow_type="T", task_queue="q"
            )
            await engine.register_run("chat", run)
            assert await engine.runs("chat") == {"chat": run}
        """
        if not isinstance(run, WorkflowRun):
            raise InvalidRequest(f"register_run takes a WorkflowRun, not a {type(run).__name__}")
        given = {field.name: getattr(run, field.name) for field in fields(run)}
        if run.supervisor is None:
            del given["supervisor"]
        run = replace(run, **{name: check_text(text, name) for name, text in given.items()})

        def record(tx: Tx, source: Source) -> None:
            thread = source.thread(thread_id)
            newest = tx.find(RunRow, thread=thread.pk, order="-no", limit=1)
            if newest and read.run_of(newest[0]) == run:
                return
            number = thread.n_run + 1
            tx.insert(
                RunRow(
                    thread.pk,
                    number,
                    run.namespace,
                    run.workflow_id,
                    run.run_id,
                    run.workflow_type,
                    run.task_queue,
                    run.supervisor,
                    now_ms(),
                )
            )
            tx.update(thread._replace(n_run=number))

        await self._write(record)

    async def runs(self, session_id: str) -> dict[str, WorkflowRun]:
        """Return thread id -> the workflow that runs it, for the threads of a session.

        Example:
            await engine.create_thread("chat")
            assert await engine.runs("chat") == {}
        """
        return await self._read(
            lambda source: session_runs(source, session_threads(source, session_id))
        )

    async def find_sessions(self, workflow_id: str) -> list[Thread]:
        """Return the sessions of which this workflow has run a thread, newest first.

        Example:
            assert await engine.find_sessions("no such workflow") == []
        """
        workflow_id = check_name(workflow_id, "a workflow id")

        def find(source: Source) -> list[Thread]:
            ran = [row.thread for row in source.tx.find(RunRow, workflow_id=workflow_id)]
            sessions = [row.session for row in source.tx.find(ThreadRow, pk=In(ran))]
            rows = source.tx.find(ThreadRow, pk=In(sessions))
            rows.sort(key=lambda row: (row.at, row.pk), reverse=True)
            return read.threads(source, rows)

        return await self._read(find)

    async def find_run(self, workflow_id: str) -> tuple[Thread, WorkflowRun] | None:
        """Return the newest thread that this workflow has run, and the run.

        Example:
            assert await engine.find_run("no such workflow") is None
        """
        workflow_id = check_name(workflow_id, "a workflow id")

        def find(source: Source) -> tuple[Thread, WorkflowRun] | None:
            rows = source.tx.find(RunRow, workflow_id=workflow_id)
            if not rows:
                return None
            newest = max(rows, key=lambda row: (row.at, row.thread, row.no))
            thread = read.threads(source, [source.thread_by_pk(newest.thread)])[0]
            return thread, read.run_of(newest)

        return await self._read(find)

    # --- names of checkpoints ---

    async def resolve(self, ref: str, *, session_id: str | None = None) -> CheckpointInfo:
        """Return the checkpoint of an id, or of the first digits of one.

        Args:
            ref: The id, or at least four of its digits, in lower case, that are unique (in the
                session, if given).
            session_id: Where to look; everywhere when absent.

        Raises:
            CheckpointNotFound: There is none.
            Erased: It is the whole id of one that was erased.
            NotInSession: It is a whole id, of a checkpoint of another session.
            InvalidRequest: These are no digits of an id, too few, or not unique.

        Example:
            first = await engine.snapshot("chat")
            assert (await engine.resolve(first[:8])).id == first
        """
        if not isinstance(ref, str) or not re.fullmatch(r"[0-9a-f]{4,32}", ref):
            raise InvalidRequest(
                f"{shown(ref)} is no checkpoint id: give 4 to 32 hex digits of one"
            )

        def find(source: Source) -> CheckpointInfo:
            rows = _matching(source, ref, session_id)
            if not rows and len(ref) == ID_LENGTH:
                check_unerased(source.tx, id_to_bytes(ref), f"checkpoint {ref}")
            if not rows:
                if session_id is None:
                    raise CheckpointNotFound(f"there is no checkpoint {ref}")
                called = _called(source, session_id)
                if len(ref) == ID_LENGTH and _matching(source, ref, None):
                    raise NotInSession(f"{ref} does not belong to {called}")
                raise CheckpointNotFound(f"there is no checkpoint {ref} in {called}")
            if len(rows) > 1:
                several = ", ".join(id_from_bytes(row.id)[: len(ref) + 8] for row in rows[:5])
                raise InvalidRequest(f"{ref} is ambiguous: {several}")
            return read.infos(source, rows)[0]

        return await self._read(find)

    async def tag(self, checkpoint_id: str, name: str) -> None:
        """Give a checkpoint a name; several may have the same.

        Example:
            first = await engine.snapshot("chat")
            await engine.tag(first, "best")
            assert (await engine.get_info(first)).tags == ("best",)
        """
        name = check_name(name, "a tag")

        def put(tx: Tx, source: Source) -> None:
            row = source.checkpoint(checkpoint_id)
            if tx.one(TagRow, checkpoint=row.cid, name=name) is not None:
                return
            thread = source.thread_by_pk(source.lineage(row.lineage).thread)
            tx.insert(TagRow(row.cid, name, thread.pk, now_ms()))
            tx.update(thread._replace(n_tag=thread.n_tag + 1))

        await self._write(put)

    async def untag(self, thread_or_session: str, name: str) -> int:
        """Take a name from every checkpoint of a thread (of a session, given its root).

        Returns:
            How many had it.

        Example:
            await engine.snapshot("chat", tags=["best"])
            assert await engine.untag("chat", "best") == 1
        """
        name = check_name(name, "a tag")

        def take(tx: Tx, source: Source) -> int:
            gone = 0
            for thread in _threads_of(source, thread_or_session):
                count = tx.delete(TagRow, thread=thread.pk, name=name)
                if count:
                    tx.update(thread._replace(n_tag=thread.n_tag - count))
                gone += count
            return gone

        return await self._write(take)

    async def resolve_tag(self, thread_or_session: str, name: str) -> CheckpointInfo:
        """Return the checkpoint with this name; of several, the one that got it last.

        Raises:
            CheckpointNotFound: None has it.

        Example:
            first = await engine.snapshot("chat", tags=["best"])
            assert (await engine.resolve_tag("chat", "best")).id == first
        """
        name = check_name(name, "a tag")

        def find(source: Source) -> CheckpointInfo:
            threads = [row.pk for row in _threads_of(source, thread_or_session)]
            tags = source.tx.find(TagRow, thread=In(threads), name=name)
            if not tags:
                of = _called(source, thread_or_session)
                raise CheckpointNotFound(f"no checkpoint of {of} has the tag {name!r}")
            newest = max(tags, key=lambda tag: (tag.at, tag.checkpoint))
            return read.infos(source, [source.by_cid(newest.checkpoint)])[0]

        return await self._read(find)

    async def pin(self, checkpoint_ids: Sequence[str], owner: str, *, ttl_seconds: float) -> None:
        """Keep checkpoints from collection until the lease ends; again, to renew it.

        Raises:
            InvalidRequest: The owner is no name, or the time no number of seconds above 0.
            CheckpointNotFound: One of them is not there.

        Example:
            ids = [await engine.snapshot("chat") for _ in range(3)]
            await engine.pin(ids[:1], "my run", ttl_seconds=60)
            report = await engine.collect(KEEP_LAST_N(1), thread_id="chat")
            assert report.dropped == (ids[1],)
        """
        check_ids(checkpoint_ids, "checkpoint_ids")
        owner = check_name(owner, "an owner")
        number = isinstance(ttl_seconds, (int, float)) and not isinstance(ttl_seconds, bool)
        if not number or not 0 < ttl_seconds < _LONGEST:
            raise InvalidRequest(f"ttl_seconds must be above 0, not {shown(ttl_seconds)}")

        def put(tx: Tx, source: Source) -> None:
            rows = [source.checkpoint(i) for i in dict.fromkeys(checkpoint_ids)]
            put_pins(tx, rows, owner, now_ms() + int(ttl_seconds * 1000))

        await self._write(put)

    async def unpin(self, owner: str) -> None:
        """End an owner's leases.

        Example:
            first = await engine.snapshot("chat")
            await engine.pin([first], "my run", ttl_seconds=60)
            await engine.unpin("my run")
        """
        owner = check_name(owner, "an owner")
        await self._write(lambda tx, _: drop_pins(tx, tx.find(Pin, owner=owner)))


def session_threads(source: Source, name: str) -> list[ThreadRow]:
    """Return the threads of the session that a thread belongs to, the root first."""
    session = source.thread(name).session
    rows = source.tx.find(ThreadRow, session=session)
    return sorted(rows, key=lambda row: (row.pk != session, row.pk))


def session_runs(source: Source, threads: list[ThreadRow]) -> dict[str, WorkflowRun]:
    """Return thread id -> its newest run, where it has one."""
    newest: dict[int, RunRow] = {}
    for row in source.tx.find(RunRow, thread=In([t.pk for t in threads])):
        if row.thread not in newest or row.no > newest[row.thread].no:
            newest[row.thread] = row
    return {t.name: read.run_of(newest[t.pk]) for t in threads if t.pk in newest}


def _threads_of(source: Source, name: str) -> list[ThreadRow]:
    """Return a thread, or all of a session given its root."""
    thread = source.thread(name)
    return session_threads(source, name) if thread.session == thread.pk else [thread]


def _called(source: Source, name: str) -> str:
    thread = source.thread(name)
    is_root = thread.session == thread.pk
    return session_called(source, thread) if is_root else thread_called(source, thread)


def _matching(source: Source, ref: str, session_id: str | None) -> list[CheckpointRow]:
    if session_id is None:
        ids = source.tx.match_ids(ref, 20)
        return source.tx.find(CheckpointRow, id=In(ids)) if ids else []
    root = source.thread(session_id)
    if root.session != root.pk:
        raise ThreadNotFound(f"{session_id!r} is a thread, not a session (its root thread's id)")
    lineages = session_lineages(source, root.pk)
    if len(ref) == 32:
        row = source.maybe_checkpoint(bytes.fromhex(ref[20:] + ref[:20]))
        return [row] if row is not None and row.lineage in lineages else []
    ids = source.tx.match_ids(ref, 100_000)
    rows = source.tx.find(CheckpointRow, id=In(ids)) if ids else []
    return [row for row in rows if row.lineage in lineages]


def _stored_time(at: datetime) -> int:
    """Return milliseconds since 1970.

    Raises:
        InvalidRequest: They could not be read back as a time.
    """
    try:
        read.moment(millis := _millis(at))
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(f"created_at is too early or too late: {shown(at)}") from None
    return millis


def _millis(at: datetime) -> int:
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
