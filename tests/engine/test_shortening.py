"""What a shortened conversation costs: what is new in it, not what is kept."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from ckpt_engine import create_checkpoint_engine


def stored(path: Path) -> int:
    """Return the bytes of all messages in the file, as they are stored."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT coalesce(sum(length(body)), 0) FROM batch").fetchone()
    return int(found[0])


async def test_what_is_kept_of_a_conversation_is_not_stored_again(tmp_path: Path) -> None:
    rng = random.Random(5)
    said = [{"n": n, "content": rng.randbytes(1000).hex()} for n in range(100)]
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/c.db") as engine:
        await engine.snapshot("t", append=said)
        before = stored(tmp_path / "c.db")
        summary, pinned, tail = {"role": "system", "content": "in short"}, said[7], said[60:]
        short = [said[0], summary, pinned, *tail, {"content": "and on"}]
        shortened = await engine.snapshot("t", messages=short)
        assert stored(tmp_path / "c.db") - before < 200  # of 84,000 that it has
        assert shortened is not None
        assert (await engine.get(shortened)).messages == short
        await engine.snapshot("t", append=[{"content": "more"}])
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/c.db") as engine:
        assert (await engine.get_latest("t")).messages == [*short, {"content": "more"}]
        assert (await engine.verify()).ok


async def test_a_conversation_edited_all_over_is_stored_in_few_pieces(tmp_path: Path) -> None:
    said = [{"content": f"{n} " * 60} for n in range(200)]
    async with await create_checkpoint_engine(f"sqlite:///{tmp_path}/c.db") as engine:
        await engine.snapshot("t", append=said)
        every = [m if n % 2 else {"content": "redone"} for n, m in enumerate(said)]
        await engine.snapshot("t", messages=every)
        assert (await engine.get_latest("t")).messages == every
    with closing(sqlite3.connect(tmp_path / "c.db")) as db:
        pieces = db.execute("SELECT max(length(pieces)) FROM lineage").fetchone()[0]
    assert (pieces or 0) < 500
