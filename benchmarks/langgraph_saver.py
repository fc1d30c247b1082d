"""Figure 6: LangGraph's SQLite saver, plain and under a graph with ``DeltaChannel``.

What is timed of each is what one step waits for: of the engine, the whole ``snapshot``; of the
plain saver, ``put`` alone, without the graph around it; of a graph, one round of it, which ends
with its checkpoint. To list is what each offers for it: ``list_time_travel_points``, the saver's
``list``, and a graph's ``get_state_history``, which with a ``DeltaChannel`` rebuilds the messages.
"""

from __future__ import annotations

import sqlite3
import statistics
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, TypedDict

from .common import Bench, Clock, Figure, disk_bytes, engine_in, missing_extra, steps
from .peers import BareInsert

SIZE = 1000
TURN = 25
"""Steps that a contender takes before it is the next one's turn: each at its own pace, and warm."""


async def run(bench: Bench) -> list[Figure]:
    """Grow a conversation by the same messages in each, in turns, and list 100 checkpoints."""
    with missing_extra("LangGraph"):
        import langgraph.checkpoint.sqlite  # noqa: F401
    count = bench.size(3000, 200)
    folder = Path(mkdtemp(dir=bench.folder))
    plain = _Plain(folder / "plain.db")
    graphs = {
        "": _Graph(folder / "delta.db", 100, count),
        " at 1,000": _Graph(folder / "rare.db", 1000, count),
    }
    ours, floor, listing, size = Clock(), Clock(), Clock(), 0
    bare = BareInsert(folder / "bare.db")
    async with engine_in(bench.folder) as engine:
        given = list(steps(count, SIZE))
        for number in range(0, count, TURN):
            bench.advance(f"LangGraph: step {number} of {count}")
            turn = given[number : number + TURN]
            for step in turn:
                await ours.time(engine.snapshot("t", **step))
            for step in turn:
                await floor.time(bare.take(0, step))
            for peer in (plain, *graphs.values()):
                for step in turn:
                    peer.step(step)
        await bare.close()
        for _ in range(20):
            await listing.time(engine.list_time_travel_points("t", limit=100))
        size = disk_bytes(engine.url)
    bench.advance("LangGraph: listing 100")
    bench.series["engine (s)"] = ours.taken
    bench.series["LangGraph plain (s)"] = plain.clock.taken
    peers: dict[str, _Peer] = {
        "plain": plain,
        **{f"DeltaChannel{name}": graph for name, graph in graphs.items()},
    }
    most = plain.clock.median / floor.median
    figures = [
        Figure(
            "LangGraph plain: a write / one bare 2 KB insert, what the disk lets anyone reach",
            None,
            most,
            note=f"{plain.clock.ms} / {floor.ms}",
        )
    ]
    for name, contender in peers.items():
        figures += _compared(name, contender, ours, listing, size)
        contender.close()
    return figures


def _compared(name: str, peer: _Peer, ours: Clock, listing: Clock, size: int) -> list[Figure]:
    listed, used = peer.list_100(), peer.size()
    faster, smaller = (40.0, 3000.0) if name == "plain" else (1.0, 10.0)
    return [
        Figure(
            f"LangGraph {name}: a write, times slower",
            faster,
            peer.clock.median / ours.median,
            at_least=True,
            note=f"{peer.clock.ms} (p99 {_p99(peer.clock)}) / {ours.ms} (p99 {_p99(ours)})",
        ),
        Figure(
            f"LangGraph {name}: disk, times larger",
            smaller,
            used / size,
            at_least=True,
            note=f"{used / 1e6:,.1f} MB / {size / 1e6:.2f} MB",
        ),
        Figure(
            f"LangGraph {name}: list 100, times slower",
            1000,
            listed / listing.median,
            at_least=True,
            note=f"{listed * 1000:,.3g} ms / {listing.ms}",
        ),
    ]


def _p99(clock: Clock) -> str:
    return f"{statistics.quantiles(clock.taken, n=100)[-1] * 1000:.3g} ms"


class _Peer:
    def __init__(self, path: Path) -> None:
        from langgraph.checkpoint.sqlite import SqliteSaver

        self.path = path
        self.clock = Clock()
        self.db = sqlite3.connect(path, check_same_thread=False)
        self.saver = SqliteSaver(self.db)

    def step(self, step: dict[str, Any]) -> None:
        """Take one step."""
        raise NotImplementedError

    def list_100(self) -> float:
        clock = Clock()
        for _ in range(3):
            assert len(clock.call(self.listed)) == 100
        return clock.median

    def listed(self) -> list[Any]:
        """Return the newest 100 points."""
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        return list(self.saver.list(config, limit=100))

    def size(self) -> int:
        return disk_bytes(str(self.path))

    def close(self) -> None:
        self.db.close()


class _Plain(_Peer):
    """The saver itself, handed the whole conversation at each step, as a plain channel does."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.messages: list[Any] = []
        self.config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    def step(self, step: dict[str, Any]) -> None:
        """Take one step."""
        from langgraph.checkpoint.base import empty_checkpoint

        self.messages += step["append"]
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": self.messages, "state": step["state"]}
        metadata: Any = {"source": "loop", "step": len(self.messages)}
        self.config = self.clock.call(lambda: self.saver.put(self.config, checkpoint, metadata, {}))


class _Graph(_Peer):
    """A graph that goes round one node, whose messages are a ``DeltaChannel``."""

    def __init__(self, path: Path, frequency: int, count: int) -> None:
        from langgraph.channels.delta import DeltaChannel
        from langgraph.graph import START, StateGraph

        super().__init__(path)
        self.pending: dict[str, Any] = {}

        def extend(old: list[Any], writes: Any) -> list[Any]:
            return old + [message for write in writes for message in write]

        channel = DeltaChannel(extend, list, snapshot_frequency=frequency)
        make: Any = TypedDict
        state: Any = {"messages": Annotated[list, channel], "state": dict}
        graph: Any = StateGraph(make("State", state))
        graph.add_node("work", lambda _: self.pending)
        graph.add_edge(START, "work")
        graph.add_conditional_edges("work", lambda _: "work", ["work"])
        config = {"configurable": {"thread_id": "t"}, "recursion_limit": count + 10}
        self.graph = graph.compile(checkpointer=self.saver)
        self.running = self.graph.stream(
            {"messages": [], "state": {}}, config, stream_mode="updates", durability="sync"
        )

    def listed(self) -> list[Any]:
        """Return the newest 100 points."""
        return list(self.graph.get_state_history({"configurable": {"thread_id": "t"}}, limit=100))

    def step(self, step: dict[str, Any]) -> None:
        """Let the graph go round once, which ends with a checkpoint."""
        self.pending = {"messages": step["append"], "state": step["state"]}
        self.clock.call(lambda: next(self.running))
