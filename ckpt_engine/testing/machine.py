"""A state machine that drives every verb together and compares with a plain-dict model.

Subclass :class:`EngineMachine`, say how your engine is opened, and let Hypothesis run its
``TestCase``. After every step every surviving checkpoint is read back and must be what was given.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..config import SnapshotConfig
from ..errors import Erased, InvalidRequest, MergeConflictError, NameTaken
from ..graph import GraphNode, ancestors, is_ancestor
from ..merge import Content, base_ids, find_base, merge_content, resolve_base
from ..model import StepCommit, new_checkpoint_id, seed_ids
from .machine_model import HOW, LOG, Added, Kept, Line, Step, draw_lines, draw_state, few, joined
from .strategies import stored_values

if TYPE_CHECKING:
    from ..engine import CheckpointEngine

__all__ = ["EngineMachine", "with_error"]

_T = TypeVar("_T")
_tags = st.sampled_from(["best", "v1"])
_names = st.sampled_from(["cheap", "bold", "again", "été"])


class EngineMachine(RuleBasedStateMachine):
    """Snapshot, append, edit, steps side by side, rewind, undo, branch, merge, tag and reopen.

    Attributes:
        durable: Whether an engine that is opened again has what was written.
        config: What the engine is to be opened with: one key of the state is a log.
    """

    durable: ClassVar[bool] = True
    config: ClassVar[SnapshotConfig] = SnapshotConfig(logs=(LOG,))

    async def open_engine(self, folder: Path) -> CheckpointEngine:
        """Open the engine in ``folder`` with ``self.config``; opened again it is the same one."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        # Equal steps are put in the order of their ids: an example that is tried again must draw
        # from the same.
        seed_ids(b"machine")
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ckpt-machine-"))
        self.kept: dict[str, Kept] = {}
        self.erased: set[str] = set()
        self.numbers = count()
        self.lines: dict[str, Line] = {}
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
        return GraphNode(kept.step, kept.parents, kept.number)

    def draw_thread(self, data: st.DataObject, *, with_head: bool = True) -> str:
        names = [n for n, t in self.lines.items() if t.head or not with_head]
        return data.draw(st.sampled_from(sorted(names)), label="thread")

    def draw_checkpoint(self, data: st.DataObject, session: str | None = None) -> str:
        mine = [i for i, k in self.kept.items() if session in (None, self.lines[k.thread].session)]
        number = data.draw(st.integers(0, len(mine) - 1), label="checkpoint")
        return mine[number]

    def record(self, checkpoint_id: str | None, kept: Kept) -> None:
        assert checkpoint_id is not None
        assert checkpoint_id not in self.kept
        before = [self.kept[parent].logged for parent in kept.parents]
        kept.number = next(self.numbers)
        kept.logged = any(before) or isinstance(kept.state.get(LOG), list)
        self.kept[checkpoint_id] = kept
        self.lines[kept.thread].head = checkpoint_id

    def next_step(self, parents: tuple[str, ...]) -> int:
        return max((self.kept[p].step for p in parents), default=-1) + 1

    # verbs that add

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in ("first", "second"):
            self.lines[name] = Line(name, None, None)
            self._snapshot(name, data, None)

    def _snapshot(self, thread: str, data: st.DataObject, parent: str | None) -> None:
        head = parent or self.lines[thread].head
        old = self.kept[head] if head else Kept(thread, -1, (), [], {})
        how = data.draw(st.sampled_from(HOW), label="how")
        given: dict[str, Any] = {}
        new = old.messages
        if how == "append":
            given["append"] = data.draw(few)
            new = [*old.messages, *given["append"]]
        elif how == "full":
            new = given["messages"] = [*old.messages, *data.draw(few)]
        elif how == "edit":
            keep = data.draw(st.integers(0, len(old.messages)), label="keep")
            new = given["messages"] = [*old.messages[:keep], *data.draw(few)]
        elif how == "shorten":
            drop = data.draw(st.sets(st.integers(0, len(old.messages))), label="drop")
            new = [message for at, message in enumerate(old.messages) if at not in drop]
            summary = data.draw(st.integers(0, len(new)), label="summary")
            new[summary:summary] = data.draw(few)
            given["messages"] = new
        state = draw_state(data, old.state) if data.draw(st.booleans(), label="state") else None
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
            Kept(
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

    @rule(data=st.data(), join=st.booleans())
    def steps_side_by_side(self, data: st.DataObject, join: bool) -> None:
        thread = self.draw_thread(data)
        begun = str(self.lines[thread].head)
        start = self.kept[begun]
        steps = draw_lines(data, start)
        tips = {step.line: begun for step in steps}
        waiting = {line: [step for step in steps if step.line == line] for line in tips}
        for line in data.draw(st.permutations([step.line for step in steps]), label="as they end"):
            step = waiting[line].pop(0)
            first = line == 0 or tips[line] != begun
            new = Kept(thread, step.step, (tips[line],), step.said.whole, step.after)
            tips[line] = self._step(new, step, first=first)
        newest = steps[-1]
        if not join:
            self.lines[thread].head = tips[newest.line]
            return
        parents = tuple(tips[line] for line in sorted(tips))
        messages, state, disputed = joined(start, steps)
        found = self.run(self.engine.join(parents))
        assert repr((found.messages, found.state)) == repr((messages, state))
        assert found.disputed == disputed
        said = Added.to(messages, [*messages, *data.draw(few)])
        after = Step(0, newest.step + 1, said, None, {"plan": "joined"}, set(), state)
        self._step(Kept(thread, after.step, parents, said.whole, after.after), after, first=True)

    def _step(self, new: Kept, step: Step, *, first: bool) -> str:
        commit = StepCommit(
            checkpoint_id=new_checkpoint_id(),
            thread_id=new.thread,
            step=new.step,
            parents=new.parents,
            first=first,
            append=() if step.said.replaces else step.said.items,
            messages=step.said.whole if step.said.replaces else None,
            state_set=step.state_set,
            state_delete=sorted(step.state_delete),
        )
        assert self.run(self.engine.commit_step(commit)).created
        assert not self.run(self.engine.commit_step(commit)).created
        self.record(commit.checkpoint_id, new)
        return commit.checkpoint_id

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
        self.lines[thread.id] = Line(session, origin, origin)

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
        logs = self.config.logs
        three = resolve_base(base, contents, logs), contents[ours], contents[theirs]
        merged = merge_content(*three, strategy=strategy, logs=logs)
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
            Kept(into, self.next_step(parents), parents, merged.messages, merged.state),
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

    @rule(data=st.data(), name=_tags)
    def tag(self, data: st.DataObject, name: str) -> None:
        target = self.draw_checkpoint(data)
        if any(name in self.kept[i].tags for i in self.kept):
            return
        self.run(self.engine.tag(target, name))
        self.kept[target].tags.add(name)

    @rule(data=st.data(), name=_tags)
    def untag(self, data: st.DataObject, name: str) -> None:
        thread = self.draw_thread(data)
        session = self.lines[thread].session
        lines = {n for n, line in self.lines.items() if line.session == session}
        named = [kept for kept in self.kept.values() if name in kept.tags]
        mine = [kept for kept in named if kept.thread in (lines if thread == session else {thread})]
        assert self.run(self.engine.untag(thread, name)) == len(mine)
        for kept in mine:
            kept.tags.remove(name)

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
    def every_head_is_where_it_was_left_and_can_be_gone_on_from(self) -> None:
        for name, moved in self.lines.items():
            assert self.run(self.engine.get_thread(name)).head == moved.head
            if moved.head is not None:
                begins = self.run(self.engine.join((moved.head,)))
                kept = self.kept[moved.head]
                assert repr((begins.messages, begins.state)) == repr((kept.messages, kept.state))


def with_error(run: Any, work: Any, kind: type[Exception]) -> Exception:
    """Wait for a coroutine that must fail with this kind of error; return the error."""
    try:
        run(work)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
