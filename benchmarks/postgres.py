"""Figures on PostgreSQL: many agents, LangGraph's saver, disk, many processes."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ckpt_engine import create_checkpoint_engine

from .common import Bench, Clock, Figure, Missing, distinct_bytes, missing_extra, steps
from .langgraph_saver import TURN, langchain, plain_rounds
from .peers import NaiveSqlAlchemy, RawInline, Step, Take
from .throughput import lines_of, rate_of

SIZE = 2000
PROMISES = {1: None, 8: 1.5, 64: 2.0}


async def run(bench: Bench) -> list[Figure]:
    """Start a server of our own, with its usual durable settings, and measure on it."""
    with missing_extra("psycopg"):
        from ckpt_engine.testing.postgres import NoPostgresError, PostgresServer
    try:
        server = await asyncio.to_thread(PostgresServer, max_connections="200")
    except NoPostgresError as err:
        raise Missing(str(err)) from err
    try:
        figures = []
        for agents, promised in PROMISES.items():
            figures += await _throughput(bench, server, agents, promised)
        figures.append(await _disk(bench, server))
        figures += await _processes(bench, server)
        for count in (bench.size(1000, 100), bench.size(3000, 300)):
            figures += await _langgraph(bench, server, count)
        return figures
    finally:
        server.stop()


# --- many agents ---


async def _throughput(
    bench: Bench, server: Any, agents: int, promised: float | None
) -> list[Figure]:
    each = max(1, bench.size(512, 128) // agents)
    async with await create_checkpoint_engine(server.url(f"ours_{agents}")) as engine:
        raw = await _RawInline.begin(server.url(f"raw_{agents}"))
        naive = _naive(server.url(), f"naive_{agents}")
        await naive.begin()

        async def take(agent: int, step: Step) -> None:
            await engine.snapshot(f"agent {agent}", **step)

        takers: dict[str, Take] = {"engine": take, "raw": raw.take, "naive": naive.take}
        lines = {name: lines_of(agents) for name in takers}
        taken: dict[str, list[float]] = {name: [] for name in takers}
        for turn in range(bench.size(9, 3)):
            bench.advance(f"PostgreSQL: {agents} agents, round {turn}")
            for name, taker in takers.items():
                taken[name].append(await rate_of(taker, lines[name], each))
        await raw.close()
        await naive.close()
    rates = {name: statistics.median(found) for name, found in taken.items()}
    names = {"raw": "one transaction a checkpoint", "naive": "naive SQLAlchemy-async"}
    return [
        Figure(
            f"PostgreSQL, {agents} agents: checkpoints/s / {name}",
            promised if peer == "raw" else None,
            rates["engine"] / rates[peer],
            at_least=True,
            note=f"{rates['engine']:,.0f} / {rates[peer]:,.0f} per second",
        )
        for peer, name in names.items()
    ]


def _naive(url: str, schema: str) -> NaiveSqlAlchemy:
    import psycopg

    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {schema}")
    target = url.replace("postgresql://", "postgresql+psycopg://")
    return NaiveSqlAlchemy(target, options=f"-c search_path={schema}")


class _RawInline(RawInline):
    """The same as on SQLite: the engine's own tables, indexes and rows, one transaction each.

    A thread's row is locked first, as one must where several processes may write it.
    """

    @classmethod
    async def begin(cls, url: str) -> _RawInline:
        """Have the engine make its tables."""
        await (await create_checkpoint_engine(url)).close()
        return cls(url)

    def __init__(self, url: str) -> None:
        self.prepare(_Statements(url), url)

    async def take(self, agent: int, step: Step) -> None:
        """Take one step."""
        self.db.locking = (agent + 1,)
        await super().take(agent, step)


class _Statements:
    """A connection that takes the statements that are meant for SQLite."""

    def __init__(self, url: str) -> None:
        import psycopg

        target, schema = url.split("?schema=")
        self.locking = (0,)
        self.db = psycopg.connect(target, autocommit=True)
        self.db.execute(f"SET search_path = {schema}")
        self.close = self.db.close

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Run a statement."""
        if sql == "BEGIN IMMEDIATE":
            return self.db.execute("BEGIN")
        if sql == "PRAGMA data_version":
            return self.db.execute("SELECT * FROM thread WHERE pk = %s FOR UPDATE", self.locking)
        return self.db.execute(sql.replace("?", "%s"), values)


# --- disk ---


async def _disk(bench: Bench, server: Any) -> Figure:
    count, distinct = bench.size(3000, 500), 0
    bench.advance(f"PostgreSQL: disk, {count} steps")
    async with await create_checkpoint_engine(server.url("disk")) as engine:
        for step in steps(count, 3000):
            distinct += distinct_bytes(step)
            await engine.snapshot("long", **step)
        report = await engine.optimize()
    used = report.size_before
    note = f"{used / 1e6:.2f} / {distinct / 1e6:.2f} MB; "
    note += f"{report.size_after / distinct:.2f}x after optimize()"
    name = f"PostgreSQL: disk / distinct, {count:,} steps of 3 KB"
    return Figure(name, 0.6, used / distinct, note=note)


# --- many processes ---

_WRITER = """
import asyncio, json, sys, time
from ckpt_engine import create_checkpoint_engine
async def main():
    url, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    async with await create_checkpoint_engine(url) as engine:
        await engine.snapshot(f"thread {name}", append=["warm"])
        print("ready", flush=True)
        sys.stdin.readline()
        taken = []
        for n in range(times):
            begun = time.perf_counter()
            await engine.snapshot(f"thread {name}", append=[{"n": n}], state={"n": n})
            taken.append(time.perf_counter() - begun)
        print(json.dumps(taken), flush=True)
asyncio.run(main())
"""


async def _processes(bench: Bench, server: Any) -> list[Figure]:
    folder = Path(mkdtemp(dir=bench.folder))
    times = bench.size(250, 60)
    return [
        await _together(bench, f"sqlite:///{folder}/many.db", "SQLite", 4, times),
        await _together(bench, server.url("many"), "PostgreSQL", 8, times),
    ]


async def _together(bench: Bench, url: str, kind: str, processes: int, times: int) -> Figure:
    bench.advance(f"{kind}: {processes} processes")
    await (await create_checkpoint_engine(url)).close()
    pipe = asyncio.subprocess.PIPE
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WRITER, url, str(n), str(times)), stdin=pipe, stdout=pipe
        )
        for n in range(processes)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    # the machine is to be idle: what earlier figures left to be written must not share the disk
    await asyncio.to_thread(os.sync)
    said = [said for said, _ in await asyncio.gather(*(w.communicate(b"\n") for w in writers))]
    assert [writer.returncode for writer in writers] == [0] * processes
    taken = [second for line in said for second in json.loads(line)]
    note = f"median {statistics.median(taken) * 1000:.3g} ms; no error"
    name = f"{kind}: worst write of {processes} processes x {times}"
    return Figure(name, 50, max(taken) * 1000, "ms", note=note)


# --- LangGraph ---


async def _langgraph(bench: Bench, server: Any, count: int) -> list[Figure]:
    with missing_extra("langgraph-checkpoint-postgres"):
        from langgraph.checkpoint.postgres import PostgresSaver
    import psycopg

    schema = f"saver_{count}"
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {schema}")
    theirs, ours = Clock(), Clock()
    options = f"?options=-c%20search_path%3D{schema}"
    with PostgresSaver.from_conn_string(server.url() + options) as saver:
        saver.setup()
        rounds = plain_rounds(saver, count)
        async with await create_checkpoint_engine(server.url(f"ours_of_{count}")) as engine:
            given = list(steps(count, 1000))
            for number in range(0, count, TURN):
                bench.advance(f"PostgreSQL: LangGraph's saver, step {number} of {count}")
                for step in given[number : number + TURN]:
                    await ours.time(engine.snapshot("t", **step))
                for step in given[number : number + TURN]:
                    rounds.go([langchain(step["append"][0])], step["state"], theirs)
            report = await engine.optimize()
    with psycopg.connect(server.url()) as db:
        found = db.execute(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c "
            "WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'",
            (schema,),
        ).fetchone()
    used, live, rested = found[0] if found else 0, report.size_before, report.size_after
    then = f"{used / live:.0f}x of {live / 1e6:.2f} MB right after the last step"
    large = count >= 3000
    return [
        Figure(
            f"PostgreSQL: LangGraph's saver, {count:,} steps: a write, times slower",
            40 if large else None,
            theirs.median / ours.median,
            at_least=True,
            note=f"{theirs.ms} / {ours.ms}",
        ),
        Figure(
            f"PostgreSQL: LangGraph's saver, {count:,} steps: disk at rest, times larger",
            1000 if large else None,
            used / rested,
            at_least=True,
            note=f"{used / 1e6:,.1f} / {rested / 1e6:.2f} MB; {then}",
        ),
    ]
