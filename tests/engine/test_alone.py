"""The engine in processes of its own: several at once, a large message, without Temporal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ckpt_engine import create_checkpoint_engine

AGENT = """
import asyncio, sys
from ckpt_engine import create_checkpoint_engine

async def main(path, name):
    async with await create_checkpoint_engine(path) as engine:
        print("open", flush=True)
        sys.stdin.readline()
        for n in range(15):
            print(await engine.snapshot("shared", append=[f"{name} {n}"], state={"n": n}))
            print(await engine.snapshot(name, append=[n]))

asyncio.run(main(*sys.argv[1:]))
"""

LARGE = """
import asyncio, resource, sys
from ckpt_engine import create_checkpoint_engine

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

async def main(path, what):
    async with await create_checkpoint_engine(path) as engine:
        if what == "write":
            content = b"0123456789" * 10_000_000
            before = peak()
            await engine.snapshot("t", append=["small", {"content": content}])
        else:
            before = peak()
            small, large = (await engine.get_latest("t")).messages
            assert (small, large["content"]) == ("small", b"0123456789" * 10_000_000)
        print(peak() - before)

asyncio.run(main(*sys.argv[1:]))
"""

FIVE_LINES = """
import asyncio, sys
from ckpt_engine import create_checkpoint_engine

async def main():
    async with await create_checkpoint_engine(sys.argv[1]) as engine:
        first = await engine.snapshot("chat", append=[{"role": "user", "content": "hello"}])
        await engine.snapshot("chat", append=[{"role": "assistant", "content": "hi"}])
        await engine.rewind(first)
        print(len((await engine.get_latest("chat")).messages))
asyncio.run(main())
print([name for name in sys.modules if name.startswith("temporalio")])
"""


def _run(code: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_steps_and_ids_hold_across_processes_and_restarts(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    for number in range(2):
        names = [f"agent {number} {n}" for n in range(3)]
        agents = [
            subprocess.Popen(
                [sys.executable, "-c", AGENT, path, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in names
        ]
        for agent in agents:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "open\n"
        said = [agent.communicate("go\n", timeout=60)[0].split() for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0, 0]
        ids = [checkpoint_id for ids in said for checkpoint_id in ids]
        assert len(set(ids)) == len(ids) == 90
        async with await create_checkpoint_engine(path) as engine:
            shared = (await engine.list_time_travel_points("shared", limit=None))[::-1]
            assert [point.step for point in shared] == list(range(45 * (number + 1)))
            assert [p.parents for p in shared] == [(), *((p.id,) for p in shared[:-1])]
            latest = await engine.get_latest("shared")
            assert {f"{name} {n}" for name in names for n in range(15)} <= set(latest.messages)
            for name in names:
                assert (await engine.get_latest(name)).messages == list(range(15))
            assert (await engine.verify()).ok


def test_a_message_of_a_hundred_megabytes(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    for what in ("write", "read"):
        assert int(_run(LARGE, path, what)) < 250_000_000, what


def test_five_lines_give_time_travel_without_temporal(tmp_path: Path) -> None:
    assert _run(FIVE_LINES, str(tmp_path / "a.db")) == "1\n[]\n"
