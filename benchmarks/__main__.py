"""Run every figure once: ``python -m benchmarks [--quick] [--only disk,reads]``.

Prints a table with the promised figure beside the measured one, and writes it as JSON, as Markdown
and as a plot to ``benchmarks/results/``. Ends with 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .common import Figure
from .groups import GROUPS, measure

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the chosen groups; return the exit code."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument("--quick", action="store_true", help="smaller sizes, for trying")
    options.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    chosen = options.parse_args()
    unknown = set(names := chosen.only.split(",")) - set(GROUPS)
    if unknown:
        options.error(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    console = Console()
    figures, series, absent = _run(names, chosen.quick, console)
    console.print(_table(figures))
    for line in absent:
        console.print(f"[yellow]{escape(line)}[/]")
    for path in _write(figures, series, chosen.quick):
        console.print(f"wrote {path}")
    return int(bool(absent) or any(figure.ok is False for figure in figures))


def _run(
    names: list[str], quick: bool, console: Console
) -> tuple[list[Figure], dict[str, list[float]], list[str]]:
    figures: list[Figure] = []
    series: dict[str, list[float]] = {}
    absent: list[str] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting")
        for name in names:
            bar.update(task, description=f"{name}: starting")
            found = measure(name, quick, lambda line: bar.update(task, description=line))
            if found.absent:
                absent.append(found.absent)
                bar.print(f"[red]{escape(found.absent)}[/]")
            figures += found.figures
            series |= found.series
            for figure in found.figures:
                bar.print(f"{_mark(figure)} {figure.name}: {_shown(figure.measured, figure.unit)}")
    return figures, series, absent


def _table(figures: list[Figure]) -> Table:
    table = Table("", "figure", "promised", "measured", "from")
    for figure in figures:
        measured = _shown(figure.measured, figure.unit)
        table.add_row(_mark(figure), figure.name, _promised(figure), measured, figure.note)
    return table


def _page(figures: list[Figure]) -> str:
    """Return the same table as Markdown, for the docs."""
    rows = [("figure", "promised", "measured", "from"), ("---",) * 4]
    for figure in figures:
        measured = _shown(figure.measured, figure.unit)
        measured += " (missed)" if figure.ok is False else ""
        rows.append((figure.name, _promised(figure), measured, figure.note))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _promised(figure: Figure) -> str:
    bound = "at least" if figure.at_least else "at most"
    return f"{bound} {_shown(figure.limit, figure.unit)}" if figure.limit else "shown"


def _mark(figure: Figure) -> str:
    return {True: "[green]kept[/]", False: "[red]MISSED[/]", None: ""}[figure.ok]


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{unit}" if unit == "x" else f"{number} {unit}"


def _write(figures: list[Figure], series: dict[str, list[float]], quick: bool) -> list[str]:
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + ("-quick" if quick else "")
    path = RESULTS / f"{stamp}.json"
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "system": platform.system(),
    }
    found = [{**asdict(figure), "ok": figure.ok} for figure in figures]
    path.write_text(json.dumps({"at": stamp, "machine": machine, "figures": found}, indent=1))
    page = path.with_suffix(".md")
    page.write_text(_page(figures))
    try:
        return [str(path), str(page), _plot(figures, series, path.with_suffix(".png"))]
    except ImportError:
        return [str(path), str(page), "no plot: pip install 'ckpt-engine[bench]'"]


def _plot(figures: list[Figure], series: dict[str, list[float]], path: Path) -> str:
    """Draw how far each promise is used up, and how long single writes took."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    judged = [figure for figure in figures if figure.limit][::-1]
    used = [f.limit / f.measured if f.at_least else f.measured / f.limit for f in judged if f.limit]
    height = 1.5 + 0.28 * len(judged)
    drawing: Any = pyplot.subplots(2 if series else 1, figsize=(11, height + (4 if series else 0)))
    figure, axes = drawing
    bars, lines = axes if series else (axes, None)
    bars.barh([f.name for f in judged], used, color=["C0" if f.ok else "C3" for f in judged])
    bars.axvline(1, color="black", linewidth=1)
    bars.set(xscale="log", xlabel="share of what is promised (at 1: just kept; less is better)")
    bars.tick_params(labelsize=7)
    if lines is not None:
        for name, taken in series.items():
            lines.plot(taken, label=name, linewidth=0.6)
        lines.set(yscale="log", xlabel="step", ylabel="seconds")
        lines.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
