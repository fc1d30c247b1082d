"""The data an analyst looks at, opened so that nothing can be written to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic_ai.exceptions import ModelRetry, ToolFailed

from .csv_import import import_csv

__all__ = ["only_reading", "open_data", "shipped_files"]

_SECONDS = 20.0  # of one statement
_STEPS = 100_000  # of SQLite's machine between two looks at the clock
_CELL_BYTES = 1_000_000
_MAGIC = b"SQLite format 3\x00"
_SHIPPED = ["seattle-weather.csv", "stocks.csv", "iowa-electricity.csv"]
_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


@contextmanager
def open_data(state: Mapping[str, Any]) -> Iterator[sqlite3.Connection]:
    """Open the agent's data read-only: ``state["data"]``, or the shipped example without it.

    The database itself refuses to write: the file is opened with ``mode=ro``, ``query_only`` is
    on, and no further file can be attached. A statement that runs for 20 seconds is interrupted.

    Args:
        state: The agent's state; ``data`` is a CSV file, a folder of them, or a SQLite file.

    Raises:
        ToolFailed: There is no such data, or it cannot be read; for the model to read.
        ModelRetry: The database refused a statement in the ``with`` block; likewise.
    """
    try:
        file, private = _database(state.get("data"))
        db = _connect(file, private)
    except (OSError, ValueError, sqlite3.Error) as err:
        raise ToolFailed(f"the data cannot be opened: {err}") from err
    with closing(db):
        try:
            yield db
        except (sqlite3.Error, sqlite3.Warning) as err:
            raise ModelRetry(_refusal(err)) from err


def only_reading(db: sqlite3.Connection) -> None:
    """Let the database refuse, from now on, every statement that does not only read."""
    db.set_authorizer(_authorise)


def shipped_files() -> list[Path]:
    """Return the CSV files of the shipped example: Seattle's weather, stocks, Iowa's electricity.

    Raises:
        ToolFailed: The package they come in is not installed.
    """
    package = find_spec("vega_datasets")  # its files are wanted, not its imports
    if package is None or package.origin is None:
        raise ToolFailed(
            "the example data is not installed: pip install 'ckpt-engine[examples]', or name a "
            "file of your own in the state key `data`"
        )
    return [Path(package.origin).parent / "_data" / name for name in _SHIPPED]


def _database(named: Any) -> tuple[Path, bool]:
    """Return the SQLite file to open and whether it is a private copy that nobody writes."""
    if named is None:
        return import_csv(shipped_files()), True
    if not isinstance(named, str):
        raise ValueError(f"`data` must be the path of a file, not {named!r}")
    path = Path(named).expanduser()
    if path.is_dir():
        sources = sorted(path.glob("*.csv"))
        if not sources:
            raise ValueError(f"{path} has no CSV files")
        return import_csv(sources), True
    with path.open("rb") as file:
        is_sqlite = file.read(len(_MAGIC)) == _MAGIC
    return (path, False) if is_sqlite else (import_csv([path]), True)


def _connect(file: Path, private: bool) -> sqlite3.Connection:
    options = "mode=ro&immutable=1" if private else "mode=ro"
    db = sqlite3.connect(f"file:{quote(str(file.resolve()))}?{options}", uri=True)
    try:
        db.execute("PRAGMA query_only=ON")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # is it a database at all?
        db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _CELL_BYTES)
        deadline = time.monotonic() + _SECONDS
        db.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _refusal(err: sqlite3.Error | sqlite3.Warning) -> str:
    if getattr(err, "sqlite_errorname", None) == "SQLITE_INTERRUPT":
        return f"This took longer than {_SECONDS:g} seconds and was stopped."
    return f"The database (read-only) refused this: {err}"


def _authorise(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
