"""What is forgotten on PostgreSQL is gone from the files of its tables."""

from __future__ import annotations

from pathlib import Path

import psycopg

from ckpt_engine import create_checkpoint_engine

from ..postgres import url_in
from .test_forget import BODIES

SECRET = b"Jane Q. Public"


def pages_of(url: str) -> bytes:
    """Return every byte of the tables, as the server has them, dead rows included."""
    plain, _, schema = url.partition("?schema=")
    found = b""
    with psycopg.connect(plain) as db:
        for table in [table for table, _ in BODIES] + ["head_move", "tag", "run", "meta"]:
            name = f'"{schema}"."{table}"'
            toast = db.execute(
                "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = %s::regclass "
                "AND reltoastrelid <> 0",
                (name,),
            ).fetchone()
            for relation in [name, *(toast or ())]:
                size = db.execute("SELECT pg_relation_size(%s::regclass)", (relation,)).fetchone()
                read = "SELECT pg_read_binary_file(pg_relation_filepath(%s::regclass))"
                pages = db.execute(read, (relation,)).fetchone()
                assert size is not None
                assert pages is not None
                found += bytes(pages[0])
    return found


async def test_no_page_of_a_table_has_what_was_forgotten(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    async with await create_checkpoint_engine(url) as engine:
        for n in range(30):
            await engine.snapshot("kept", append=[f"harmless {n}"])
            await engine.snapshot("secret", append=[f"{SECRET.decode()} {n}"], state={"n": n})
        with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
            db.execute("CHECKPOINT")
        assert SECRET in pages_of(url)
        report = await engine.forget(session_id="secret")
        assert not report.pending
        with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
            db.execute("CHECKPOINT")
        pages = pages_of(url)
        assert SECRET not in pages
        assert b"harmless" in pages
        assert (await engine.verify()).problems == ()
