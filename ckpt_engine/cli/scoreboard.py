"""An experiment as a table: its variants, how far they are, what they cost, who leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .at_work import AtWork, board_of_work
from .render import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ckpt_engine.experiments import Report
    from ckpt_engine.experiments.report import Comparison, VariantRow

    from .output import Output

__all__ = ["board", "reasons", "summary_line", "watch"]

_PAUSE = 1.0
_MOST_ROWS = 40
_MOST_REASONS = 5


def board(report: Report) -> RenderableType:
    """Return the table of an experiment."""
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from ..experiments.report import dollars

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("variant", no_wrap=True)
    table.add_column("trials", width=12)
    for name in ("done", "score", "difference", "tokens", "cost", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    found = {c.variant: c for c in (report.verdict.comparisons if report.verdict else ())}
    winner = report.verdict.winner if report.verdict else None
    rows = sorted(report.variants, key=lambda row: (row.name != report.baseline, -(row.mean or 0)))
    for row in rows[:_MOST_ROWS]:
        done = _done(row)
        mark = "★ " if row.name == winner else ""
        table.add_row(
            f"{mark}{clean(row.name)}" + (" (baseline)" if row.name == report.baseline else ""),
            ProgressBar(total=max(1, row.trials), completed=done, width=12),
            f"{done}/{row.trials}",
            "" if row.mean is None else f"{row.mean:.3g}",
            _difference(found.get(row.name)),
            f"{row.spent.input_tokens + row.spent.output_tokens:,}",
            dollars(row.spent.money),
            f"{row.seconds:.1f}s",
            clean(_states(row)),
            style="bold green" if row.name == winner else "",
        )
    if len(rows) > _MOST_ROWS:
        table.add_row(f"… and {len(rows) - _MOST_ROWS} more")
    return table


def summary_line(report: Report) -> str:
    """Return in one line how far an experiment is."""
    from ..experiments.report import dollars

    done = sum(_done(row) for row in report.variants)
    total = sum(row.trials for row in report.variants)
    running = sum(row.states.get("running", 0) for row in report.variants)
    asked = sum(row.states.get("scoring", 0) for row in report.variants)
    scoring = f", {asked} wait for a score" if asked else ""
    spent = report.spent
    return (
        f"{report.name}: {done} of {total} trials done, {running} running{scoring}; "
        f"{spent.steps:,} steps, {spent.input_tokens + spent.output_tokens:,} tokens, "
        f"{dollars(spent.money)}"
    )


def reasons(report: Report) -> list[str]:
    """Return why trials have no score of their own, each reason once, with how many it concerns."""
    found: dict[tuple[str, str], list[str]] = {}
    for trial in report.trials:
        if trial.state in ("failed", "unscored", "budget"):
            found.setdefault((trial.state, trial.why), []).append(trial.name)
    lines = [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''} {state}: {why}"
        for (state, why), names in found.items()
    ]
    more = len(lines) - _MOST_REASONS
    return lines[:_MOST_REASONS] + ([f"… and {more} more reasons"] if more > 0 else [])


async def watch(
    out: Output,
    look: Callable[[], Awaitable[tuple[Report | None, str]]],
    done: Awaitable[Report],
    doing: Callable[[Report], Awaitable[list[AtWork]]],
) -> Report:
    """Show an experiment, again and again, until it has ended; return its report."""
    task = asyncio.ensure_future(done)
    try:
        if out.console.is_terminal:
            await _live(out, look, task, doing)
        else:
            await _lines(out, look, task)
        return await task
    finally:
        task.cancel()


async def _live(
    out: Output,
    look: Callable[[], Awaitable[tuple[Report | None, str]]],
    task: asyncio.Future[Report],
    doing: Callable[[Report], Awaitable[list[AtWork]]],
) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    report: Report | None = None
    with Live(console=out.console, auto_refresh=False, transient=True) as live:
        while not task.done():
            newest, problem = await look()
            report = newest or report
            parts: list[RenderableType] = []
            if report is not None:
                work = board_of_work(report, [] if problem else await doing(report))
                parts = [board(report), work, Text(summary_line(report), style="dim")]
            if problem:
                parts.append(Text(problem, style="yellow"))
            live.update(Group(*parts), refresh=True)
            await asyncio.wait({task}, timeout=_PAUSE)


async def _lines(
    out: Output,
    look: Callable[[], Awaitable[tuple[Report | None, str]]],
    task: asyncio.Future[Report],
) -> None:
    said = ""
    while not task.done():
        report, problem = await look()
        line = problem or (summary_line(report) if report is not None else "")
        if line and line != said:
            out.say(line, "dim")
            said = line
        await asyncio.wait({task}, timeout=3 * _PAUSE)


def _done(row: VariantRow) -> int:
    open_ = {"waiting", "running", "scoring"}
    return sum(count for state, count in row.states.items() if state not in open_)


def _states(row: VariantRow) -> str:
    if row.stopped:
        return f"stopped: {row.stopped}"
    odd = {k: v for k, v in row.states.items() if k not in ("waiting", "scored")}
    return ", ".join(f"{count} {state}" for state, count in sorted(odd.items()))


def _difference(found: Comparison | None) -> str:
    if found is None or found.difference is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.difference:+.2f}"
    return f"{found.difference:+.2f} [{found.low:+.2f} {found.high:+.2f}]"
