"""Files become tables that can be read and not written."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelRetry, ToolFailed

from ckpt_agent.activities.analyst import data
from ckpt_agent.activities.analyst.tools import describe, list_tables, run_sql

WRITES = [
    "INSERT INTO sales VALUES (1)",
    "UPDATE sales SET amount = 0",
    "DELETE FROM sales",
    "DROP TABLE sales",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t (a)",
    "REPLACE INTO sales VALUES (1)",
    "WITH x AS (SELECT 1) DELETE FROM sales",
    "ALTER TABLE sales ADD COLUMN x",
    "VACUUM",
    "VACUUM INTO '{elsewhere}'",
    "ATTACH '{elsewhere}' AS other",
    "PRAGMA query_only = OFF",
    "PRAGMA user_version = 7",
    "BEGIN IMMEDIATE",
    "SELECT load_extension('x')",
    "SELECT 1; DELETE FROM sales",
]


def ctx(path: Path | str | None = None) -> Any:
    """A tool call's context, with the data in the agent's state."""
    return SimpleNamespace(deps={} if path is None else {"data": str(path)})


def rows(context: Any, sql: str) -> list[list[Any]]:
    return list(run_sql(context, sql)["rows"])


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop's data.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute('CREATE TABLE sales (region TEXT, amount REAL, "on" DATE, raw BLOB)')
        db.execute("INSERT INTO sales VALUES ('north', 2.5, '2024-03-01', x'00ff')")
        db.execute("INSERT INTO sales VALUES ('south', NULL, '2024-03-02', NULL)")
        db.execute("CREATE VIEW big AS SELECT * FROM sales WHERE amount > 2")
        db.commit()
    return path


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "sales.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("kind", ["csv", "sqlite"])
@pytest.mark.parametrize("statement", WRITES)
def test_the_database_refuses_to_write(
    statement: str, kind: str, tmp_path: Path, sqlite_file: Path, csv_file: Callable[..., Path]
) -> None:
    source = sqlite_file if kind == "sqlite" else csv_file("amount\n1\n2\n")
    before = hashlib.sha256(source.read_bytes()).digest()
    elsewhere = tmp_path / "elsewhere.db"
    with pytest.raises(ModelRetry):
        run_sql(ctx(source), statement.format(elsewhere=elsewhere))
    assert rows(ctx(source), "SELECT count(*) FROM sales") == [[2]]
    assert hashlib.sha256(source.read_bytes()).digest() == before
    assert not elsewhere.exists()


@pytest.mark.parametrize("statement", ["DELETE FROM sales", "CREATE TABLE t (a)"])
def test_the_file_is_read_only_even_without_the_authoriser(
    statement: str, sqlite_file: Path
) -> None:
    with data.open_data({"data": str(sqlite_file)}) as db:
        db.execute("PRAGMA query_only = OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly database"):
            db.execute(statement)


def test_tables_of_a_sqlite_file(sqlite_file: Path) -> None:
    listed = {t["table"]: t for t in list_tables(ctx(sqlite_file))}
    assert listed["sales"]["columns"] == ["region", "amount", "on", "raw"]
    assert (listed["sales"]["rows"], listed["big"]["rows"]) == (2, 1)
    columns = {c["column"]: c for c in describe(ctx(sqlite_file), "sales")["columns"]}
    assert columns["amount"] == {
        "column": "amount",
        "type": "REAL",
        "distinct": 1,
        "filled": 1,
        "min": 2.5,
        "max": 2.5,
    }
    assert columns["raw"]["min"] == "2 bytes"
    assert columns["on"]["max"] == "2024-03-02"


def test_a_table_that_is_not_there_names_those_that_are(sqlite_file: Path) -> None:
    with pytest.raises(ModelRetry, match="Tables: big, sales"):
        describe(ctx(sqlite_file), "nothing")


def test_columns_get_their_types(csv_file: Callable[..., Path]) -> None:
    path = csv_file(
        "id;zip;price;day;moment;note\n"
        "1;007;1.50;01/31/2024;2024-01-31 10:00:00;a, b\n"
        "-2;010;NA;02/01/2024;2024-02-01 11:30:00;\n"
        "\n"
        "3;999;2e1;02/02/2024;2024-02-02 00:00:00;ü\n"
    )
    described = describe(ctx(path), "sales")["columns"]
    assert [c["type"] for c in described] == [
        "INTEGER",
        "TEXT",
        "REAL",
        "DATE",
        "DATETIME",
        "TEXT",
    ]
    assert rows(ctx(path), "SELECT * FROM sales") == [
        [1, "007", 1.5, "2024-01-31", "2024-01-31 10:00:00", "a, b"],
        [-2, "010", None, "2024-02-01", "2024-02-01 11:30:00", None],
        [3, "999", 20.0, "2024-02-02", "2024-02-02 00:00:00", "ü"],
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(separator: str, csv_file: Callable[..., Path]) -> None:
    lines = [["a", "b"], ["1", "x"], ["2", "y"]]
    path = csv_file("\ufeff" + "\n".join(separator.join(line) for line in lines))
    assert rows(ctx(path), "SELECT a, b FROM sales") == [[1, "x"], [2, "y"]]


def test_odd_headers_and_ragged_rows(csv_file: Callable[..., Path]) -> None:
    path = csv_file('a,a,,"net $ gain"\n1,2\n3,4,5,6,7\n', name="My Data (1).csv")
    (table,) = list_tables(ctx(path))
    assert table["table"] == "my_data_1"
    assert table["columns"] == ["a", "a_2", "column", "net_gain"]
    assert rows(ctx(path), "SELECT * FROM my_data_1") == [[1, 2, None, None], [3, 4, 5, 6]]


def test_a_single_column_and_an_empty_table(csv_file: Callable[..., Path]) -> None:
    assert rows(ctx(csv_file("n\n1\n2\n")), "SELECT sum(n) FROM sales") == [[3]]
    assert list_tables(ctx(csv_file("a,b\n", name="none.csv")))[0]["rows"] == 0


def test_a_folder_of_files_is_one_database(csv_file: Callable[..., Path], tmp_path: Path) -> None:
    csv_file("a\n1\n", name="one.csv")
    csv_file("b\n2\n", name="two.csv")
    assert rows(ctx(tmp_path), "SELECT a + b FROM one, two") == [[3]]


def test_a_changed_file_is_read_again_and_its_old_copy_goes(
    csv_file: Callable[..., Path], cache_folder: Path
) -> None:
    path = csv_file("n\n1\n")
    assert rows(ctx(path), "SELECT n FROM sales") == [[1]]
    copies = set((cache_folder / "ckpt-engine/data").iterdir())
    csv_file("n\n1\n22\n")
    assert rows(ctx(path), "SELECT n FROM sales") == [[1], [22]]
    assert len(set((cache_folder / "ckpt-engine/data").iterdir())) == len(copies)


def test_an_unchanged_file_is_imported_once(
    csv_file: Callable[..., Path], cache_folder: Path
) -> None:
    path = csv_file("n\n77\n", name="once.csv")
    list_tables(ctx(path))
    files = {p: p.stat().st_mtime_ns for p in (cache_folder / "ckpt-engine/data").iterdir()}
    list_tables(ctx(path))
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert not [p for p in files if p.suffix == ".part"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "no header"),
        (b"\xff\xfe\x00bin", "not UTF-8"),
        (b"SQLite format 3\x00 and then nothing", "cannot be opened"),
    ],
)
def test_data_that_cannot_be_read_is_told(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ToolFailed, match=says):
        list_tables(ctx(path))


def test_a_path_that_is_none_is_told() -> None:
    with pytest.raises(ToolFailed, match="path of a file"):
        list_tables(SimpleNamespace(deps={"data": 5}))  # type: ignore[arg-type]


def test_rows_that_were_left_out_are_mentioned(csv_file: Callable[..., Path]) -> None:
    path = csv_file("n\n" + "\n".join(map(str, range(300))))
    result = run_sql(ctx(path), "SELECT n FROM sales", max_rows=10)
    assert len(result["rows"]) == 10
    assert result["note"] == "Only the first 10 rows; there are more."
    assert len(run_sql(ctx(path), "SELECT n FROM sales", max_rows=10_000)["rows"]) == 200
    assert "note" not in run_sql(ctx(path), "SELECT n FROM sales LIMIT 50")


def test_long_texts_are_cut_and_say_so(csv_file: Callable[..., Path]) -> None:
    path = csv_file("note\n" + "x" * 5000 + "\n")
    ((text,),) = rows(ctx(path), "SELECT note FROM sales")
    assert len(text) < 2100
    assert text.endswith("(5000 characters)")


def test_a_statement_that_never_ends_is_interrupted(
    csv_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_SECONDS", 0.2)
    endless = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t"
    with pytest.raises(ModelRetry, match="longer than"):
        run_sql(ctx(csv_file("n\n1\n")), endless)


def test_the_shipped_data() -> None:
    listed = {t["table"]: t["rows"] for t in list_tables(ctx())}
    assert listed == {"iowa_electricity": 51, "seattle_weather": 1461, "stocks": 560}
