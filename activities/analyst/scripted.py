"""A stand-in for a model, without a key: it chooses its tools from what it is asked and sees.

It understands a narrow kind of question (averages, totals, counts and extremes of one table, by
group, with conditions) and nothing else, and says in its answers that it is scripted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from ..conversation import said_by_people
from .conditions import MONTHS
from .query import answer, check_sql, completed, sql_of
from .question import Request, Style, read, split, style_of
from .schema import Column, Table, best_table, quote
from .wording import same, words_of

__all__ = ["SCRIPTED", "scripted_model"]

SCRIPTED = "scripted"
"""Name of the scripted model, for runs and branches."""

HELLO = "No model is set up, so a script stands in for one; it only understands simple questions."
MARK = "(Answered by a script, not by a model.)"
_BEYOND = {
    *("share", "shares", "percent", "percentage", "ratio", "median", "correlation", "correlate"),
    *("trend", "growing", "growth", "forecast", "predict", "why"),
}
_MOST_TABLES = 5
_MOST_LOOKS = 6
_MOST_VALUES = 100


def scripted_model() -> FunctionModel:
    """Return the model; ``settings["delay_seconds"]`` makes it take its time."""
    return FunctionModel(_respond, model_name=SCRIPTED)


async def _respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    settings: Mapping[str, Any] = info.model_settings or {}
    delay = settings.get("delay_seconds", 0)
    if isinstance(delay, int | float) and delay > 0:
        await asyncio.sleep(delay)
    seen = _Seen.of(messages)
    said = list(said_by_people(messages))
    question, later = split(said)
    style = style_of([info.instructions or "", *([question] if question else []), *later], settings)
    return ModelResponse(parts=_next(seen, question, later, info.instructions or "", style))


@dataclass
class _Seen:
    """What the tools have answered so far in a conversation."""

    tables: list[Table] | None = None
    described: dict[str, Table] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, messages: Sequence[ModelMessage]) -> _Seen:
        seen, calls = cls(), {}
        for message in messages:
            for part in message.parts:
                if isinstance(part, ToolCallPart):
                    calls[part.tool_call_id] = part
                elif isinstance(part, ToolReturnPart) and part.tool_call_id in calls:
                    seen._take(calls[part.tool_call_id], part)
        return seen

    def _take(self, call: ToolCallPart, part: ToolReturnPart) -> None:
        args, content = call.args_as_dict(), part.content
        key = str(args.get("sql") or args.get("table") or call.tool_name)
        if part.outcome != "success":
            if part.outcome != "interrupted":  # that one only has to be called again
                self.failed[key] = str(content)
        elif call.tool_name == "list_tables" and isinstance(content, list):
            self.tables = [
                Table(t["table"], t["rows"], tuple(Column(c) for c in t["columns"]))
                for t in content
            ]
        elif call.tool_name == "describe" and isinstance(content, Mapping):
            columns = tuple(
                Column(c["column"], c["type"], c["distinct"], c["min"], c["max"])
                for c in content["columns"]
            )
            listed = next((t for t in self.tables or () if t.name == content["table"]), None)
            self.described[key] = Table(key, listed.rows if listed else 0, columns)
        elif isinstance(content, Mapping):
            self.results[key] = content

    def known(self, sql: str) -> bool:
        return sql in self.results or sql in self.failed


def _next(
    seen: _Seen, question: str, later: Sequence[str], instructions: str, style: Style
) -> list[ModelResponsePart]:
    """Return the next turn: tools while something has to be looked up, then the answer."""
    words = words_of(" ".join([question, *later]))
    if "list_tables" in seen.failed:
        return _says(f"I cannot look at the data: {seen.failed['list_tables']}")
    if seen.tables is None:
        return _calls(f"{HELLO} First I look which tables there are.", [("list_tables", {})])
    chosen = _candidates(seen.tables, words)
    if unseen := [t for t in chosen if t.name not in seen.described and t.name not in seen.failed]:
        names = " and ".join(t.name for t in unseen)
        calls = [("describe", {"table": t.name}) for t in unseen]
        calls += [("run_sql", {"sql": _sample_sql(t)}) for t in unseen]
        return _calls(f"The question may be about {names}: I look at them.", calls)
    tables = [seen.described[t.name] for t in chosen if t.name in seen.described]
    looks = [sql for t in tables for _, sql in _value_looks(t)][:_MOST_LOOKS]
    if unknown := [sql for sql in looks if not seen.known(sql)]:
        return _calls(
            "Next I look which values occur, to find those that are asked about.",
            [("run_sql", {"sql": sql, "max_rows": _MOST_VALUES}) for sql in unknown],
        )
    known = [_with_values(t, seen) for t in tables]
    table = best_table(known, words)
    if table is None or not (len(known) == 1 or table.score(words)) or _BEYOND.intersection(words):
        return _says(_lost(seen.tables, _BEYOND.intersection(words)))
    request = _request(table, question, later, instructions, style)
    if request is None:
        return _says(_lost(seen.tables))
    remark = _not_found(" ".join([question, *later]), known)
    return _answered(seen, request, table, style, remark)


def _answered(
    seen: _Seen, request: Request, table: Table, style: Style, remark: str
) -> list[ModelResponsePart]:
    sql, check = sql_of(request, table), check_sql(request, table)
    if not seen.known(sql):
        return _calls(f"I can ask {table.name} for this.", [("run_sql", {"sql": sql})])
    if sql in seen.failed:
        return _says(f"My query failed. {seen.failed[sql]} It was: {sql}")
    if not seen.known(check):
        return _calls("Before I answer I check what it rests on.", [("run_sql", {"sql": check})])
    text = answer(request, table, seen.results[sql], seen.results.get(check), style)
    return _says(f"{text}{remark}")


def _not_found(text: str, tables: Sequence[Table]) -> str:
    """Return a remark on names in the question that the data does not have."""
    there = " ".join(
        word
        for table in tables
        for word in (table.name, *(v for c in table.columns for v in (c.name, *c.values)))
    )
    known = [*words_of(there.replace("_", " ")), *MONTHS]
    names: list[str] = re.findall(r"(?<=[a-z,] )[A-Z]\w{2,}", text)
    missing = [n for n in names if not any(same(n.lower(), word) for word in known)]
    return f" I found no {' or '.join(dict.fromkeys(missing))} in the data." if missing else ""


def _request(
    table: Table, question: str, later: Sequence[str], instructions: str, style: Style
) -> Request | None:
    request = read(question, table)
    only = Request(conditions=read(instructions, table).conditions)
    for refinement in [only, *(read(text, table) for text in later)]:
        request = request.refined(refinement)
    return completed(request, table, style)


def _candidates(tables: Sequence[Table], words: Sequence[str]) -> list[Table]:
    ranked = sorted(tables, key=lambda t: -t.score(words))
    named = [t for t in ranked if t.score(words) > 0]
    return (named or ranked)[:_MOST_TABLES]


def _value_looks(table: Table) -> list[tuple[str, str]]:
    return [
        (
            c.name,
            f"SELECT DISTINCT {quote(c.name)} FROM {quote(table.name)}"  # noqa: S608
            f" WHERE {quote(c.name)} IS NOT NULL ORDER BY 1",
        )
        for c in table.columns
        if c.kind == "text" and 0 < c.distinct <= _MOST_VALUES
    ]


def _with_values(table: Table, seen: _Seen) -> Table:
    values = {
        name: tuple(str(row[0]) for row in seen.results[sql].get("rows", []))
        for name, sql in _value_looks(table)
        if sql in seen.results
    }
    columns = tuple(replace(c, values=values.get(c.name, ())) for c in table.columns)
    return replace(table, columns=columns)


def _sample_sql(table: Table) -> str:
    return f"SELECT * FROM {quote(table.name)} LIMIT 3"  # noqa: S608


def _lost(tables: Sequence[Table], beyond: Iterable[str] = ()) -> str:
    if beyond:
        return f"I cannot work out: {', '.join(sorted(beyond))}. A model can; set one up."
    there = "; ".join(f"{t.name} ({', '.join(c.name for c in t.columns)})" for t in tables)
    return (
        "I could not relate the question to the data. Ask for an average, total, count, highest "
        f"or lowest of a column, for example by another one. There is: {there or 'no table'}."
    )


def _calls(text: str, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[ModelResponsePart]:
    return [TextPart(text), *(ToolCallPart(name, args) for name, args in calls)]


def _says(text: str) -> list[ModelResponsePart]:
    return [TextPart(f"{text} {MARK}")]
