"""A state machine that drives every verb together and compares with a plain-dict model.

Subclass :class:`EngineMachine`, say how your engine is opened, and let Hypothesis run its
``TestCase``. After every step every surviving checkpoint is read back and must be what was given.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..errors import Erased, InvalidRequest, MergeConflictError, NameTaken
from ..graph import GraphNode, ancestors, is_ancestor
from ..merge import Content, base_ids, find_base, merge_content, resolve_base
from ..model import seed_ids
from ..retention import KEEP_AGE, KEEP_LAST_N, KEEP_MILESTONES, RetentionPolicy
from .strategies import messages, states, stored_values

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["CollectingMachine", "EngineMachine"]

_T = TypeVar("_T")
_names = st.sampled_from(["cheap", "bold", "again", "été"])
HOW = ("append", "full", "edit", "shorten", "neither")
"""How a snapshot gives its conversation."""

_few = st.lists(messages, max_size=3)
_policies = st.one_of(
    st.builds(KEEP_LAST_N, st.integers(1, 4)),
    st.builds(KEEP_MILESTONES, st.integers(1, 4), st.sampled_from(["thread", "session"])),
    st.just(KEEP_AGE(timedelta(days=1))),
    st.just(KEEP_LAST_N(1) & KEEP_AGE(timedelta(days=1))),
)


@dataclass
class _Kept:
    """What the model knows of a checkpoint."""

    thread: str
    step: int
    parents: tuple[str, ...]
    messages: list[Any]
    state: dict[str, Any]
    result: Any = None
    next_node: str | None = None
    tags: set[str] = field(default_factory=set)


@dataclass
class _Line:
    """What the model knows of a thread; ``undoable`` are the heads that ``undo`` goes back to."""

    session: str
    origin: str | None
    head: str | None
    undoable: list[str] = field(default_factory=list)


class EngineMachine(RuleBasedStateMachine):
    """Snapshot, append, edit, rewind, undo, branch, merge, tag, optimize and reopen.

    Attributes:
        durable: Whether an engine that is opened again has what was written.
    """

    durable: ClassVar[bool] = True

    async def open_engine(self, folder: Path) -> CheckpointEngine:
        """Open the engine that lives in ``folder``; a second call opens the same one again."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        # Equal steps are put in the order of their ids: an example that is tried again must draw
        # from the same.
        seed_ids(b"machine")
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-machine-"))
        self.kept: dict[str, _Kept] = {}
        self.erased: set[str] = set()
        self.lines: dict[str, _Line] = {}
        self.engine: Any = self.run(self.open_engine(self.folder))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for a coroutine."""
        return self.runner.run(work)

    def teardown(self) -> None:
        """Check the store once more, and close and remove everything."""
        try:
            problems = self.run(self.engine.verify()).problems
            assert not problems, problems
            self.run(self.engine.close())
        finally:
            seed_ids()
            self.runner.close()
            shutil.rmtree(self.folder)

    # what the model knows

    def lookup(self, checkpoint_id: str) -> GraphNode[str]:
        """Return a node of the model's graph."""
        kept = self.kept[checkpoint_id]
        return GraphNode(kept.step, kept.parents)

    def draw_thread(self, data: st.DataObject, *, with_head: bool = True) -> str:
        names = [n for n, t in self.lines.items() if t.head or not with_head]
        return data.draw(st.sampled_from(sorted(names)), label="thread")

    def draw_checkpoint(self, data: st.DataObject, session: str | None = None) -> str:
        mine = [i for i, k in self.kept.items() if session in (None, self.lines[k.thread].session)]
        number = data.draw(st.integers(0, len(mine) - 1), label="checkpoint")
        return mine[number]

    def record(self, checkpoint_id: str | None, kept: _Kept) -> None:
        assert checkpoint_id is not None
        assert checkpoint_id not in self.kept
        self.kept[checkpoint_id] = kept
        self.lines[kept.thread].head = checkpoint_id

    def next_step(self, parents: tuple[str, ...]) -> int:
        return max((self.kept[p].step for p in parents), default=-1) + 1

    # verbs that add

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in ("first", "second"):
            self.lines[name] = _Line(name, None, None)
            self._snapshot(name, data, None)

    def _snapshot(self, thread: str, data: st.DataObject, parent: str | None) -> None:
        head = parent or self.lines[thread].head
        old = self.kept[head] if head else _Kept(thread, -1, (), [], {})
        how = data.draw(st.sampled_from(HOW), label="how")
        given: dict[str, Any] = {}
        new = old.messages
        if how == "append":
            given["append"] = data.draw(_few)
            new = [*old.messages, *given["append"]]
        elif how == "full":
            new = given["messages"] = [*old.messages, *data.draw(_few)]
        elif how == "edit":
            keep = data.draw(st.integers(0, len(old.messages)), label="keep")
            new = given["messages"] = [*old.messages[:keep], *data.draw(_few)]
        elif how == "shorten":
            drop = data.draw(st.sets(st.integers(0, len(old.messages))), label="drop")
            new = [message for at, message in enumerate(old.messages) if at not in drop]
            summary = data.draw(st.integers(0, len(new)), label="summary")
            new[summary:summary] = data.draw(_few)
            given["messages"] = new
        state = data.draw(st.none() | states, label="state")
        result, node = data.draw(stored_values), data.draw(st.none() | st.just("model"))
        checkpoint_id = self.run(
            self.engine.snapshot(
                thread,
                state=state,
                tools_result=result,
                next_node=node,
                parent_checkpoint_id=parent,
                **given,
            )
        )
        parents = (head,) if head else ()
        self.record(
            checkpoint_id,
            _Kept(
                thread,
                self.run(self.engine.get_info(str(checkpoint_id))).step,
                parents,
                new,
                old.state if state is None else state,
                result,
                node,
            ),
        )

    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        self._snapshot(self.draw_thread(data), data, None)

    @rule(data=st.data(), count=st.integers(6, 9))
    def snapshots_in_a_row(self, data: st.DataObject, count: int) -> None:
        thread = self.draw_thread(data)
        for _ in range(count):
            self._snapshot(thread, data, None)

    @rule(data=st.data())
    def snapshot_after_an_older_one(self, data: st.DataObject) -> None:
        thread = self.draw_thread(data)
        mine = list(ancestors([str(self.lines[thread].head)], self.lookup))
        self._snapshot(thread, data, data.draw(st.sampled_from(mine), label="parent"))

    @rule(data=st.data(), name=_names)
    def branch(self, data: st.DataObject, name: str) -> None:
        origin = self.draw_checkpoint(data)
        session = self.lines[self.kept[origin].thread].session
        taken = [t for t, line in self.lines.items() if line.session == session]
        known = {self.run(self.engine.get_thread(t)).branch for t in taken}
        if name in known:
            with_error(self.run, self.engine.branch(origin, name), NameTaken)
            return
        thread = self.run(self.engine.branch(origin, name))
        assert (thread.origin, thread.head, thread.session_id) == (origin, origin, session)
        self.lines[thread.id] = _Line(session, origin, origin)

    @rule(data=st.data(), strategy=st.sampled_from(["raise", "ours", "theirs"]))
    def merge(self, data: st.DataObject, strategy: Literal["raise", "ours", "theirs"]) -> None:
        into = self.draw_thread(data)
        session = self.lines[into].session
        others = [t for t, line in self.lines.items() if line.session == session and t != into]
        if not others:
            return
        branch = data.draw(st.sampled_from(sorted(others)), label="branch")
        ours, theirs = str(self.lines[into].head), str(self.lines[branch].head)
        work = self.engine.merge_branch(branch, into, strategy=strategy)
        if is_ancestor(theirs, ours, self.lookup):
            assert self.run(work).checkpoint_id == ours
            return
        base = find_base([ours], [theirs], self.lookup)
        contents = {i: self.content(i) for i in (*base_ids(base), ours, theirs)}
        merged = merge_content(
            resolve_base(base, contents), contents[ours], contents[theirs], strategy=strategy
        )
        if merged.conflicts:
            error = with_error(self.run, work, MergeConflictError)
            assert isinstance(error, MergeConflictError)
            assert [repr(c) for c in error.conflicts] == [repr(c) for c in merged.conflicts]
            return
        result = self.run(work)
        parents = (ours, theirs)
        assert result.checkpoint_id is not None
        info = self.run(self.engine.get_info(result.checkpoint_id))
        assert info.parents == parents
        self.record(
            result.checkpoint_id,
            _Kept(into, self.next_step(parents), parents, merged.messages, merged.state),
        )

    def content(self, checkpoint_id: str) -> Content:
        kept = self.kept[checkpoint_id]
        return Content(kept.messages, kept.state)

    # verbs that move

    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        thread = self.draw_thread(data)
        moved = self.lines[thread]
        head = str(moved.head)
        target = data.draw(st.sampled_from(list(ancestors([head], self.lookup))), label="target")
        result = self.run(self.engine.rewind(target, thread_id=thread))
        assert result.checkpoint.id == target
        assert result.thread_id == thread
        assert result.can_replay == (self.kept[target].next_node is not None)
        if target != head:
            moved.undoable.append(head)
        moved.head = target

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        thread = self.draw_thread(data)
        moved = self.lines[thread]
        if not moved.undoable:
            with_error(self.run, self.engine.undo(thread), InvalidRequest)
            return
        old = moved.undoable[-1]
        if old in self.erased:
            with_error(self.run, self.engine.undo(thread), Erased)
            return
        moved.undoable.pop()
        assert self.run(self.engine.undo(thread)).checkpoint.id == old
        moved.head = old

    @rule(data=st.data(), name=st.sampled_from(["best", "v1"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        target = self.draw_checkpoint(data)
        if any(name in self.kept[i].tags for i in self.kept):
            return
        self.run(self.engine.tag(target, name))
        self.kept[target].tags.add(name)

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        self.run(self.engine.close())
        self.engine = self.run(self.open_engine(self.folder))

    @rule()
    def optimize(self) -> None:
        self.run(self.engine.optimize())

    # what must always hold

    @invariant()
    def every_surviving_checkpoint_reads_back_exactly(self) -> None:
        for checkpoint_id, kept in self.kept.items():
            found = self.run(self.engine.get(checkpoint_id))
            assert repr(found.messages) == repr(kept.messages)
            assert repr(found.state) == repr(kept.state)
            assert repr(found.tools_result) == repr(kept.result)
            assert found.next_node == kept.next_node
            assert set(found.tags) == kept.tags
            assert (found.thread_id, found.step) == (kept.thread, kept.step)
            assert found.parents == kept.parents
            assert found.message_count == len(kept.messages)

    @invariant()
    def every_head_is_where_it_was_left(self) -> None:
        for name, moved in self.lines.items():
            assert self.run(self.engine.get_thread(name)).head == moved.head


class CollectingMachine(EngineMachine):
    """The same with collections and erasures in between; no survivor may be touched by one."""

    @rule(data=st.data(), policy=_policies)
    def collect(self, data: st.DataObject, policy: RetentionPolicy) -> None:
        session = self.lines[self.draw_thread(data)].session
        planned = self.run(self.engine.collect(policy, session_id=session, dry_run=True))
        report = self.run(self.engine.collect(policy, session_id=session))
        assert set(planned.dropped) == set(report.dropped)
        dropped = set(report.dropped)
        lines = self.lines.values()
        protected = {line.head for line in lines} | {line.origin for line in lines}
        protected |= {i for i, kept in self.kept.items() if kept.tags}
        protected |= {i for line in lines for i in line.undoable}
        protected -= self.erased
        followed = {p for kept in self.kept.values() for p in kept.parents}
        protected |= set(self.kept) - followed
        assert not dropped & protected
        self.forget_model(dropped)

    @rule(data=st.data(), total=st.integers(0, 9).map(lambda n: n == 9))
    def forget(self, data: st.DataObject, total: bool) -> None:
        # mostly a branch: of a session there is nothing left that could be spoilt
        names = sorted(n for n, line in self.lines.items() if total or n != line.session)
        if not names:
            return
        thread = data.draw(st.sampled_from(names), label="thread")
        session = self.lines[thread].session
        if total:
            forgotten = {t for t, line in self.lines.items() if line.session == session}
            report = self.run(self.engine.forget(session_id=session))
        else:
            forgotten = self.with_descendants(thread)
            report = self.run(self.engine.forget(thread_id=thread))
        heads = {line.head for name, line in self.lines.items() if name not in forgotten}
        gone = {i for i, k in self.kept.items() if k.thread in forgotten} - heads
        assert set(report.erased) == gone
        assert not report.pending
        for checkpoint_id in gone:
            with_error(self.run, self.engine.get(checkpoint_id), Erased)
        self.erased |= gone
        self.forget_model(gone)
        self.forget_lines(forgotten)

    def with_descendants(self, thread: str) -> set[str]:
        found: set[str] = set()
        waiting = {thread}
        while waiting:
            found |= waiting
            origins = {name: line.origin for name, line in self.lines.items() if name not in found}
            waiting = {n for n, origin in origins.items() if self.thread_of(origin) in found}
        return found

    def thread_of(self, checkpoint_id: str | None) -> str | None:
        return self.kept[checkpoint_id].thread if checkpoint_id in self.kept else None

    def forget_lines(self, forgotten: set[str]) -> None:
        """Take threads out of the model, but those that another thread goes on from."""
        for name in forgotten:
            left = [i for i, kept in self.kept.items() if kept.thread == name]
            line = self.lines.pop(name)
            if left:
                origin = line.origin if line.origin in self.kept else None
                head = max(left, key=lambda i: self.kept[i].step)
                self.lines[name] = _Line(line.session, origin, head)
            elif name == line.session:
                self.run(self.engine.create_thread(name))
                self.lines[name] = _Line(name, None, None)
                self.record(self.run(self.engine.snapshot(name)), _Kept(name, 0, (), [], {}))

    def forget_model(self, gone: set[str]) -> None:
        """Take checkpoints out of the model; what followed them follows their parents."""
        for checkpoint_id in gone:
            self.kept.pop(checkpoint_id)
        for checkpoint_id, kept in self.kept.items():
            kept.parents = self.run(self.engine.get_info(checkpoint_id)).parents
            assert not set(kept.parents) & gone


def with_error(run: Any, work: Any, kind: type[Exception]) -> Exception:
    """Wait for a coroutine that must fail with this kind of error; return the error."""
    try:
        run(work)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
