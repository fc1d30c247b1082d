"""A question in plain words becomes a request on one table: what, of what, by what, which rows."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .schema import Column, Table
from .wording import NUMBERS, match_name, names_value, number_of, same, words_of

__all__ = ["Aggregate", "Condition", "Request", "Style", "read", "split", "style_of"]

Aggregate = Literal["avg", "sum", "count", "max", "min"]

_AGGREGATES: dict[Aggregate, set[str]] = {
    "avg": {"average", "mean", "avg", "averages", "typical"},
    "sum": {"total", "sum", "altogether", "totals", "overall"},
    "count": {"count", "counts"},
}
_MOST = {
    *("highest", "maximum", "max", "largest", "biggest", "most", "greatest", "peak", "hottest"),
    *("warmest", "top", "best"),
}
_LEAST = {
    *("lowest", "minimum", "min", "smallest", "least", "fewest", "cheapest", "coldest"),
    *("bottom", "worst"),
}
_MONTHS = [month.lower() for month in calendar.month_name[1:]]
_UNITS = {"year": 4, "years": 4, "yearly": 4, "annual": 4, "month": 7, "months": 7, "monthly": 7}
_ABOVE = r"(?:above|over|more than|greater than|higher than|exceeding|exceeds|>)"
_BELOW = r"(?:below|under|less than|lower than|fewer than|<)"
_GROUP = re.compile(
    r"\b(?:by|per|each|every|across|which|what)\s+(?:(?:the|a)\s+)?"
    r"(?:(?:kinds?|types?|sorts?)\s+of\s+)?([a-z][\w]*)"
)
_COUNT = rf"(\d+|{'|'.join(NUMBERS)})"
_TOP = (
    rf"\b(?:(?:top|first|best|bottom|worst|last)\s+{_COUNT}|{_COUNT}\s+"
    rf"(?:{'|'.join(sorted(_MOST | _LEAST))}))\b"
)
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_QUESTION = re.compile(r"^\s*(what|which|how|who|when|where|list|compare|is|are|give|count)\b")
_FOLLOW_UP = re.compile(r"^\s*(?:what|how) about\b")


@dataclass(frozen=True, slots=True)
class Condition:
    """Which rows: SQL, the same in words, and what it is about (a later one replaces it)."""

    about: str
    sql: str
    words: str


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of one table; ``None`` is what was not said."""

    aggregate: Aggregate | None = None
    measure: str | None = None
    group: str | None = None
    unit: int | None = None  # of a date: 4 characters are a year, 7 a month
    asks_which: bool = False
    descending: bool | None = None
    limit: int | None = None
    noun: str | None = None
    conditions: tuple[Condition, ...] = ()

    def refined(self, by: Request) -> Request:
        """Return this request with whatever another one says in its place."""
        said = {
            name: getattr(by, name)
            for name in ("aggregate", "measure", "descending", "limit", "noun")
            if getattr(by, name) is not None
        }
        if by.group is not None:
            said |= {"group": by.group, "unit": by.unit, "asks_which": by.asks_which}
        about = {c.about for c in by.conditions}
        kept = tuple(c for c in self.conditions if c.about not in about)
        return replace(self, **said, conditions=kept + by.conditions)


@dataclass(frozen=True, slots=True)
class Style:
    """How to answer."""

    one_sentence: bool = False
    decimals: int = 2
    top: int | None = None


def split(said: Sequence[str]) -> tuple[str, list[str]]:
    """Return the newest question of a conversation and what was said about it afterwards."""
    asked = [n for n, text in enumerate(said) if _is_question(text.lower())]
    if not asked:
        return (said[0], list(said[1:])) if said else ("", [])
    # what was said before the first question, as when a start is rewound with an extra message,
    # is about it too
    before = said[: asked[0]] if len(asked) == 1 else []
    return said[asked[-1]], [*before, *said[asked[-1] + 1 :]]


def _is_question(text: str) -> bool:
    return bool(_QUESTION.match(text)) and not _FOLLOW_UP.match(text)


def style_of(texts: Sequence[str], settings: Mapping[str, Any]) -> Style:
    """Return how to answer, from instructions and settings (``top``, ``decimals``, ``style``)."""
    style = Style()
    for text in texts:
        lowered = text.lower()
        if re.search(r"\b(?:one|a single) sentence\b|\bbrief|\bin short\b|\bshort answer", lowered):
            style = replace(style, one_sentence=True)
        if found := re.search(r"\b(\w+) decimals?\b", lowered):
            places = 0 if found[1] in ("no", "without") else number_of(found[1])
            style = style if places is None else replace(style, decimals=min(places, 6))
        if (top := _top(lowered)) is not None:
            style = replace(style, top=top)
    if isinstance(settings.get("decimals"), int):
        style = replace(style, decimals=max(0, min(settings["decimals"], 6)))
    if isinstance(settings.get("top"), int):
        style = replace(style, top=max(1, settings["top"]))
    if settings.get("style") in ("short", "one sentence", "brief"):
        style = replace(style, one_sentence=True)
    return style


def read(text: str, table: Table) -> Request:
    """Return what a text asks of a table; parts it does not mention stay open."""
    lowered = text.lower().split(" instead of ")[0]
    words = words_of(lowered)
    group, unit, asks_which = _group(lowered, table)
    conditions, used = _conditions(lowered, words, table)
    aggregate, descending, superlative = _aggregate(lowered, words)
    grouping = {group.name} if group is not None else set()
    # words that were read as a value or a group say nothing about what is measured
    left = [w for w in words if w not in used and not any(same(w, g) for g in grouping)]
    measure = _measure(left, table, grouping)
    if measure is not None and aggregate is not None and superlative is not None:
        # "average maximum temperature" names the column temp_max, it does not ask for the largest
        own = measure.name.lower().split("_")
        if any(same(superlative, token) for token in own) and _before(
            words, aggregate, superlative
        ):
            descending = None
    top = _top(lowered)
    if top is not None and descending is None:
        descending = True
    by_day = group is not None and group.kind == "date" and unit is None
    if aggregate is None and superlative is not None and (top is None or by_day):
        aggregate = "max" if superlative in _MOST else "min"
    counted = re.search(r"\b(?:how many|number of)\s+(?:\w+ful\s+)?([a-z]\w*)", lowered)
    return Request(
        aggregate=aggregate,
        measure=measure.name if measure is not None and aggregate != "count" else None,
        group=group.name if group is not None else _compared(conditions),
        unit=unit,
        asks_which=asks_which,
        descending=descending,
        limit=top,
        noun=counted[1] if counted else None,
        conditions=tuple(conditions),
    )


def _aggregate(text: str, words: Sequence[str]) -> tuple[Aggregate | None, bool | None, str | None]:
    superlative = next((w for w in words if w in _MOST or w in _LEAST), None)
    descending = None if superlative is None else superlative in _MOST
    if re.search(r"\bhow many\b|\bnumber of\b", text):
        return "count", descending, superlative
    for word in words:
        for name, synonyms in _AGGREGATES.items():
            if word in synonyms:
                return name, descending, superlative
    return None, descending, superlative


def _before(words: Sequence[str], aggregate: Aggregate, superlative: str) -> bool:
    synonyms = _AGGREGATES.get(aggregate, set())
    first = next((i for i, w in enumerate(words) if w in synonyms), len(words))
    return first < words.index(superlative)


def _group(text: str, table: Table) -> tuple[Column | None, int | None, bool]:
    for found in _GROUP.finditer(text):
        noun, asks = found[1], found[0].startswith(("which", "what"))
        column, unit = _as_group(noun, table)
        if column is not None:
            return column, unit, asks
    if named := re.search(rf"{_TOP}((?:\s+[a-z]\w*){{1,3}})", text):
        for noun in named[named.lastindex or 0].split():
            column, unit = _as_group(noun, table)
            if column is not None:
                return column, unit, False
    for word in words_of(text):
        if word in ("yearly", "annual", "monthly"):
            return (*_as_group(word, table), False)
    return None, None, False


def _as_group(noun: str, table: Table) -> tuple[Column | None, int | None]:
    if noun in _UNITS:
        by_number = next((c for c in table.columns if c.is_year), None)
        if by_number is not None and _UNITS[noun] == 4:
            return by_number, None
        return table.first("date"), _UNITS[noun]
    if noun in ("day", "days", "date", "dates"):
        return table.first("date"), None
    named = [c for c in table.columns if c.groups and match_name(c.name, [noun]) > 0]
    if named:
        return max(named, key=lambda c: match_name(c.name, [noun])), None
    if match_name(table.name, [noun]) > 0:  # "each stock" in a table of stocks
        return table.first("text"), None
    return None, None


def _measure(words: Sequence[str], table: Table, grouping: set[str]) -> Column | None:
    numbers = [c for c in table.columns if c.kind == "number" and c.name not in grouping]
    best = max(numbers, key=lambda c: match_name(c.name, words), default=None)
    if best is not None and match_name(best.name, words) > 0:
        return best
    return None


def _top(text: str) -> int | None:
    found = re.search(_TOP, text)
    number = number_of(found[1] or found[2]) if found else None
    return number if number is not None and 0 < number < 1000 else None


def _compared(conditions: Sequence[Condition]) -> str | None:
    """Return the column of which several values are named: they are to be compared."""
    return next(
        (
            c.about
            for c in conditions
            if " IN (" in c.sql and " NOT " not in c.sql and c.about != "year"
        ),
        None,
    )


def _conditions(text: str, words: Sequence[str], table: Table) -> tuple[list[Condition], set[str]]:
    conditions: list[Condition] = []
    used: set[str] = set()
    for column in table.columns:
        named = [v for v in column.values if names_value(v, words)]
        if named and len(named) < len(column.values):
            conditions.append(_by_value(column, named, text))
            used |= {w for w in words for v in named if names_value(v, [w])}
    conditions += _by_year(text, table)
    conditions += _by_month(text, table)
    conditions += _by_size(text, table)
    return conditions, used


def _by_value(column: Column, values: Sequence[str], text: str) -> Condition:
    first = re.escape(values[0].lower())
    negated = re.search(rf"\b(?:not|except|without|excluding|but)\s+(?:for\s+)?{first}", text)
    listed = ", ".join("'" + v.replace("'", "''") + "'" for v in values)
    name = '"' + column.name.replace('"', '""') + '"'
    if negated:
        sql, verb = f"{name} NOT IN ({listed})", "is not"
    elif len(values) == 1:
        sql, verb = f"{name} = {listed}", "is"
    else:
        sql, verb = f"{name} IN ({listed})", "is"
    return Condition(column.name, sql, f"{column.name} {verb} {' or '.join(values)}")


def _by_year(text: str, table: Table) -> list[Condition]:
    numeric = next((c for c in table.columns if c.is_year), None)
    column = numeric or table.first("date")
    if column is None:
        return []
    name = '"' + column.name.replace('"', '""') + '"'
    year = name if numeric else f"CAST(substr({name}, 1, 4) AS INTEGER)"
    lowest, highest = int(str(column.low)[:4]), int(str(column.high)[:4])
    years = [int(y) for y in re.findall(r"\b(1[5-9]\d\d|20\d\d)\b", text)]
    if not years or not any(lowest - 50 <= y <= highest + 50 for y in years):
        return []
    one = years[0]
    if re.search(rf"\b(?:from|between)\s+{one}\s+(?:to|and|until|through)\s+\d{{4}}", text):
        span = f"{min(years)} to {max(years)}"
        return [Condition("year", f"{year} BETWEEN {min(years)} AND {max(years)}", f"in {span}")]
    for word, sign in (("since", ">="), ("after", ">"), ("before", "<"), ("until", "<=")):
        if re.search(rf"\b{word}\s+{one}\b", text):
            return [Condition("year", f"{year} {sign} {one}", f"{word} {one}")]
    listed = sorted(set(years))
    if len(listed) == 1:
        return [Condition("year", f"{year} = {one}", f"in {one}")]
    said = " and ".join(map(str, listed))
    return [Condition("year", f"{year} IN ({', '.join(map(str, listed))})", f"in {said}")]


def _by_month(text: str, table: Table) -> list[Condition]:
    column = table.first("date")
    found = re.search(rf"\b(?:in|during|every|each|only)\s+({'|'.join(_MONTHS)})\b", text)
    if column is None or found is None:
        return []
    name = '"' + column.name.replace('"', '""') + '"'
    number = _MONTHS.index(found[1]) + 1
    sql = f"CAST(substr({name}, 6, 2) AS INTEGER) = {number}"
    return [Condition("month", sql, f"in {found[1].capitalize()}")]


def _by_size(text: str, table: Table) -> list[Condition]:
    found = []
    for pattern, sign, word in (
        (_ABOVE, ">", "above"),
        (_BELOW, "<", "below"),
        (r"(?:at least|>=)", ">=", "at least"),
        (r"(?:at most|<=)", "<=", "at most"),
    ):
        for match in re.finditer(rf"{pattern}\s*{_NUMBER}", text):
            before, after = words_of(text[: match.start()]), words_of(text[match.end() :])
            column = _measure(before[-4:], table, set()) or _measure(after[:3], table, set())
            if column is not None:
                name = '"' + column.name.replace('"', '""') + '"'
                said = f"{column.name} is {word} {match[1]}"
                found.append(Condition(f"{column.name} {sign}", f"{name} {sign} {match[1]}", said))
    return found
