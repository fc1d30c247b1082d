"""What an engine remembers of contents is exactly what another would read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from ckpt_engine import (
    CheckpointEngine,
    SnapshotConfig,
    StepCommit,
    create_checkpoint_engine,
    new_checkpoint_id,
)

LOGS = SnapshotConfig(logs=("notes",))


def spoil(value: Any) -> None:
    """Change everything that can be changed in a value."""
    if isinstance(value, dict):
        for item in list(value.values()):
            spoil(item)
        value.clear()
    elif isinstance(value, list):
        for item in value:
            spoil(item)
        value.clear()


def some(rng: random.Random) -> dict[str, Any]:
    """Return a message: small or above the size that is kept apart, nested, or odd."""
    content: Any = rng.choice(
        ["hi", "long " * 2000, {"deep": [1, {"x": None}]}, b"\x00\xff", 2**70, ("a", "b")]
    )
    return {"role": rng.choice("ab"), "content": content, "n": rng.random()}


async def step(
    engine: CheckpointEngine, rng: random.Random, number: int, parents: tuple[str, ...], first: bool
) -> str:
    content = await engine.join(parents)
    notes = [*content.state.get("notes", []), {"note": number}]
    commit = StepCommit(
        checkpoint_id=new_checkpoint_id(),
        thread_id="t",
        step=number,
        parents=parents,
        first=first,
        append=[some(rng) for _ in range(rng.randrange(3))],
        state_set={
            f"k{rng.randrange(4)}": rng.choice([1, "long " * 2000, [1, [2]], {"a": {}}]),
            **({"notes": notes} if rng.random() < 0.5 else {}),
        },
        state_delete=[f"k{rng.randrange(4)}"] if rng.random() < 0.3 else [],
    )
    spoil(content.messages)
    spoil(content.state)
    await engine.commit_step(commit)
    return commit.checkpoint_id


@pytest.mark.parametrize("seed", range(8))
async def test_joins_from_memory_and_from_the_store_are_alike(tmp_path: Path, seed: int) -> None:
    rng, url = random.Random(seed), f"sqlite:///{tmp_path}/c.db"
    async with (
        await create_checkpoint_engine(url, LOGS) as engine,
        await create_checkpoint_engine(url, LOGS) as other,
    ):
        await engine.create_thread("t")
        frontier: tuple[str, ...] = ()
        number = 0
        for _ in range(12):
            group = rng.choice([1, 1, 1, 3])
            made = []
            for sibling in range(group):
                made.append(await step(engine, rng, number, frontier, sibling == 0))
                number += 1
                if not frontier:
                    break
            frontier = tuple(made)
            ours, theirs = await engine.join(frontier), await other.join(frontier)
            assert ours == theirs
            assert list(ours.state) == list(theirs.state)
        assert (await engine.get(frontier[0])).messages == (await other.get(frontier[0])).messages


async def test_a_step_after_a_step_reads_nothing(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watch:
        def committed(self, writes: int) -> None: ...

        def looked_up(self, *, hit: bool) -> None:
            seen.append(hit)

    rng = random.Random(0)
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/c.db") as engine:
        await engine.create_thread("t")
        newest = await step(engine, rng, 0, (), True)
        engine.observe(Watch())
        for number in range(1, 20):
            newest = await step(engine, rng, number, (newest,), True)
    assert seen
    assert all(seen)
