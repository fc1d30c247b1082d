"""What ``verify`` finds on PostgreSQL: a flipped bit in a row of every table, and a missing one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.store import TABLES

from ..postgres import url_in
from .test_corruption import CONFIG, _fill, _flipped
from .test_schema import connected

FLIPPED = {
    "thread": "head",
    "head_move": "to_id",
    "lineage": "pieces",
    "checkpoint": "meta",
    "edge": "parent",
    "batch": "body",
    "state": "body",
    "blob": "body",
    "blob_ref": "owner",
    "tag": "name",
    "pin": "owner",
    "run": "workflow_id",
    "tombstone": "at",
    "meta": "value",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which nothing is wrong."""
    url = url_in(tmp_path_factory.mktemp("sound"))

    async def make() -> None:
        async with await create_checkpoint_engine(url, CONFIG) as engine:
            await _fill(engine)

    asyncio.run(make())
    return url


async def is_sound(url: str) -> bool:
    async with await create_checkpoint_engine(url, CONFIG) as engine:
        return (await engine.verify()).ok


@pytest.mark.parametrize("table", FLIPPED)
async def test_a_flipped_bit_and_a_missing_row_are_found(sound: str, table: str) -> None:
    kept = next(t for t in TABLES.values() if t.name == table)
    column, keys = FLIPPED[table], " AND ".join(f'"{name}" = :{name}' for name in kept.key)
    with connected(sound) as db:
        where = f'WHERE "{column}" IS NOT NULL ORDER BY {", ".join(kept.key)} DESC LIMIT 1'
        found = db.execute(sa.text(f'SELECT * FROM "{table}" {where}')).mappings().one()
        row: dict[str, Any] = {
            n: bytes(v) if isinstance(v, memoryview) else v for n, v in found.items()
        }
        was = f"{row}"
        change = f'UPDATE "{table}" SET "{column}" = :new WHERE {keys}'
        flipped = {**row, "new": _flipped(row[column])}
        db.execute(sa.text(change), flipped)
    assert not await is_sound(sound), was
    now = {**row, column: flipped["new"]}
    with connected(sound) as db:
        db.execute(sa.text(f'DELETE FROM "{table}" WHERE {keys}'), now)
    assert not await is_sound(sound), was
    with connected(sound) as db:
        columns, places = ", ".join(f'"{n}"' for n in row), ", ".join(f":{n}" for n in row)
        db.execute(sa.text(f'INSERT INTO "{table}" ({columns}) VALUES ({places})'), row)
    assert await is_sound(sound)
