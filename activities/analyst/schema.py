"""What the scripted analyst has learned of the data so far."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .wording import TIME_WORDS, match_name, names_value

__all__ = ["Column", "Table", "best_table", "quote"]

_FEW = 60
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it was described; ``values`` once its values were looked at."""

    name: str
    type: str = ""
    distinct: int = 0
    low: Any = None
    high: Any = None
    values: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["number", "date", "text"]:
        """What can be done with it: averaged, cut into years, or compared."""
        if isinstance(self.low, int | float) and isinstance(self.high, int | float):
            return "number"
        if _iso(self.low) and _iso(self.high):
            return "date"
        return "text"

    @property
    def groups(self) -> bool:
        """Whether it makes sense to group by its values."""
        return self.kind == "text" or (isinstance(self.low, int) and 1 < self.distinct <= _FEW)

    @property
    def is_year(self) -> bool:
        """Whether it holds years as numbers."""
        return isinstance(self.low, int) and "year" in self.name.lower()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was listed and described."""

    name: str
    rows: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """Return the column of this name."""
        return next((c for c in self.columns if c.name == name), None)

    def first(self, kind: str) -> Column | None:
        """Return the first column of a kind."""
        return next((c for c in self.columns if c.kind == kind), None)

    def measure(self, words: Sequence[str], *, without: Iterable[str] = ()) -> Column | None:
        """Return the column of numbers that the words name best."""
        numbers = [c for c in self.columns if c.kind == "number" and c.name not in without]
        best = max(numbers, key=lambda c: match_name(c.name, words), default=None)
        return best if best is not None and match_name(best.name, words) > 0 else None

    def score(self, words: Sequence[str]) -> float:
        """Return how much of a question speaks of this table."""
        own = [w for w in words if w not in TIME_WORDS]  # every table may have dates
        by_name = match_name(self.name, own)
        by_column = sum(match_name(c.name, own) for c in self.columns)
        by_value = sum(2.0 for c in self.columns for v in c.values if names_value(v, own))
        return by_name + by_column + by_value


def best_table(tables: Sequence[Table], words: Sequence[str]) -> Table | None:
    """Return the table that a question speaks of most; ``None`` where there are none."""
    return max(tables, key=lambda t: t.score(words), default=None)


def quote(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _iso(value: Any) -> bool:
    return isinstance(value, str) and _DATE.match(value) is not None
