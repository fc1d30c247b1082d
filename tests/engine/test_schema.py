"""The schema's versions: made, upgraded, and refused, on both databases."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from ckpt_engine import create_checkpoint_engine
from ckpt_engine.errors import SchemaMismatch
from ckpt_engine.quickstart import database_version
from ckpt_engine.store import TABLES
from ckpt_engine.stores.schema import NEWEST

from ..postgres import url_in

DATABASES = ["sqlite", "postgresql"]
DATA = Path(__file__).parents[1] / "data"


def url_of(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'a.db'}" if kind == "sqlite" else url_in(folder)


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Connect past the engine, to its own tables."""
    target = sa.make_url(url)
    schema = str(target.query.get("schema", ""))
    target = target.difference_update_query(["schema"])
    options = {"connect_args": {"options": f"-c search_path={schema}"}} if schema else {}
    if schema:
        target = target.set(drivername="postgresql+psycopg")
    made = sa.create_engine(target, **options)
    try:
        with made.begin() as connection:
            yield connection
    finally:
        made.dispose()


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_versions_make_the_tables_that_the_row_types_describe(
    kind: str, tmp_path: Path
) -> None:
    url = url_of(kind, tmp_path)
    await (await create_checkpoint_engine(url)).close()
    with connected(url) as db:
        found = sa.inspect(db)
        assert set(found.get_table_names()) == {
            *(t.name for t in TABLES.values()),
            "alembic_version",
        }
        for row, table in TABLES.items():
            columns = {c["name"]: c for c in found.get_columns(table.name)}
            hints = get_type_hints(row)
            assert set(columns) == set(row._fields)
            for name, column in columns.items():
                assert _python_type(column["type"]) in _types(hints[name]), (table.name, name)
                nullable = type(None) in _types(hints[name])
                assert column["nullable"] == nullable or name in table.key, (table.name, name)
            assert found.get_pk_constraint(table.name)["constrained_columns"] == list(table.key)
            indexes = {
                (tuple(i["column_names"]), bool(i["unique"])) for i in found.get_indexes(table.name)
            }
            wanted = {(c, True) for c in table.unique} | {(c, False) for c in table.index}
            assert indexes == wanted, table.name


def _python_type(column: Any) -> type:
    kind: type = column.python_type
    return kind


def _types(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", (hint,))


def test_the_newest_version_is_the_last_one() -> None:
    config = Config()
    config.set_main_option("script_location", "ckpt_engine.stores:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST]


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize(("version", "advice"), [("9999", "pip install"), ("0001", "db upgrade")])
async def test_another_version_is_refused_with_what_to_do(
    kind: str, version: str, advice: str, tmp_path: Path
) -> None:
    url = url_of(kind, tmp_path)
    await (await create_checkpoint_engine(url)).close()
    with connected(url) as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    with pytest.raises(SchemaMismatch, match=advice) as refused:
        await create_checkpoint_engine(url)
    assert version in str(refused.value)
    assert NEWEST in str(refused.value)
    assert (sa.make_url(url).password or "nothing") not in str(refused.value)


def test_opening_a_file_that_is_up_to_date_loads_no_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from ckpt_engine import create_checkpoint_engine\n"
        "async def main(): await (await create_checkpoint_engine(sys.argv[1])).close()\n"
        "asyncio.run(main()); print('alembic' in sys.modules, 'psycopg' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.db")]
    said = [subprocess.run(command, capture_output=True, text=True).stdout for _ in range(2)]
    assert said == ["True False\n", "False False\n"]


def as_first_written(kind: str, folder: Path) -> str:
    """Make a database of the first schema, with what the engine of that time wrote."""
    path = folder / "first.db"
    with sqlite3.connect(path) as old:
        old.executescript((DATA / "first_schema.sql").read_text())
    if kind == "sqlite":
        old.close()
        return f"sqlite:///{path}"
    url = url_in(folder)
    schema = sa.make_url(url).query["schema"]
    with connected(url) as db:
        db.execute(sa.text(f'CREATE SCHEMA "{schema}"'))
        config = Config()
        config.set_main_option("script_location", "ckpt_engine.stores:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = db
        command.upgrade(config, "0001")
        for table in sa.inspect(db).get_table_names():
            if table == "alembic_version":
                continue
            rows = old.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in rows.description]
            places = ", ".join(f":{name}" for name in names)
            for row in rows.fetchall():
                columns = ", ".join(f'"{name}"' for name in names)
                insert = f'INSERT INTO "{table}" ({columns}) VALUES ({places})'
                db.execute(sa.text(insert), dict(zip(names, row, strict=True)))
    old.close()
    return url


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_database_of_the_first_schema_is_upgraded_and_reads_as_it_did(
    kind: str, tmp_path: Path
) -> None:
    url = as_first_written(kind, tmp_path)
    with pytest.raises(SchemaMismatch, match="ckpt db upgrade"):
        await create_checkpoint_engine(url)
    assert await database_version(url, upgrade=True) == NEWEST
    assert await database_version(url, upgrade=True) == NEWEST  # again does nothing
    wanted = json.loads((DATA / "first_schema.json").read_text())
    async with await create_checkpoint_engine(url) as engine:
        for checkpoint_id, was in wanted.items():
            found = await engine.get(checkpoint_id)
            assert (found.thread_id, found.step) == (was["thread"], was["step"])
            assert (found.messages, found.state) == (was["messages"], was["state"])
            assert (found.tools_result, found.digest) == (was["result"], was["digest"])
        assert (await engine.verify()).problems == ()
        await engine.undo("talk")
        await engine.snapshot("talk", append=["and on"])
        await engine.unpin("owner")
        assert (await engine.verify()).problems == ()
