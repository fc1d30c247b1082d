"""Hand-made sessions to draw."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ckpt_engine.model import (
    CheckpointInfo,
    CheckpointTree,
    SnapshotTrigger,
    Thread,
    TreeEdge,
    TreeNode,
    WorkflowRun,
)

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Session:
    """Builds a tree a step at a time; ids count up."""

    def __init__(self, root: str = "main") -> None:
        from random import Random

        self._random = Random(7)
        self.root = root
        self.threads: dict[str, Thread] = {}
        self.infos: list[CheckpointInfo] = []
        self.runs: dict[str, WorkflowRun] = {}
        self.active = root
        self.thread(root)

    def thread(self, name: str, origin: str | None = None) -> str:
        self.threads[name] = Thread(
            id=name,
            session_id=self.root,
            branch=name,
            origin=origin,
            head=None,
            step=0,
            superseded_by=None,
            created_at=START,
        )
        self.runs[name] = WorkflowRun(
            namespace="default",
            workflow_id=f"wf-{name}",
            run_id="r",
            workflow_type="Agent",
            task_queue="q",
        )
        return name

    def change(self, name: str, **changes: object) -> None:
        self.threads[name] = replace(self.threads[name], **changes)  # type: ignore[arg-type]

    def step(
        self,
        thread: str,
        *parents: str,
        node: str = "call_model",
        summary: str = "",
        tags: tuple[str, ...] = (),
        late: bool = False,
    ) -> str:
        number = max((i.step for i in self.infos if i.id in parents), default=-1) + 1
        info = CheckpointInfo(
            id=f"{len(self.infos):04x}" + "abc" + "0" * 25,
            thread_id=thread,
            session_id=self.root,
            step=number,
            parents=parents,
            trigger=SnapshotTrigger.LLM_CALL,
            created_at=START + timedelta(seconds=len(self.infos)),
            node=node,
            summary=summary,
            tags=tags,
            metadata={"late": True} if late else {},
            labels=("late",) if late else (),
        )
        self.infos.append(info)
        self.change(thread, head=info.id, step=number)
        return info.id

    def line(self, thread: str, parent: str, count: int) -> list[str]:
        made = []
        for _ in range(count):
            parent = self.step(thread, parent)
            made.append(parent)
        return made

    def tree(self) -> CheckpointTree:
        thread_of = {info.id: info.thread_id for info in self.infos}
        edges = []
        for info in self.infos:
            for number, parent in enumerate(info.parents):
                fork = thread_of[parent] != info.thread_id
                kind = "merge" if number else "fork" if fork else "step"
                edges.append(TreeEdge(parent=parent, child=info.id, kind=kind))  # type: ignore[arg-type]
        heads = {thread.head for thread in self.threads.values()}
        return CheckpointTree(
            session_id=self.root,
            active_thread=self.active,
            threads=tuple(self.threads.values()),
            runs=self.runs,
            nodes=tuple(TreeNode(info=i, is_head=i.id in heads) for i in self.infos),
            edges=tuple(edges),
        )
