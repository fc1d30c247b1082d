"""The specification of an experiment with the shipped analyst, on standard output.

The right answers are worked out here, from the CSV files themselves with plain Python; the analyst
has no part in them. See docs/experiments.md.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.resources import files
from statistics import fmean
from typing import Any

Rows = list[dict[str, str]]


def table(name: str) -> Rows:
    """Return the rows of one of the data files that the analyst has."""
    path = files("vega_datasets").joinpath("_data", f"{name}.csv")
    with path.open("r", encoding="utf-8") as file:
        return list(csv.DictReader(file))


WEATHER, STOCKS, POWER = table("seattle-weather"), table("stocks"), table("iowa-electricity")


def of(rows: Rows, column: str) -> list[float]:
    """Return a column as numbers."""
    return [float(row[column]) for row in rows]


def where(rows: Rows, test: Callable[[dict[str, str]], bool]) -> Rows:
    """Return the rows that pass a test."""
    return [row for row in rows if test(row)]


def in_(year: int, month: int | None = None) -> Callable[[dict[str, str]], bool]:
    """Return a test for a date of the weather's."""
    start = f"{year}-" if month is None else f"{year}-{month:02}-"
    return lambda row: row["date"].replace("/", "-").startswith(start)


def each(
    rows: Rows, key: str, column: str, how: Callable[[list[float]], float]
) -> dict[str, float]:
    """Return one number for each value of a key."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(float(row[column]))
    return {name: how(values) for name, values in sorted(groups.items())}


def number(value: float) -> str:
    """Return a pattern for a number as the analyst would write it, with two decimals."""
    text = f"{value:,.2f}".removesuffix(".00").replace(".", r"\.")
    return rf"(?<![\d.,]){text}(?!\d)"


def whole(value: int) -> str:
    """Return a pattern for a count."""
    return rf"(?<![\d.,]){value:,}(?![\d.]*\d)"


def all_of(patterns: Iterable[str]) -> str:
    """Return a pattern that asks for every one of several."""
    return "".join(f"(?=[\\s\\S]*{pattern})" for pattern in patterns)


def questions() -> list[dict[str, Any]]:
    """Return the questions with their right answers."""
    kinds = each(WEATHER, "weather", "wind", fmean)
    prices = each(STOCKS, "symbol", "price", max)
    sources = each(POWER, "source", "net_generation", sum)
    days = Counter(row["weather"] for row in WEATHER)
    rain = each([{**row, "year": row["date"][:4]} for row in WEATHER], "year", "precipitation", sum)
    asked = {
        "wind-by-weather": (
            "What is the average wind in Seattle by kind of weather?",
            all_of(f"{name} {number(value)}" for name, value in kinds.items()),
        ),
        "rain-2014": (
            "What is the total precipitation in 2014?",
            number(sum(of(where(WEATHER, in_(2014)), "precipitation"))),
        ),
        "rainy-2013": (
            "How many days were rainy in 2013?",
            whole(len(where(where(WEATHER, in_(2013)), lambda row: row["weather"] == "rain"))),
        ),
        "hot-days": (
            "How many days had temp_max above 30?",
            whole(sum(value > 30 for value in of(WEATHER, "temp_max"))),
        ),
        "wettest-year": (
            "Which year had the highest total precipitation in Seattle?",
            all_of([max(rain, key=lambda year: rain[year]), number(max(rain.values()))]),
        ),
        "coldest": ("What was the lowest temp_min?", rf"-{-min(of(WEATHER, 'temp_min')):.2f}"),
        "wind-july-2012": (
            "What was the average wind in July 2012?",
            number(fmean(of(where(WEATHER, in_(2012, 7)), "wind"))),
        ),
        "days-by-kind": (
            "How many days of each weather were there?",
            all_of(rf"{name} {count:,}(?:\.00)?(?!\d)" for name, count in days.items()),
        ),
        "peak-prices": (
            "What is the highest price of each stock symbol?",
            all_of(f"{name} {number(value)}" for name, value in prices.items()),
        ),
        "warmest-2015": (
            "What was the average temp_max in 2015?",
            number(fmean(of(where(WEATHER, in_(2015)), "temp_max"))),
        ),
        "power-by-source": (
            "What is the total net generation in Iowa by source?",
            all_of(f"{name} {number(value)}" for name, value in sources.items()),
        ),
        "wind-snow": (
            "What is the average wind on snowy days?",
            number(fmean(of(where(WEATHER, lambda row: row["weather"] == "snow"), "wind"))),
        ),
    }
    return [
        {"name": name, "say": say, "expected": expected} for name, (say, expected) in asked.items()
    ]


def specification(session: str) -> dict[str, Any]:
    """Return the experiment: four ways to go on from the end of a session, twelve questions."""
    return {
        "name": "analyst",
        "from": {"session": session, "back": 0},
        "baseline": "as-it-is",
        "variants": [
            {"name": "as-it-is"},
            {"name": "two-decimals", "settings": {"decimals": 2}},
            {"name": "top-only", "settings": {"decimals": 2, "top": 1}},
            {"name": "no-queries", "tools": ["list_tables", "describe"]},
        ],
        "questions": questions(),
        "scorer": {"kind": "regex"},
        "concurrency": 4,
        "budget": {"total": {"steps": 1000, "tokens": 5_000_000}, "per_trial": {"steps": 30}},
    }


if __name__ == "__main__":
    json.dump(specification(*sys.argv[1:2] or ["tables"]), sys.stdout, indent=1)
