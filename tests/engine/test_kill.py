"""kill -9 of a process that snapshots in a loop."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_engine import create_checkpoint_engine

from .test_schema import url_of

LOOP = """
import asyncio, sys
from ckpt_engine import create_checkpoint_engine
async def main():
    async with await create_checkpoint_engine(sys.argv[1]) as engine:
        n = 0
        while True:
            ids = await asyncio.gather(*(
                engine.snapshot(f"t{k}", append=[{"n": n, "k": k}], state={"n": n})
                for k in range(4)))
            for i in ids:
                print(i, n, flush=True)
            n += 1
asyncio.run(main())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "rounds"), [("sqlite", 100), ("postgresql", 20)])
async def test_every_returned_id_survives_kill_9(kind: str, rounds: int, tmp_path: Path) -> None:
    url, rng = url_of(kind, tmp_path), random.Random(7)
    returned: dict[str, int] = {}
    for _ in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                line = process.stdout.readline().split()
                returned[line[0]] = int(line[1])
            process.send_signal(signal.SIGKILL)
            for rest in process.stdout.read().splitlines():
                if len(rest.split()) == 2 and len(rest.split()[0]) == 32:
                    returned[rest.split()[0]] = int(rest.split()[1] or 0)
    async with await create_checkpoint_engine(url) as engine:
        for checkpoint_id, n in returned.items():
            assert (await engine.get(checkpoint_id)).messages[-1]["n"] == n
        report = await engine.verify()
        assert report.problems == ()
        assert report.checkpoints >= len(returned) > rounds
