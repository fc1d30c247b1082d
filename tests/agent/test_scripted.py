"""The scripted analyst answers many questions rightly; the right answers are computed here."""

from __future__ import annotations

import csv
import random
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models import known_model_names

from ckpt_agent.activities.analyst import DEFAULT_QUESTION, INSTRUCTIONS, SCRIPTED, analyst
from ckpt_agent.activities.analyst.data import shipped_files
from ckpt_agent.activities.analyst.scripted import HELLO, MARK
from ckpt_agent.activities.conversation import from_stored, to_stored, user_message
from ckpt_agent.activities.model_call import ModelCatalogue, ask_model
from ckpt_agent.activities.tool_call import ToolBox

Stored = list[dict[str, Any]]


class Talk:
    """An agent loop without an engine: the same calls, one after another."""

    def __init__(self, *said: str, data: Path | None = None, **changed: Any) -> None:
        spec = analyst({})
        self.model = ModelCatalogue(spec.named_models()).get(SCRIPTED)
        self.box = ToolBox(spec.toolset(), self.model, {} if data is None else {"data": str(data)})
        self.instructions = changed.get("instructions", INSTRUCTIONS)
        self.settings = changed.get("settings", {})
        self.messages: Stored = [user_message(text) for text in said]
        self.turns: list[list[str]] = []

    async def turn(self) -> str | None:
        response = await ask_model(
            self.model,
            from_stored(self.messages),
            instructions=self.instructions,
            settings=self.settings,
            tools=await self.box.definitions(),
        )
        self.messages.append(to_stored(response))
        self.turns.append([call.tool_name for call in response.tool_calls])
        for call in response.tool_calls:
            message, _ = await self.box.call(call, last_attempt=True)
            self.messages.append(to_stored(message))
        return None if response.tool_calls else response.text

    async def answer(self) -> str:
        for _ in range(20):
            if (text := await self.turn()) is not None:
                return text
        raise AssertionError("no answer after 20 turns")


async def answer(*said: str, data: Path | None = None, **changed: Any) -> str:
    return await Talk(*said, data=data, **changed).answer()


def table(index: int) -> list[dict[str, Any]]:
    with shipped_files()[index].open(newline="") as file:
        return list(csv.DictReader(file))


WEATHER, STOCKS, POWER = table(0), table(1), table(2)
NOT_NUCLEAR = [row for row in POWER if row["source"] != "Nuclear Energy"]


def numbers(rows: Iterable[dict[str, Any]], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def by(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))


def in_year(year: int, rows: Sequence[dict[str, Any]] = WEATHER) -> list[dict[str, Any]]:
    return [row for row in rows if str(year) in row.get("date", row.get("year", ""))]


def listed(values: dict[str, float], places: int = 2) -> str:
    parts = [f"{k} {v:,.{places}f}" for k, v in values.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def averages(rows: Sequence[dict[str, Any]], column: str, key: str = "weather") -> dict[str, float]:
    return {k: fmean(numbers(g, column)) for k, g in by(rows, lambda r: str(r[key])).items()}


def ranked(values: dict[str, float], count: int, *, least: bool = False) -> dict[str, float]:
    order = sorted(values.items(), key=lambda kv: (kv[1] if least else -kv[1], kv[0]))
    return dict(order[:count])


SHIPPED = {
    DEFAULT_QUESTION: lambda: listed(averages(WEATHER, "wind")),
    "What is the total precipitation in 2014?": lambda: (
        f"is {sum(numbers(in_year(2014), 'precipitation')):,.2f}."
    ),
    "How many days were rainy in 2013?": lambda: (
        f"There are {sum(r['weather'] == 'rain' for r in in_year(2013))} days"
    ),
    "How many days had temp_max above 30?": lambda: (
        f"There are {sum(t > 30 for t in numbers(WEATHER, 'temp_max'))} days"
    ),
    "Which year had the highest total precipitation in Seattle?": lambda: (
        "is {}, with {:,.2f}".format(
            *max(
                (
                    (y, sum(numbers(g, "precipitation")))
                    for y, g in by(WEATHER, lambda r: r["date"][:4]).items()
                ),
                key=lambda pair: pair[1],
            )
        )
    ),
    "What is the average maximum temperature by month in 2015?": lambda: listed(
        {
            m.replace("/", "-"): fmean(numbers(g, "temp_max"))
            for m, g in by(in_year(2015), lambda r: r["date"][:7]).items()
        }
    ),
    "What was the lowest temp_min?": lambda: f"is {min(numbers(WEATHER, 'temp_min')):.2f}.",
    "What was the average wind in July 2012?": lambda: (
        f"is {fmean(numbers([r for r in WEATHER if r['date'].startswith('2012/07')], 'wind')):.2f}."
    ),
    "How many days of each weather were there?": lambda: listed(
        dict(sorted(Counter(r["weather"] for r in WEATHER).items())), 0
    ),
    "Which stock had the highest price?": lambda: (
        f"is {max(STOCKS, key=lambda r: float(r['price']))['symbol']}, with "
        f"{max(numbers(STOCKS, 'price')):,.2f}."
    ),
    "What was the average price of each stock since 2005?": lambda: listed(
        averages([r for r in STOCKS if int(r["date"][-4:]) >= 2005], "price", "symbol")
    ),
    "Compare the average price of MSFT and AAPL": lambda: listed(
        averages([r for r in STOCKS if r["symbol"] in ("MSFT", "AAPL")], "price", "symbol")
    ),
    "What are the top 2 stocks by average price?": lambda: listed(
        ranked(averages(STOCKS, "price", "symbol"), 2)
    ),
    "What are the 2 lowest stocks by average price?": lambda: listed(
        ranked(averages(STOCKS, "price", "symbol"), 2, least=True)
    ),
    "How many sunny days were there per year?": lambda: listed(
        {str(y): sum(r["weather"] == "sun" for r in in_year(y)) for y in range(2012, 2016)}, 0
    ),
    "When was the hottest day?": lambda: "is {}, with {:.2f}".format(
        *max(
            ((r["date"].replace("/", "-"), float(r["temp_max"])) for r in WEATHER),
            key=lambda pair: pair[1],
        )
    ),
    "Which weather is most common?": lambda: "is {}, with {}.".format(
        *Counter(r["weather"] for r in WEATHER).most_common(1)[0]
    ),
    "Maximum temperature per year, lowest first": lambda: listed(
        ranked(
            {str(y): max(numbers(in_year(y), "temp_max")) for y in range(2012, 2016)}, 4, least=True
        )
    ),
    "Which year was the windiest?": lambda: (
        f"is {max(WEATHER, key=lambda r: float(r['wind']))['date'][:4]}, with "
    ),
    "How many different symbols are there?": lambda: (
        f"There are {len({r['symbol'] for r in STOCKS})} distinct values of symbol"
    ),
    "How many rows are in stocks?": lambda: f"There are {len(STOCKS)} rows",
    "How much electricity did renewables generate in total between 2005 and 2010?": lambda: (
        "is {:,.0f}.".format(
            sum(
                numbers(
                    [
                        r
                        for r in POWER
                        if r["source"] == "Renewables" and 2005 <= int(r["year"][:4]) <= 2010
                    ],
                    "net_generation",
                )
            )
        )
    ),
    "What was the total net generation by source in Iowa?": lambda: listed(
        {k: sum(numbers(g, "net_generation")) for k, g in by(POWER, lambda r: r["source"]).items()},
        0,
    ),
    "What was the average net generation except nuclear energy?": lambda: (
        f"is {fmean(numbers(NOT_NUCLEAR, 'net_generation')):,.2f}."
    ),
}


@pytest.mark.parametrize("question", SHIPPED)
async def test_questions_about_the_shipped_data(question: str) -> None:
    text = await answer(question)
    assert SHIPPED[question]() in text
    assert MARK in text


async def test_it_looks_before_it_asks_and_checks_before_it_answers() -> None:
    talk = Talk("Which stock had the highest price?")
    text = await talk.answer()
    assert talk.turns == [
        ["list_tables"],
        ["describe", "run_sql"],
        ["run_sql"],
        ["run_sql"],
        ["run_sql"],
        [],
    ]
    assert HELLO in talk.messages[1]["parts"][0]["content"]
    assert "This rests on 560 rows of stocks from 2000-01-01 to 2010-03-01." in text


async def test_several_tables_are_described_side_by_side() -> None:
    talk = Talk("What is the average price, and how does it compare with precipitation?")
    await talk.answer()
    assert sorted(talk.turns[1]) == ["describe", "describe", "run_sql", "run_sql"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("only 2014", lambda: listed(averages(in_year(2014), "wind"))),
        ("Only look at 2012 and 2013, please.", lambda: listed(
            averages([*in_year(2012), *in_year(2013)], "wind"))),
        ("Show the top 3", lambda: listed(ranked(averages(WEATHER, "wind"), 3))),
        ("show only the top three", lambda: listed(ranked(averages(WEATHER, "wind"), 3))),
        ("Use temp_max instead of wind", lambda: listed(averages(WEATHER, "temp_max"))),
        ("What about the precipitation?", lambda: listed(averages(WEATHER, "precipitation"))),
        ("without decimals", lambda: listed(averages(WEATHER, "wind"), 0)),
        ("per year instead of by weather", lambda: listed(
            {str(y): fmean(numbers(in_year(y), "wind")) for y in range(2012, 2016)})),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after_turns", [0, 1, 3, 5, 6])
async def test_an_extra_message_changes_the_answer_wherever_it_comes(
    said: str, expected: Callable[[], str], after_turns: int
) -> None:
    talk = Talk(DEFAULT_QUESTION)
    for _ in range(after_turns):
        await talk.turn()
    talk.messages.append({"role": "user", "content": said})
    assert expected() in await talk.answer()


async def test_a_message_between_a_call_and_its_answer_is_heard() -> None:
    talk = Talk(DEFAULT_QUESTION)
    for _ in range(4):
        await talk.turn()
    talk.messages.insert(-1, {"role": "user", "content": "only 2014"})
    assert listed(averages(in_year(2014), "wind")) in await talk.answer()


async def test_an_extra_message_before_the_question_counts_too() -> None:
    text = await answer("only 2014", DEFAULT_QUESTION)
    assert listed(averages(in_year(2014), "wind")) in text


async def test_a_second_question_is_a_new_one() -> None:
    talk = Talk(DEFAULT_QUESTION, "only 2014")
    await talk.answer()
    talk.messages.append(user_message("Which stock had the highest price?"))
    assert "is GOOG, with 707.00." in await talk.answer()


async def test_instructions_and_settings_change_the_answer() -> None:
    plain = await answer(DEFAULT_QUESTION)
    brief = await answer(DEFAULT_QUESTION, instructions="Answer in one sentence.")
    assert "This rests on" in plain
    assert brief == plain.replace(plain[plain.index("This rests on") : plain.index(MARK)], "")
    assert await answer(DEFAULT_QUESTION, settings={"style": "one sentence"}) == brief
    top = await answer(DEFAULT_QUESTION, settings={"top": 2, "decimals": 1})
    assert listed(ranked(averages(WEATHER, "wind"), 2), 1) in top
    year = await answer(DEFAULT_QUESTION, instructions=f"{INSTRUCTIONS} Only consider 2014.")
    assert listed(averages(in_year(2014), "wind")) in year


async def test_a_question_it_does_not_understand_is_said_to_be_one() -> None:
    text = await answer("What is the meaning of life?")
    assert "could not relate" in text
    assert "stocks (symbol, date, price)" in text
    assert "no rows" in await answer("What was the average wind in 1999?")
    assert "cannot work out: median" in await answer("What was the median wind?")
    assert "could not relate" in await answer("What's the average?")  # of which table?
    text = await answer("What was the highest price of Apple and of Google?")
    assert "where symbol is GOOG is 707.00." in text
    assert "I found no Apple in the data." in text


async def test_it_takes_its_time_when_asked_to() -> None:
    talk = Talk(DEFAULT_QUESTION, settings={"delay_seconds": 0.2})
    start = time.monotonic()
    await talk.turn()
    assert time.monotonic() - start >= 0.2


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A user's own file, of another shape than the shipped ones."""
    rng = random.Random(5)
    rows = [
        {
            "order_id": 1000 + n,
            "customer": rng.choice(["Ann Lee", "Bo Diaz", "Cy O'Neil"]),
            "productCategory": rng.choice(["garden", "kitchen", "office"]),
            "quantity": rng.randint(1, 9),
            "unit_price": round(rng.uniform(1, 400), 2),
            "ordered_on": f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{2022 + n % 2}",
        }
        for n in range(300)
    ]
    path = tmp_path_factory.mktemp("own") / "orders.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return path, rows


Rows = list[dict[str, Any]]
OWN: dict[str, Callable[[Rows], str]] = {
    "What is the average unit price by product category?": lambda rows: listed(
        averages(rows, "unit_price", "productCategory")
    ),
    "How many orders did Cy O'Neil place?": lambda rows: (
        f"There are {sum(r['customer'].startswith('Cy') for r in rows)} orders"
    ),
    "Which customer has the highest total quantity?": lambda rows: (
        f"is {best_customer(rows)[0]}, with {best_customer(rows)[1]:,}."
    ),
    "Total quantity of garden orders in 2023": lambda rows: "is {:,}.".format(
        sum(r["quantity"] for r in in_orders(rows, 2023) if r["productCategory"] == "garden")
    ),
    "How many orders per year?": lambda rows: listed(
        dict(sorted(Counter(r["ordered_on"][-4:] for r in rows).items())), 0
    ),
    "How many orders had a unit price of at least 200 and a quantity below 3?": lambda rows: (
        f"There are {sum(r['unit_price'] >= 200 and r['quantity'] < 3 for r in rows)} orders"
    ),
}  # fmt: skip


def best_customer(rows: Rows) -> tuple[str, int]:
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row["customer"]] += row["quantity"]
    return totals.most_common(1)[0]


def in_orders(rows: Rows, year: int) -> Rows:
    return [r for r in rows if r["ordered_on"].endswith(str(year))]


@pytest.mark.parametrize("kind", ["csv", "sqlite"])
@pytest.mark.parametrize("question", OWN)
async def test_questions_about_a_users_own_file(
    question: str, kind: str, orders: tuple[Path, Rows], tmp_path: Path
) -> None:
    path, rows = orders
    if kind == "sqlite":
        path = as_sqlite(rows, tmp_path / "shop.db")
    assert OWN[question](rows) in await answer(question, data=path)


def as_sqlite(rows: Rows, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE orders (order_id, customer, productCategory, quantity,"
                   " unit_price, ordered_on)")  # fmt: skip
        for row in rows:
            day, month, year = row["ordered_on"].split(".")
            db.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
                [*list(row.values())[:-1], f"{year}-{month}-{day}"],
            )
        db.commit()
    return path


async def test_data_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = await answer(DEFAULT_QUESTION, data=tmp_path / "missing.csv")
    assert "I cannot look at the data" in text
    assert "missing.csv" in text


async def test_an_empty_database_is_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as db:
        db.execute("PRAGMA user_version = 1")  # writes the file's header
    text = await answer(DEFAULT_QUESTION, data=tmp_path / "empty.db")
    assert "There is: no table" in text


async def test_odd_names_and_values_do_no_harm(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "odd.db")) as db:
        db.execute('CREATE TABLE "it\'s ""odd""" ("the ""sum""" REAL, kind, day DATE, none DATE)')
        for row in [(1.5, "o'ne", "2024-01-01"), (2.5, 't"wo', "Jan 5"), (None, None, None)]:
            db.execute('INSERT INTO "it\'s ""odd""" VALUES (?, ?, ?, NULL)', row)
        db.commit()
    text = await answer("What is the average sum by kind in 2024?", data=tmp_path / "odd.db")
    assert "(empty) None, o'ne 1.50 and t\"wo 2.50" in text


_VOCABULARY = [
    *("what", "which", "how many", "average", "total", "highest", "lowest", "top", "bottom", "3"),
    *("by", "per", "each", "of", "the", "in", "only", "not", "except", "since", "before", "and"),
    *("between", "2014", "2012", "30", "above", "below", "at least", "year", "month", "days"),
    *("july", "wind", "temp_max", "temperature", "precipitation", "weather", "rain", "sunny"),
    *("stock", "price", "MSFT", "source", "generation", "rows", "instead of", "?", "'", '"', "%"),
]


@given(st.lists(st.sampled_from(_VOCABULARY), max_size=14))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_is_asked_there_is_an_answer(words: list[str]) -> None:
    text = await answer(" ".join(words))
    assert text.endswith(MARK)
    assert "failed" not in text


async def test_a_failed_query_is_told() -> None:
    talk = Talk(DEFAULT_QUESTION)
    for _ in range(4):
        await talk.turn()
    part = from_stored(talk.messages)[-1].parts[0]
    assert isinstance(part, ToolReturnPart)
    talk.messages[-1]["parts"][0] |= {"outcome": "retried", "content": "disk I/O error"}
    text = await talk.answer()
    assert "My query failed. disk I/O error" in text


@pytest.mark.parametrize(
    ("environ", "model"),
    [
        ({}, SCRIPTED),
        ({"OPENAI_API_KEY": "k"}, "openai:gpt-5.6-sol"),
        ({"ANTHROPIC_API_KEY": "k"}, "anthropic:claude-sonnet-5-5"),
        ({"OPENAI_API_KEY": "k", "CKPT_MODEL": "ollama:qwen3"}, "ollama:qwen3"),
        ({"OPENAI_API_KEY": "k", "CKPT_MODEL": SCRIPTED}, SCRIPTED),
    ],
)
def test_a_key_decides_who_answers(environ: dict[str, str], model: str) -> None:
    spec = analyst(environ)
    assert spec.model_name == model
    assert SCRIPTED in spec.named_models()


def test_the_models_that_a_key_chooses_are_current() -> None:
    by_key = [analyst({key: "k"}).model_name for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")]
    assert set(by_key) <= set(known_model_names())
