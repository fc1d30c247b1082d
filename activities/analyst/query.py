"""A request becomes SQL, and its rows a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .question import Request, Style
from .schema import Table, quote

__all__ = ["answer", "check_sql", "completed", "sql_of"]

_LISTED = 12
_NAMES = {"avg": "average", "sum": "total", "max": "highest", "min": "lowest"}


def completed(request: Request, table: Table, style: Style) -> Request | None:
    """Return a request with its open parts decided; ``None`` when it asks nothing of the table."""
    numbers = [c for c in table.columns if c.kind == "number" and c.name != request.group]
    if request.measure is None and request.aggregate not in (None, "count") and len(numbers) == 1:
        request = replace(request, measure=numbers[0].name)
    if request.aggregate is None:
        if request.measure is None and request.group is None and not request.conditions:
            return None
        request = replace(request, aggregate="avg" if request.measure is not None else "count")
    if request.aggregate != "count" and request.measure is None:
        return None
    if request.descending is not None and request.limit is None and request.asks_which:
        request = replace(request, limit=1)
    if style.top is not None and request.group is not None and request.limit != 1:
        request = replace(request, limit=style.top, descending=request.descending is not False)
    return request


def sql_of(request: Request, table: Table) -> str:
    """Return the statement that answers a completed request."""
    value = _value_sql(request)
    source = f" FROM {quote(table.name)}{_where(request)}"
    if request.group is None:
        return f"SELECT {value} AS value, count(*) AS row_count{source}"
    group = _group_sql(request)
    lines = f"SELECT {group} AS {quote(_group_name(request))}, {value} AS value,"
    lines += f" count(*) AS row_count{source} GROUP BY 1"
    if request.descending is None:
        lines += " ORDER BY 1"
    else:
        lines += f" ORDER BY value {'DESC' if request.descending else 'ASC'}, 1"
    return lines + (f" LIMIT {request.limit}" if request.limit is not None else "")


def check_sql(request: Request, table: Table) -> str:
    """Return a statement that says what an answer rests on: rows, gaps, and their dates."""
    parts = ["count(*) AS row_count"]
    if request.measure is not None:
        parts.append(f"count(*) - count({quote(request.measure)}) AS empty")
    date = table.first("date")
    if date is not None:
        parts += [f"min({quote(date.name)}) AS first", f"max({quote(date.name)}) AS last"]
    return f"SELECT {', '.join(parts)} FROM {quote(table.name)}{_where(request)}"  # noqa: S608


def answer(
    request: Request,
    table: Table,
    result: Mapping[str, Any],
    check: Mapping[str, Any] | None,
    style: Style,
) -> str:
    """Return the answer in words, with its numbers."""
    rows: list[list[Any]] = result.get("rows", [])
    lead = _lead(request, table, rows, style)
    if style.one_sentence:
        return lead
    return f"{lead} {_basis(table, check)}".rstrip()


def _lead(request: Request, table: Table, rows: Sequence[Sequence[Any]], style: Style) -> str:
    where = _conditions(request)
    if request.group is None:
        value = rows[0][0] if rows else None
        if request.aggregate == "count":
            of = request.measure
            noun = f"distinct values of {of}" if of else request.noun or "rows"
            return f"There are {_number(value, 0)} {noun} in {table.name}{where}."
        if value is None:
            return f"There are no rows to answer this from in {table.name}{where}."
        return f"The {_what(request)}{where} is {_number(value, style.decimals)}."
    name = _group_name(request)
    if not rows:
        return f"There are no rows to answer this from in {table.name}{where}."
    shown = [f"{_plain(r[0])} {_number(r[1], style.decimals)}" for r in rows[:_LISTED]]
    if request.limit == 1:
        most = "lowest" if request.descending is False else "highest"
        what = _what(request).removeprefix(f"{most} ")
        first = f"{_plain(rows[0][0])}, with {_number(rows[0][1], style.decimals)}"
        return f"The {name} with the {most} {what}{where} is {first}."
    order = {None: "", True: ", highest first", False: ", lowest first"}[request.descending]
    rest = len(rows) - len(shown)
    more = f" and {rest} more" if rest > 0 else ""
    what = _what(request)
    return f"{what[0].upper()}{what[1:]} by {name}{where}{order}: {_listed(shown)}{more}."


def _conditions(request: Request) -> str:
    said = {c.about: c.words for c in request.conditions}
    others = [words for about, words in said.items() if about not in ("year", "month")]
    month, year = said.get("month"), said.get("year")
    if month and year:
        year = year.removeprefix("in ")
    text = "".join(f" {words}" for words in (month, year) if words)
    return text + (f" where {' and '.join(others)}" if others else "")


def _basis(table: Table, check: Mapping[str, Any] | None) -> str:
    rows = check.get("rows") if check else None
    if not check or not rows:
        return ""
    facts = dict(zip(check["columns"], rows[0], strict=False))
    text = f"This rests on {_number(facts.get('row_count'), 0)} rows of {table.name}"
    if facts.get("first") is not None:
        text += f" from {facts['first']} to {facts['last']}"
    if facts.get("empty"):
        text += f"; {_number(facts['empty'], 0)} of them have no value"
    return text + "."


def _what(request: Request) -> str:
    if request.measure is None:
        return f"number of {request.noun or 'rows'}"
    if request.aggregate == "count":
        return f"number of distinct values of {request.measure}"
    return f"{_NAMES[request.aggregate or 'avg']} {request.measure}"


def _value_sql(request: Request) -> str:
    if request.measure is None:
        return "count(*)"
    if request.aggregate == "count":
        return f"count(DISTINCT {quote(request.measure)})"
    return f"{request.aggregate}({quote(request.measure)})"


def _group_sql(request: Request) -> str:
    name = quote(request.group or "")
    return name if request.unit is None else f"substr({name}, 1, {request.unit})"


def _group_name(request: Request) -> str:
    return {4: "year", 7: "month"}.get(request.unit or 0, request.group or "")


def _where(request: Request) -> str:
    return "".join(f" {'AND' if n else 'WHERE'} {c.sql}" for n, c in enumerate(request.conditions))


def _number(value: Any, decimals: int) -> str:
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> str:
    return "(empty)" if value is None else str(value)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
