"""Figure 6: LangGraph's SQLite saver under a graph, plain and with ``DeltaChannel``, and alone.

What is timed of each is what one step waits for: of the engine, the whole ``snapshot``; of a graph,
one round of it, which ends with its checkpoint; of the saver alone, ``put``. The plain graph keeps
LangChain's messages under ``add_messages``, as LangGraph's own ``MessagesState`` has it. To list is
what each offers for it: ``list_time_travel_points``, the saver's ``list``, and a graph's
``get_state_history``, which with a ``DeltaChannel`` rebuilds the messages.
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
TURN = 100
"""Steps that a contender takes before it is the next one's turn: each at its own pace, and warm.

After a turn of the others, which move hundreds of megabytes, the first few are slower for everyone.
"""


async def run(bench: Bench) -> list[Figure]:
    """Grow a conversation by the same messages in each, in turns, and list 100 checkpoints."""
    with missing_extra("LangGraph"):
        import langgraph.checkpoint.sqlite  # noqa: F401
    count = bench.size(3000, 200)
    folder = Path(mkdtemp(dir=bench.folder))
    peers: dict[str, _Peer] = {
        "plain": _Plain(folder / "plain.db", count),
        "DeltaChannel": _Delta(folder / "delta.db", 100, count),
        "DeltaChannel at 1,000": _Delta(folder / "rare.db", 1000, count),
        "saver alone, plain objects": _Saver(folder / "saver.db"),
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
            for peer in peers.values():
                for step in turn:
                    peer.step(step)
        await bare.close()
        for _ in range(20):
            await listing.time(engine.list_time_travel_points("t", limit=100))
        size = disk_bytes(engine.url)
    bench.advance("LangGraph: listing 100")
    bench.series["engine (s)"] = ours.taken
    bench.series["LangGraph plain (s)"] = peers["plain"].clock.taken
    most = peers["plain"].clock.median / floor.median
    figures = [
        Figure(
            "LangGraph plain: a write / one bare 2 KB insert, what the disk lets anyone reach",
            None,
            most,
            note=f"{peers['plain'].clock.ms} / {floor.ms}",
        )
    ]
    for name, contender in peers.items():
        figures += _compared(name, contender, ours, listing, size)
        contender.close()
    return figures


def _compared(name: str, peer: _Peer, ours: Clock, listing: Clock, size: int) -> list[Figure]:
    listed, used = peer.list_100(), peer.size()
    faster, smaller, quicker = peer.promised
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
            quicker,
            listed / listing.median,
            at_least=True,
            note=f"{listed * 1000:,.3g} ms / {listing.ms}",
        ),
    ]


def _p99(clock: Clock) -> str:
    return f"{statistics.quantiles(clock.taken, n=100)[-1] * 1000:.3g} ms"


class _Peer:
    promised: tuple[float | None, float | None, float | None] = (1, 10, 1000)
    """How many times faster a write, smaller, and faster listed the engine is to be."""

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


class _Saver(_Peer):
    """The saver itself, handed the whole conversation at each step; messages are plain objects."""

    promised = (None, None, None)

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


class Rounds:
    """A graph that goes round one node, and ends each round with its checkpoint.

    Args:
        saver: Where the checkpoints go.
        messages: The channel of its messages, with its type.
        count: How many rounds, at most.
    """

    def __init__(self, saver: Any, messages: Any, count: int) -> None:
        from langgraph.graph import START, StateGraph

        self.pending: dict[str, Any] = {}
        make: Any = TypedDict
        graph: Any = StateGraph(make("State", {"messages": messages, "state": dict}))
        graph.add_node("work", lambda _: self.pending)
        graph.add_edge(START, "work")
        graph.add_conditional_edges("work", lambda _: "work", ["work"])
        config = {"configurable": {"thread_id": "t"}, "recursion_limit": count + 10}
        self.graph = graph.compile(checkpointer=saver)
        self._running = self.graph.stream(
            {"messages": [], "state": {}}, config, stream_mode="updates", durability="sync"
        )

    def go(self, messages: list[Any], state: Any, clock: Clock) -> None:
        """Go round once, with these new messages."""
        self.pending = {"messages": messages, "state": state}
        clock.call(lambda: next(self._running))


def plain_rounds(saver: Any, count: int) -> Rounds:
    """Return a graph of which each checkpoint has all of LangChain's messages."""
    from langgraph.graph.message import add_messages

    return Rounds(saver, Annotated[list, add_messages], count)


def langchain(message: dict[str, Any]) -> Any:
    """Return a message as the object that users of LangGraph hold."""
    from langchain_core.messages import AIMessage, ToolMessage

    if message["role"] == "tool":
        return ToolMessage(message["content"], tool_call_id=message["tool_call_id"])
    return AIMessage(message["content"], name=message["name"])


class _Plain(_Peer):
    """A graph as LangGraph's ``MessagesState`` makes it: each checkpoint has all messages."""

    promised = (40, 3000, 1000)

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path)
        self.rounds = plain_rounds(self.saver, count)

    def step(self, step: dict[str, Any]) -> None:
        """Let the graph go round once."""
        self.rounds.go([langchain(step["append"][0])], step["state"], self.clock)


class _Delta(_Peer):
    """A graph whose messages are a ``DeltaChannel``, and plain objects."""

    def __init__(self, path: Path, frequency: int, count: int) -> None:
        from langgraph.channels.delta import DeltaChannel

        super().__init__(path)

        def extend(old: list[Any], writes: Any) -> list[Any]:
            return old + [message for write in writes for message in write]

        channel = DeltaChannel(extend, list, snapshot_frequency=frequency)
        self.rounds = Rounds(self.saver, Annotated[list, channel], count)

    def listed(self) -> list[Any]:
        """Return the newest 100 points."""
        config = {"configurable": {"thread_id": "t"}}
        return list(self.rounds.graph.get_state_history(config, limit=100))

    def step(self, step: dict[str, Any]) -> None:
        """Let the graph go round once."""
        self.rounds.go(step["append"], step["state"], self.clock)
