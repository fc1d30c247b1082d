"""The experiment in the docs: its right answers come from the data, not from the analyst."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from ckpt_engine.experiments import ExperimentSpec
from examples.analyst_experiment import POWER, STOCKS, WEATHER, questions, specification

from .conftest import App
from .test_workflow import TABLES


def test_the_right_answers_are_those_of_a_database_too() -> None:
    """A second way to the same numbers: SQL over the same files."""
    with closing(sqlite3.connect(":memory:")) as database:
        for name, rows in (("weather", WEATHER), ("stocks", STOCKS), ("power", POWER)):
            columns = list(rows[0])
            database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            database.executemany(
                f"INSERT INTO {name} VALUES ({marks})", [list(r.values()) for r in rows]
            )
        numbers = {
            "rain-2014": "SELECT sum(precipitation) FROM weather WHERE date LIKE '2014%'",
            "wind-july-2012": "SELECT avg(wind) FROM weather WHERE substr(date, 1, 7) IN "
            "('2012/07', '2012-07')",
            "warmest-2015": "SELECT avg(temp_max) FROM weather WHERE date LIKE '2015%'",
            "wind-snow": "SELECT avg(wind) FROM weather WHERE weather = 'snow'",
            "peak-prices": "SELECT max(price + 0) FROM stocks WHERE symbol = 'GOOG'",
            "power-by-source": "SELECT sum(net_generation) FROM power WHERE source LIKE 'Fossil%'",
        }
        expected = {q["name"]: q["expected"] for q in questions()}
        for name, sql in numbers.items():
            (value,) = database.execute(sql).fetchone()
            text = f"{value:,.2f}".removesuffix(".00").replace(".", r"\.")
            assert text in expected[name], name


async def test_the_variant_with_decimals_is_right(shipped: App) -> None:
    await shipped.session(TABLES, settings={"decimals": 0})
    (root,) = await shipped.engine.list_sessions()
    spec = specification(root.id)
    assert len(spec["questions"]) >= 10
    assert len(ExperimentSpec.model_validate(spec).variants) >= 3
    spec["questions"], spec["variants"] = spec["questions"][:4], spec["variants"][:2]
    report = await shipped.run(spec)
    assert {row.name: row.mean for row in report.variants}["two-decimals"] == 1
    assert {t.same_seed for t in report.trials} == {True}
