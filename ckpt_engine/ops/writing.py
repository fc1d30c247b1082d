"""Taking checkpoints: snapshots, and the steps of workflows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .. import codec
from ..checks import (
    check_ids,
    check_list,
    check_name,
    check_text,
    checked_object,
    checked_tags,
)
from ..errors import (
    CheckpointError,
    CheckpointNotFound,
    IdReused,
    InvalidRequest,
    NotInSession,
)
from ..model import (
    CommittedStep,
    JoinedContent,
    ModelOrMapping,
    SnapshotTrigger,
    StepCommit,
    id_from_bytes,
    id_to_bytes,
    new_stored_id,
)
from ..store import CheckpointRow, Expect, Tx
from ..triggers import parse_trigger
from . import prepare
from .contents import content_after, content_of, copied
from .drafting import Drafting, check_step, given_by, metadata_of
from .heads import moved_on
from .join import Joined, join
from .place import Placed, StaleError, place
from .prepare import Draft, Given
from .read import result_of
from .roots import make_root
from .source import MESSAGES, Caches, Source
from .tombstones import check_unerased, thread_key
from .travel import UNSET, Unset, check_head

__all__ = ["Writing"]

_log = logging.getLogger("ckpt_engine")
_ATTEMPTS = 10  # before a draft is made within the transaction, where nobody can be first


class Writing(Drafting):
    """The verbs that add checkpoints."""

    async def snapshot(
        self,
        thread_id: str,
        *,
        messages: Sequence[Any] | None = None,
        append: Sequence[Any] | None = None,
        state: ModelOrMapping | None = None,
        tools_result: Any = None,
        trigger: SnapshotTrigger = SnapshotTrigger.MANUAL,
        parent_checkpoint_id: str | None = None,
        expected_head: str | Unset | None = UNSET,
        next_node: str | None = None,
        node: str | None = None,
        tags: Sequence[str] = (),
        summary: str | None = None,
        metadata: ModelOrMapping | None = None,
    ) -> str | None:
        """Commit one checkpoint and return its id, or ``None`` when its trigger is not enabled.

        Args:
            thread_id: The thread; for an unknown id a new root thread is made.
            messages: The whole conversation, or
            append: only what is new in it; neither for no change.
            state: The whole state, a dict or a pydantic model; unchanged from the parent when
                absent.
            tools_result: The result of the step.
            trigger: Why.
            parent_checkpoint_id: The checkpoint to go on from; the thread's head when absent.
            expected_head: The head that the caller has read and goes on from (``None`` for none);
                whatever is the head by then when absent.
            next_node: What the agent was to do next.
            node: The step that made it.
            tags: Names to give it.
            summary: One line for people; derived from the content when absent.
            metadata: Small facts (JSON object or pydantic model); ``late``, ``gap``, ``disputed``,
                ``merged`` and ``schema`` are the engine's own names, and understood as such.

        Raises:
            InvalidRequest: Both ``messages`` and ``append`` were given, or both
                ``parent_checkpoint_id`` and ``expected_head``.
            Conflict: The head is another one than ``expected_head``: somebody was first.
            Unstorable: A value cannot be stored; the message gives the path to it.
            TooLarge: The snapshot is above ``max_snapshot_size_mb``.
            CheckpointNotFound: There is no such parent.
            NotInSession: The parent belongs to another session.

        Example:
            await engine.snapshot("chat", append=[{"role": "user", "content": "hello"}])
            await engine.snapshot(
                "chat",
                append=[{"role": "assistant", "content": "hi"}],
                state={"mood": "good"},
                trigger=SnapshotTrigger.LLM_CALL,
                tags=["greeted"],
            )
            latest = await engine.get_latest("chat")
            assert (latest.step, latest.message_count, latest.tags) == (1, 2, ("greeted",))
        """
        trigger = parse_trigger(trigger)
        if trigger not in self.config.triggers:
            _log.info("no snapshot of %s: trigger %s is not enabled", thread_id, trigger)
            return None
        if messages is not None and append is not None:
            raise InvalidRequest("give messages (all) or append (the new ones), not both")
        if parent_checkpoint_id is not None and expected_head is not UNSET:
            raise InvalidRequest("give parent_checkpoint_id or expected_head, not both")
        check_head(expected_head)
        thread_id = check_name(thread_id, "a thread id")
        node = None if node is None else check_text(node, "node")
        next_node = None if next_node is None else check_text(next_node, "next_node")
        summary = None if summary is None else check_text(summary, "summary")
        stored_id = new_stored_id()
        given = Given(
            messages=messages,
            append=() if append is None else append,
            state=None if state is None else checked_object(state, "state"),
            tools_result=tools_result,
            next_node=next_node,
            summary=summary,
            metadata=None if metadata is None else checked_object(metadata, "metadata"),
            node=node,
            tags=() if tags == () else checked_tags(tags),
        )
        given.check()

        def build(late: bool, source: Source) -> Draft:
            draft = self._snapshot_draft(source, thread_id, parent_checkpoint_id, given)
            if not isinstance(expected_head, Unset):
                _check_head(source, draft, expected_head)
            draft.id, draft.trigger = stored_id, trigger
            return draft

        await self._commit(thread_id, build, given)
        return id_from_bytes(stored_id)

    async def snapshot_safe(self, thread_id: str, **given: Any) -> str | None:
        """Do as :meth:`snapshot`, but never raise: log what went wrong and return ``None``.

        Where another process holds the database, it gives up after ``busy_timeout``, as that does.

        Example:
            assert await engine.snapshot_safe("chat", append=[object()]) is None
            assert await engine.snapshot_safe("chat", append=["hello"]) is not None
        """
        try:
            return await self.snapshot(thread_id, **given)
        except Exception as err:  # noqa: BLE001  (that is the promise)
            _log.warning("no snapshot of %s: %s", thread_id, err, exc_info=not _ours(err))
            return None

    async def commit_step(self, step: StepCommit) -> CommittedStep:
        """Commit a workflow's step; a known id answers with what is stored for it.

        Raises:
            IdReused: The id is known, but records another step.
            ThreadNotFound: There is no such thread.
            CheckpointNotFound: A parent is not committed (without ``fallback_to_head``).
            NotInSession: A parent belongs to another session.
            InvalidRequest: The step is not greater than its parents', or something in it is of the
                wrong type or contradicts something else.
            Unstorable: A value cannot be stored.
            TooLarge: The step is above ``max_snapshot_size_mb``.

        Example:
            await engine.create_thread("chat")
            step = StepCommit(
                checkpoint_id=new_checkpoint_id(), thread_id="chat", step=0, parents=()
            )
            assert (await engine.commit_step(step)).created
            assert not (await engine.commit_step(step)).created  # a second attempt changes nothing
        """
        step = check_step(step)
        stored_id = id_to_bytes(step.checkpoint_id)
        given = given_by(step)
        try:
            found = await self._commit(
                step.thread_id,
                lambda late, source: self._step_draft(source, step, given, stored_id, late=late),
                given,
                ids=(stored_id,),
            )
        except CheckpointNotFound:
            known = await self._read(lambda source: self._known(source, step, given))
            if known is None:
                raise
            return known
        if isinstance(found, Placed):
            return CommittedStep(
                checkpoint_id=step.checkpoint_id,
                created=True,
                tools_result=step.tools_result,
                late=bool(found.late),
            )
        answer = await self._read(lambda source: self._known(source, step, given))
        assert answer is not None
        return answer

    async def join(self, parents: Sequence[str]) -> JoinedContent:
        """Return the content that a step with these parents starts from, without committing.

        Raises:
            CheckpointNotFound: A parent was never committed, or is gone; what was collected since
                may still be answered from memory.
            NotInSession: The parents belong to different sessions.

        Example:
            first = await engine.snapshot("chat", append=["hello"])
            assert (await engine.join([first])).messages == ["hello"]
        """
        check_ids(parents, "parents")

        def joined(source: Source) -> JoinedContent:
            rows = [source.checkpoint(parent) for parent in dict.fromkeys(parents)]
            start = join(source, rows)
            base = content_of(source, self._caches, start.prefix)
            if len(rows) < 2:
                return JoinedContent(messages=copied(base.messages), state=copied(base.state))
            _check_one_session(source, rows)
            messages = _joined_log(source, start, MESSAGES, lambda: copied(base.messages))
            packed = start.state
            if packed is None:
                packed = source.state(rows[0].state).values
            state = {
                key: _joined_log(source, start, key, partial(_values, source, start.prefix, key))
                if value == codec.LOG_PLACE
                else codec.unpack(value, source.blobs)
                for key, value in packed.items()
            }
            return JoinedContent(messages=messages, state=state, disputed=start.disputed)

        return await self._look_up(joined)

    async def check_storable(
        self, *, messages: Sequence[Any] = (), state: ModelOrMapping | None = None
    ) -> None:
        """Check that values can be stored, without storing them.

        Raises:
            Unstorable: One cannot; the message gives the path to it.
            TooLarge: They are above ``max_snapshot_size_mb``.

        Example:
            await engine.check_storable(messages=[{"any": "JSON"}], state={"and": b"bytes"})
        """
        blobs: codec.Blobs = {}
        check_list(messages, "messages", "messages")
        values = {} if state is None else checked_object(state, "state")
        size = len(codec.pack(dict(values), blobs, "state"))
        for number, message in enumerate(messages):  # each by itself, as it would be stored
            size += len(codec.pack_item(message, blobs, "messages", number))
        codec.check_size(size + sum(map(len, blobs.values())), self.config.max_snapshot_size_mb)

    # --- drafts ---

    async def _commit(
        self,
        thread: str,
        build: Callable[[bool, Source], Draft],
        given: Given | None = None,
        *,
        ids: tuple[bytes, ...] = (),
    ) -> Placed | CheckpointRow:
        """Prepare and place a draft, anew where another write was first.

        What is ``given`` is taken as it is now, however often a draft is made of it.
        """
        many = False
        if given is not None:
            given.settle()
            many = given.many
        late = anew = False
        for _ in range(_ATTEMPTS):
            # many messages are not packed while everybody else waits
            draft = await (self._read if many else self._look_up)(partial(build, late))
            expect = Expect((thread,), ids, draft.size)
            try:
                found = await self._store.write(partial(_place_or_find, draft=draft), expect)
            except StaleError as stale:
                late = stale.late
                self._caches.threads.drop(thread)
                if stale.forgotten:
                    self._caches.clear()
                continue
            except CheckpointNotFound:
                if anew:
                    self._caches.clear()
                    raise
                anew = True  # a parent that was remembered may have been collected since
                self._caches.checkpoints.drop(*(parent.id for parent in draft.parents))
                self._caches.cids.drop(*(parent.cid for parent in draft.parents))
                continue
            break
        else:
            draft, found = await self._store.write(
                partial(_make_and_place, build=build, late=late, caches=self._caches),
                Expect((thread,), ids),
            )
        if isinstance(found, Placed):
            self._remember(draft, found)
        return found

    def _remember(self, draft: Draft, placed: Placed) -> None:
        if draft.kind == "step" and (content := content_after(self._caches, draft, placed)):
            self._caches.contents.put(placed.row.id, content, content.size)
        self._caches.remember(placed.row)
        if draft.state_row is not None:
            self._caches.remember_state(placed.state)
        self._caches.threads.put(placed.thread.name, placed.thread)
        self._committed(placed)

    def _known(self, source: Source, step: StepCommit, given: Given) -> CommittedStep | None:
        row = source.maybe_checkpoint(id_to_bytes(step.checkpoint_id))
        if row is None:
            return None
        metadata = metadata_of(source, row)
        thread = source.names(source.lineage(row.lineage).thread).thread
        fingerprint = (given.metadata or {}).get("fingerprint")
        if thread != step.thread_id or metadata.get("fingerprint") != fingerprint:
            raise IdReused(
                f"checkpoint {step.checkpoint_id} is step {row.step} ({row.node or 'no node'}) of "
                f"thread {thread!r}, not this one"
            )
        return CommittedStep(
            checkpoint_id=id_from_bytes(row.id),
            created=False,
            tools_result=result_of(source, row),
            late=bool(metadata.get("late")),
        )

    async def find_committed(self, checkpoint_id: str) -> CommittedStep | None:
        """Return the stored result of a committed step, or ``None``; reads no conversation.

        Example:
            first = await engine.snapshot("chat", tools_result={"rows": 3})
            assert (await engine.find_committed(first)).tools_result == {"rows": 3}
            assert await engine.find_committed(new_checkpoint_id()) is None
        """

        def found(source: Source) -> CommittedStep | None:
            row = source.maybe_checkpoint(id_to_bytes(checkpoint_id))
            if row is None:
                return None
            return CommittedStep(
                checkpoint_id=checkpoint_id,
                created=False,
                tools_result=result_of(source, row),
                late=bool(metadata_of(source, row).get("late")),
                metadata=metadata_of(source, row),
            )

        return await self._read(found)


def _make_and_place(
    tx: Tx, build: Callable[[bool, Source], Draft], late: bool, caches: Caches
) -> tuple[Draft, Placed | CheckpointRow]:
    """Make a draft of what is there now, and place it: it may be late, but is not out of date."""
    try:
        draft = build(late, Source(caches, tx, writes=True))
        return draft, _place_or_find(tx, draft)
    except StaleError as stale:
        if stale.forgotten:
            caches.clear()
        draft = build(stale.late, Source(caches, tx, writes=True))
        return draft, _place_or_find(tx, draft)


def _place_or_find(tx: Tx, draft: Draft) -> Placed | CheckpointRow:
    if draft.kind == "step":
        known = tx.checkpoint(draft.id)
        if known is not None:
            return known
    elif tx.thread(draft.thread) is None:
        if draft.parents:
            check_unerased(tx, thread_key(draft.thread), f"thread {draft.thread!r}")
            raise InvalidRequest(
                f"there is no thread {draft.thread!r}: branch makes one from a checkpoint"
            )
        make_root(tx, draft.thread, draft.at)
    return place(tx, draft)


def _check_head(source: Source, draft: Draft, expected: str | None) -> None:
    head = id_from_bytes(draft.parents[0].id) if draft.parents else None
    if head != expected:
        _ = source.tx  # raises where the head is only remembered, and may be old
        raise moved_on(draft.thread, head, expected)


def _check_one_session(source: Source, rows: Sequence[CheckpointRow]) -> None:
    owners = [source.names(source.lineage(row.lineage).thread) for row in rows]
    for row, owner in zip(rows, owners, strict=True):
        if owner.session != owners[0].session:
            raise NotInSession(
                f"checkpoint {id_from_bytes(row.id)} belongs to another session than thread "
                f"{owners[0].thread!r}"
            )


def _joined_log(
    source: Source, start: Joined, name: str, prefix: Callable[[], list[Any]]
) -> list[Any]:
    if name in start.whole:
        return [codec.unpack(item, source.blobs) for item in start.whole[name]]
    return prefix() + [codec.unpack(item, source.blobs) for item in start.copied.get(name, [])]


def _values(source: Source, row: CheckpointRow | None, name: str) -> list[Any]:
    logs = prepare.log_lengths(row)
    if row is None or name not in logs:
        return []
    return source.values(row.lineage, name, 0, logs[name][0])


def _ours(err: Exception) -> bool:
    return isinstance(err, CheckpointError)
