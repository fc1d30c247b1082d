"""A question in plain words becomes a request on one table: what, of what, by what, which rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .conditions import Condition, conditions_of
from .schema import Column, Table
from .wording import NUMBERS, match_name, number_of, plain, same, words_of

__all__ = ["Aggregate", "Request", "Style", "read", "split", "style_of"]

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
_UNITS = {"year": 4, "years": 4, "yearly": 4, "annual": 4, "month": 7, "months": 7, "monthly": 7}
_GROUP = re.compile(
    r"\b(?:by|per|each|every|across|which|what)\s+(?:(?:the|a)\s+)?"
    r"(?:(?:kinds?|types?|sorts?)\s+of\s+)?([a-z][\w]*)"
)
_COUNT = rf"(\d+|{'|'.join(NUMBERS)})"
_TOP = (
    rf"\b(?:(?:top|first|best|bottom|worst|last)\s+{_COUNT}|{_COUNT}\s+"
    rf"(?:{'|'.join(sorted(_MOST | _LEAST))}))\b"
)
_QUESTION = re.compile(r"^\s*(what|which|how|who|when|where|list|compare|is|are|give|count)\b")
_FOLLOW_UP = re.compile(r"^\s*(?:what|how) about\b")


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
    lowered = plain(text.lower().split(" instead of ")[0])
    lowered, descending = _order(lowered)
    words = words_of(lowered)
    group, unit, asks_which = _group(lowered, table)
    conditions, used = conditions_of(lowered, words, table)
    aggregate, superlative = _aggregate(lowered, words)
    grouping = {group.name} if group is not None else set()
    # words that were read as a value or a group say nothing about what is measured
    left = [w for w in words if w not in used and not any(same(w, g) for g in grouping)]
    measure = table.measure(left, without=grouping)
    if measure is not None and _part_of_name(superlative, aggregate, measure, words):
        superlative = None
    top = _top(lowered)
    by_day = group is not None and group.kind == "date" and unit is None
    extreme = aggregate is None and superlative is not None and (top is None or by_day)
    if descending is None and (top is not None or not extreme or asks_which):
        descending = superlative in _MOST if superlative is not None else True if top else None
    if extreme:
        aggregate = "max" if superlative in _MOST else "min"
    if aggregate is None and re.search(r"\bhow much\b", lowered):
        aggregate = "sum"
    counted = re.search(r"\b(?:how many|number of)\s+((?:[a-z]\w*\s+){0,2}[a-z]\w*)", lowered)
    distinct = _distinct(lowered, table)
    if distinct is not None:
        measure = distinct
    elif aggregate == "count":
        measure = None
    return Request(
        aggregate=aggregate,
        measure=measure.name if measure is not None else None,
        group=group.name if group is not None else _compared(conditions),
        unit=unit,
        asks_which=asks_which,
        descending=descending,
        limit=top,
        noun=_noun(counted[1], used) if counted else None,
        conditions=tuple(conditions),
    )


def _order(text: str) -> tuple[str, bool | None]:
    """Return the text without a wish for an order such as "lowest first", and that wish."""
    found = re.search(r"\b(?:(highest|largest|most)|(?:lowest|smallest|least)) first\b", text)
    if found is None:
        return text, None
    return text.replace(found[0], ""), found[1] is not None


def _part_of_name(
    superlative: str | None, aggregate: Aggregate | None, measure: Column, words: Sequence[str]
) -> bool:
    """Tell whether "maximum" is said of a column: the average maximum temperature."""
    if superlative is None or aggregate is None:
        return False
    named = any(same(superlative, token) for token in measure.name.lower().split("_"))
    return named and _before(words, aggregate, superlative)


def _distinct(text: str, table: Table) -> Column | None:
    found = re.search(r"\bhow many (?:distinct|different|unique)\s+([a-z]\w*)", text)
    if found is None:
        return None
    named = [c for c in table.columns if match_name(c.name, [found[1]]) > 0]
    return max(named, key=lambda c: match_name(c.name, [found[1]]), default=table.first("text"))


def _noun(counted: str, used: set[str]) -> str | None:
    """Return what is counted: the first word after "how many" that is not a value."""
    left = [w for w in counted.split() if w not in used]
    return left[0] if left else None


def _aggregate(text: str, words: Sequence[str]) -> tuple[Aggregate | None, str | None]:
    superlative = next((w for w in words if w in _MOST or w in _LEAST), None)
    if re.search(r"\bhow many\b|\bnumber of\b", text):
        return "count", superlative
    for word in words:
        for name, synonyms in _AGGREGATES.items():
            if word in synonyms:
                return name, superlative
    return None, superlative


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
    if re.match(r"\s*when (?:was|were|is|did)\b", text):
        return table.first("date"), None, True
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
