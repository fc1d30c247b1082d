"""Drawings for the page, as SVG: differences with their intervals, and the tree of trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .report import Comparison, Report, Trial

__all__ = ["draw_scores", "draw_tree"]

_ROW = 26
_LEFT = 210
_WIDTH = 860
_COLOURS = {
    "scored": "#2a9d5c",
    "failed": "#d1495b",
    "budget": "#e09f3e",
    "stopped": "#9aa5b1",
    "canceled": "#9aa5b1",
    "unscored": "#b56576",
}


def draw_scores(report: Report) -> str:
    """Return a plot: each variant's difference from the baseline, with its confidence interval."""
    known = [
        c
        for c in (report.verdict.comparisons if report.verdict else ())
        if c.difference is not None
    ]
    if not known:
        return ""
    known.sort(key=lambda c: -(c.difference or 0))
    ends = [0.0, *(value for c in known for value in (c.low, c.high, c.difference) if value)]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.08 or 0.5
    scale = _Scale(low - margin, high + margin)
    height = _ROW * len(known) + 46
    parts = [_open(height, "Difference of each variant's score from the baseline's")]
    parts += list(_axis(scale, height))
    for number, found in enumerate(known):
        parts += list(_interval(report, found, scale, 20 + number * _ROW))
    parts.append("</svg>")
    return "\n".join(parts)


class _Scale:
    """From values to places."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_WIDTH - _LEFT - 150), 1)


def _axis(scale: _Scale, height: int) -> Iterator[str]:
    bottom = height - 26
    for step in range(5):
        value = scale.low + (scale.high - scale.low) * step / 4
        x = scale(value)
        yield f'<line x1="{x}" y1="8" x2="{x}" y2="{bottom}" class="grid"/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:+.2f}</text>'
    zero = scale(0)
    yield f'<line x1="{zero}" y1="4" x2="{zero}" y2="{bottom}" class="zero"/>'


def _interval(report: Report, found: Comparison, scale: _Scale, y: int) -> Iterator[str]:
    winner = report.verdict is not None and report.verdict.winner == found.variant
    colour = "#2a9d5c" if found.better else "#d1495b" if found.worse else "#4a6fa5"
    star = "★ " if winner else ""
    name = escape(f"{star}{found.variant}"[:26])
    yield f'<text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end" class="name">{name}</text>'
    assert found.difference is not None
    if found.low is not None and found.high is not None:
        left, right = scale(found.low), scale(found.high)
        yield (
            f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="{colour}" '
            'stroke-width="3" stroke-linecap="round"/>'
        )
    label = f"{found.difference:+.2f}" + ("" if found.p is None else f" · p {found.p:.2g}")
    yield (
        f'<circle cx="{scale(found.difference)}" cy="{y}" r="6" fill="{colour}">'
        f"<title>{escape(label)}</title></circle>"
    )
    yield f'<text x="{_WIDTH - 130}" y="{y + 4}">{escape(label)}</text>'


def draw_tree(report: Report) -> str:
    """Return the tree: each seed, and from it the trials, a dot for each, as long as its steps."""
    lanes = list(_lanes(report))
    if not lanes:
        return ""
    rows = sum(1 + len(trials) for _, trials in lanes)
    row = 16 if rows > 60 else 20
    most = max((t.spent.steps for _, trials in lanes for t in trials), default=1) or 1
    step = max(2.0, min(22.0, (_WIDTH - _LEFT - 240) / most))
    parts = [
        _open(
            rows * row + 16 + 6 * len(lanes), "The seeds and the branches that were tried from them"
        )
    ]
    y = 14
    for title, trials in lanes:
        top = y
        parts.append(f'<circle cx="16" cy="{y}" r="6" class="seed"/>')
        parts.append(f'<text x="30" y="{y + 4}" class="name">{escape(title)}</text>')
        y += 6  # room for the first label
        for trial in trials:
            y += row
            parts += list(_lane(report, trial, y, step))
        parts.append(f'<line x1="16" y1="{top}" x2="16" y2="{y}" class="trunk"/>')
        y += row
    parts.append("</svg>")
    return "\n".join(parts)


def _lanes(report: Report) -> Iterator[tuple[str, Sequence[Trial]]]:
    for seed in report.seeds:
        trials = [t for t in report.trials if t.question in seed.questions and t.first]
        trials.sort(key=lambda t: (t.question, t.repeat))
        yield f"{seed.checkpoint[:8]} · step {seed.step} of {seed.workflow_id}", trials


def _lane(report: Report, trial: Trial, y: int, step: float) -> Iterator[str]:
    colour = _COLOURS.get(trial.state, "#9aa5b1")
    if trial.state == "scored" and not trial.score:
        colour = "#c9ada7"
    end = round(_LEFT + trial.spent.steps * step, 1)
    yield f'<path d="M16 {y} H{end}" class="branch"/>'
    if trial.spent.steps <= 60:
        for number in range(1, trial.spent.steps):
            x = round(_LEFT + number * step, 1)
            yield f'<circle cx="{x}" cy="{y}" r="2" class="step"/>'
    winner = report.verdict is not None and report.verdict.winner == trial.variant
    named = escape(f"{trial.variant}/{trial.question}/{trial.repeat}"[:30])
    yield f'<text x="30" y="{y - 3}" class="small">{named}</text>'
    score = "" if trial.score is None else f" {trial.score:g}"
    title = escape(f"{trial.name}: {trial.state}{score} {trial.head[:8]} {trial.why}")
    yield (f'<circle cx="{end}" cy="{y}" r="5" fill="{colour}"><title>{title}</title></circle>')
    star = " ★" if winner else ""
    yield (
        f'<text x="{end + 10}" y="{y + 4}" class="small">{escape(trial.state)}{score}'
        f"{star} · {trial.head[:7]}</text>"
    )


def _open(height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
    )
