"""Which rows a question is about: values, years, months, sizes."""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .schema import Column, Table, quote
from .wording import names_value, words_of

__all__ = ["MONTHS", "Condition", "conditions_of"]

MONTHS = [month.lower() for month in calendar.month_name[1:]]
_ABOVE = r"(?:above|over|more than|greater than|higher than|exceeding|exceeds|>)"
_BELOW = r"(?:below|under|less than|lower than|fewer than|<)"
_NUMBER = r"(-?\d+(?:\.\d+)?)"


@dataclass(frozen=True, slots=True)
class Condition:
    """Which rows: SQL, the same in words, and what it is about (a later one replaces it)."""

    about: str
    sql: str
    words: str


def conditions_of(
    text: str, words: Sequence[str], table: Table
) -> tuple[list[Condition], set[str]]:
    """Return the conditions in a text, and the words that name values in them."""
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
    name = quote(column.name)
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
    name = quote(column.name)
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
    found = re.search(rf"\b(?:in|during|every|each|only)\s+({'|'.join(MONTHS)})\b", text)
    if column is None or found is None:
        return []
    name = quote(column.name)
    number = MONTHS.index(found[1]) + 1
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
            column = table.measure(before[-4:]) or table.measure(after[:3])
            if column is not None:
                name = quote(column.name)
                said = f"{column.name} is {word} {match[1]}"
                found.append(Condition(f"{column.name} {sign}", f"{name} {sign} {match[1]}", said))
    return found
