"""A data job without any AI: extract, validate, transform, load, report, on real files.

Beside a running ``ckpt server``::

    python -m examples data_job

Each stage leaves its file and tells the next one through the checkpoint's state where it is. The
workflow is a loop over nodes, so a rewind or a branch goes on at the stage that comes next and
runs nothing before it again; what it sets in the state decides how:

- ``missing``: rows that lack a value are ``"drop"``-ped (the default) or ``"fill"``-ed with the
  column's mean;
- ``by``: the column that the report groups by (``Origin``).
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from ckpt_engine.temporal import Rewindable, Step, current_step

NUMBERS = ("Miles_per_Gallon", "Horsepower", "Weight_in_lbs")
Row = dict[str, Any]


@dataclass
class Job:
    """What to work on: a JSON file with a list of records, and a folder for what comes of it."""

    source: str
    folder: str


@activity.defn
def extract(job: Job) -> str:
    """Take the records out of the source."""
    step = current_step.from_thread()
    rows = json.loads(Path(job.source).read_text())
    return _done(step, job, rows, then="validate", say=f"{len(rows)} rows")


@activity.defn
def validate(job: Job) -> str:
    """Drop the rows that lack a number, or fill the gaps with the column's mean."""
    step = current_step.from_thread()
    rows = _read(step)
    missing = step.state.get("missing", "drop")
    if missing not in ("drop", "fill"):
        raise ApplicationError(f"missing: 'drop' or 'fill', not {missing!r}", non_retryable=True)
    whole = [row for row in rows if all(row[name] != "" for name in NUMBERS)]
    lacking = len(rows) - len(whole)
    if missing == "fill":
        means = {n: fmean(float(row[n]) for row in rows if row[n] != "") for n in NUMBERS}
        whole = [{**row, **{n: row[n] or means[n] for n in NUMBERS}} for row in rows]
    say = f"{lacking} rows lacked a value ({missing})"
    return _done(step, job, whole, then="transform", say=say)


@activity.defn
def transform(job: Job) -> str:
    """Turn American units into metric ones."""
    step = current_step.from_thread()
    rows = [
        {
            "Name": row["Name"],
            "Origin": row["Origin"],
            "Year": row["Year"][:4],
            "Cylinders": row["Cylinders"],
            "litres_per_100km": round(235.215 / float(row["Miles_per_Gallon"]), 2),
            "kg": round(float(row["Weight_in_lbs"]) * 0.45359237),
        }
        for row in _read(step)
    ]
    return _done(step, job, rows, then="load", say=f"{len(rows)} rows in metric units")


@activity.defn
def load(job: Job) -> str:
    """Put the rows into a database of their own; a line that goes on from here shares it."""
    step = current_step.from_thread()
    rows = _read(step)
    path = Path(job.folder) / f"cars-{step.checkpoint_id[:8]}.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE IF EXISTS cars")  # an attempt before this one may have begun
        database.execute("CREATE TABLE cars (Name, Origin, Year, Cylinders, litres REAL, kg REAL)")
        database.executemany(
            "INSERT INTO cars VALUES (?, ?, ?, ?, ?, ?)", (tuple(row.values()) for row in rows)
        )
    step.state["database"] = str(path)
    return _said(step, then="report", say=f"{len(rows)} rows loaded")


@activity.defn
def report(job: Job) -> str:
    """Say what the cars use, by origin or by what the state asks for."""
    step = current_step.from_thread()
    by = step.state.get("by", "Origin")
    if by not in ("Origin", "Year", "Cylinders"):
        raise ApplicationError(
            f"by: 'Origin', 'Year' or 'Cylinders', not {by!r}", non_retryable=True
        )
    with closing(sqlite3.connect(step.state["database"])) as database:
        found = database.execute(
            f"SELECT {by}, count(*), avg(litres) FROM cars GROUP BY 1 ORDER BY 3, 1"  # noqa: S608
        ).fetchall()
    lines = [f"{name}: {count} cars, {litres:.2f} l/100km" for name, count, litres in found]
    path = Path(job.folder) / f"report-{step.checkpoint_id[:8]}.txt"
    path.write_text("\n".join(lines) + "\n")
    step.state["report"] = str(path)
    return _said(step, then="end", say="; ".join(lines))


STAGES: dict[str, Callable[[Job], str]] = {
    stage.__name__: stage for stage in (extract, validate, transform, load, report)
}
ACTIVITIES = list(STAGES.values())


@workflow.defn
class DataJob(Rewindable, resume="next_node"):
    """A loop over stages; each says which comes next."""

    @workflow.run
    async def run(self, job: Job) -> str:
        """Return the report."""
        node = (self.seed and self.seed.next_node) or "extract"
        said = ""
        while node != "end":
            said = await workflow.execute_activity(
                STAGES[node], job, start_to_close_timeout=timedelta(minutes=5)
            )
            node = _NEXT[node]
        return said


_NEXT = dict(zip(STAGES, [*list(STAGES)[1:], "end"], strict=True))


def _read(step: Step) -> list[Row]:
    with Path(step.state["table"]).open(newline="") as file:
        return list(csv.DictReader(file))


def _done(step: Step, job: Job, rows: Iterable[Row], *, then: str, say: str) -> str:
    """Write a stage's table under a name that no other line or step has."""
    table = list(rows)
    path = Path(job.folder) / f"{activity.info().activity_type}-{step.checkpoint_id[:8]}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    step.state["table"] = str(path)
    return _said(step, then=then, say=say)


def _said(step: Step, *, then: str, say: str) -> str:
    step.next_node = then
    step.metadata["summary"] = say
    step.append({"role": activity.info().activity_type, "content": say})
    return say
