"""The state machine with collections and erasures in between."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ..errors import Erased
from ..retention import KEEP_AGE, KEEP_LAST_N, KEEP_MILESTONES, RetentionPolicy
from .machine import EngineMachine, with_error
from .machine_model import Kept, Line

__all__ = ["CollectingMachine"]

_policies = st.one_of(
    st.builds(KEEP_LAST_N, st.integers(1, 4)),
    st.builds(KEEP_MILESTONES, st.integers(1, 4), st.sampled_from(["thread", "session"])),
    st.just(KEEP_AGE(timedelta(days=1))),
    st.just(KEEP_LAST_N(1) & KEEP_AGE(timedelta(days=1))),
)


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
            named = "thread_id" if thread == session and data.draw(st.booleans()) else "session_id"
            report = self.run(self.engine.forget(**{named: session}))
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
        for line in self.lines.values():
            line.origin = self.nearest_left(line.origin, gone)
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

    def nearest_left(self, checkpoint_id: str | None, gone: set[str]) -> str | None:
        while checkpoint_id in gone:
            checkpoint_id = next(iter(self.kept[checkpoint_id].parents), None)
        return checkpoint_id

    def forget_lines(self, forgotten: set[str]) -> None:
        """Take threads out of the model, but those that another thread goes on from."""
        for name in forgotten:
            left = [i for i, kept in self.kept.items() if kept.thread == name]
            line = self.lines.pop(name)
            if left:
                head = max(left, key=lambda i: self.kept[i].step)
                self.lines[name] = Line(line.session, line.origin, head)
            elif name == line.session:
                self.run(self.engine.create_thread(name))
                self.lines[name] = Line(name, None, None)
                self.record(self.run(self.engine.snapshot(name)), Kept(name, 0, (), [], {}))

    def forget_model(self, gone: set[str]) -> None:
        """Take checkpoints out of the model; what followed them follows their parents."""
        for checkpoint_id in gone:
            self.kept.pop(checkpoint_id)
        for checkpoint_id, kept in self.kept.items():
            kept.parents = self.run(self.engine.get_info(checkpoint_id)).parents
            assert not set(kept.parents) & gone
