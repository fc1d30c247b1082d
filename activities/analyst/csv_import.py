"""CSV files become tables of one private SQLite file, once; later runs find it again."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import platformdirs

__all__ = ["import_csv", "table_name"]

_VERSION = 1  # of the conversion; another one makes a new file
_BATCH = 1000
_SNIFF_BYTES = 64_000
_NOTHING = {"", "na", "n/a", "nan", "null", "none"}
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATES = ["%Y-%m-%d", "%Y/%m/%d", "%b %d %Y", "%B %d %Y", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y"]
_MOMENTS = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M"]

_Cell = str | int | float | None
_Convert = Callable[[str], _Cell]


def import_csv(sources: Sequence[Path]) -> Path:
    """Return a SQLite file with one table for each CSV file; made on first use.

    Numbers become numbers and dates ISO text (``2014-07-01``), where every value of a column is
    one. Empty cells and ``NA`` become NULL.

    Raises:
        OSError: A file cannot be read, or the cache folder cannot be written.
        ValueError: A file has no header line or is not text.
    """
    folder = Path(platformdirs.user_cache_dir("ckpt-engine")) / "data"
    whose = _digest([str(source.resolve()) for source in sources])
    target = folder / f"{whose}-{_digest(_versions(sources))}.sqlite"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    partial = Path(name)
    try:
        with closing(sqlite3.connect(partial)) as db:
            taken: set[str] = set()
            for source in sources:
                _import_one(db, source, taken)
            db.commit()
        partial.replace(target)  # two workers may do this at once: the same content wins
    finally:
        partial.unlink(missing_ok=True)
    for older in folder.glob(f"{whose}-*.sqlite"):
        if older != target:
            older.unlink(missing_ok=True)
    return target


def table_name(source: Path) -> str:
    """Return the name of the table that a CSV file becomes."""
    return re.sub(r"\W+", "_", source.stem).strip("_").lower() or "data"


def _versions(sources: Sequence[Path]) -> list[tuple[int, int, int]]:
    return [(_VERSION, s.stat().st_size, s.stat().st_mtime_ns) for s in sources]


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def _import_one(db: sqlite3.Connection, source: Path, taken: set[str]) -> None:
    header, converters = _columns(source)
    table = _unique(table_name(source), taken)
    columns = ", ".join(
        f"{_quote(name)} {kind}" for name, (kind, _) in zip(header, converters, strict=True)
    )
    db.execute(f"CREATE TABLE {_quote(table)} ({columns})")
    insert = f"INSERT INTO {_quote(table)} VALUES ({', '.join('?' * len(header))})"  # noqa: S608
    batch: list[list[_Cell]] = []
    for row in _rows(source, len(header)):
        batch.append(
            [None if _is_nothing(c) else f(c) for c, (_, f) in zip(row, converters, strict=True)]
        )
        if len(batch) >= _BATCH:
            db.executemany(insert, batch)
            batch.clear()
    db.executemany(insert, batch)


def _columns(source: Path) -> tuple[list[str], list[tuple[str, _Convert]]]:
    with _open(source) as lines:
        raw = next(lines, None)
    if not raw:
        raise ValueError(f"{source} has no header line")
    taken: set[str] = set()
    header = [_unique(re.sub(r"\W+", "_", c).strip("_") or "column", taken) for c in raw]
    guesses = [_Guess() for _ in header]
    for row in _rows(source, len(header)):
        for guess, cell in zip(guesses, row, strict=True):
            guess.see(cell.strip())
    return header, [guess.decide() for guess in guesses]


class _Guess:
    """What a column may be, narrowed by each value seen."""

    def __init__(self) -> None:
        self._left: list[tuple[str, _Convert]] = [
            ("INTEGER", _integer),
            ("REAL", _real),
            *(("DATE", _date_as(f, "%Y-%m-%d")) for f in _DATES),
            *(("DATETIME", _date_as(f, "%Y-%m-%d %H:%M:%S")) for f in _MOMENTS),
        ]
        self._seen = False

    def see(self, cell: str) -> None:
        if _is_nothing(cell):
            return
        self._seen = True
        self._left = [kind for kind in self._left if _fits(kind[1], cell)]

    def decide(self) -> tuple[str, _Convert]:
        return self._left[0] if self._left and self._seen else ("TEXT", str)


def _fits(convert: _Convert, cell: str) -> bool:
    try:
        convert(cell)
    except ValueError:
        return False
    return True


def _integer(cell: str) -> int:
    if not _INTEGER.fullmatch(cell.strip()):  # 007 is a code, not a number
        raise ValueError(cell)
    return int(cell)


def _real(cell: str) -> float:
    bare = cell.strip()
    if not _REAL.fullmatch(bare) or re.match(r"[+-]?0\d", bare):
        raise ValueError(cell)
    return float(bare)


def _date_as(given: str, stored: str) -> _Convert:
    return lambda cell: datetime.strptime(cell.strip(), given).strftime(stored)


def _is_nothing(cell: str) -> bool:
    return cell.strip().lower() in _NOTHING


def _rows(source: Path, width: int) -> Iterator[list[str]]:
    """Yield the rows, each cut or filled to the header's width; blank lines are skipped."""
    with _open(source) as lines:
        next(lines, None)
        for row in lines:
            if row:
                yield (row + [""] * width)[:width]


class _open:  # noqa: N801 - used like the built-in
    """A CSV file as rows of text, whatever its separator."""

    def __init__(self, source: Path) -> None:
        self._file = source.open(newline="", encoding="utf-8-sig")

    def __enter__(self) -> Iterator[list[str]]:
        try:
            head = self._file.read(_SNIFF_BYTES)
        except UnicodeDecodeError as err:
            self._file.close()
            raise ValueError(f"{self._file.name} is not UTF-8 text: {err}") from err
        self._file.seek(0)
        try:
            dialect: type[csv.Dialect] = csv.Sniffer().sniff(head, delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel
        return csv.reader(self._file, dialect)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate.lower() in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate.lower())
    return candidate


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
