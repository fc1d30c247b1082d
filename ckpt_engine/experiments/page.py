"""A report as one self-contained page: no script, no style and no picture from elsewhere.

Needs the ``experiments`` extra.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .drawing import draw_scores, draw_tree
from .report import Promotion, Report, Trial, dollars
from .scoring import last_text

__all__ = ["render_page"]


def render_page(
    report: Report,
    promotions: Sequence[Promotion] = (),
    diff: Mapping[str, Any] | None = None,
    pair: tuple[Trial, Trial] | None = None,
) -> str:
    """Return the page.

    Args:
        report: The report.
        promotions: What was promoted.
        diff: How the second trial of ``pair`` differs from the first, as ``ckpt diff --json``.
        pair: The two trials that it compares.
    """
    environment = Environment(
        loader=PackageLoader("ckpt_engine.experiments", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(money=dollars, said=_said, short=_short)
    looked = [t for t in report.trials if t.same_seed is not None]
    return environment.get_template("page.html.j2").render(
        report=report,
        comparisons={c.variant: c for c in (report.verdict.comparisons if report.verdict else ())},
        promotions=promotions,
        diff=diff,
        pair=pair,
        scores=Markup(draw_scores(report)),  # noqa: S704 (drawn here, with its texts escaped)
        tree=Markup(draw_tree(report)),  # noqa: S704
        looked=len(looked),
        same=sum(1 for t in looked if t.same_seed),
        questions=list(dict.fromkeys(t.question for t in report.trials)),
    )


def _said(message: Any) -> str:
    """Return a message as text, in whatever of the usual forms it is."""
    if message is None:
        return ""
    if not isinstance(message, Mapping):
        return str(message)
    if "role" in message:
        return f"{message['role']}: {message.get('content', '')}"
    lines = []
    for part in message.get("parts") or ():
        kind = str(part.get("part_kind", ""))
        if kind == "tool-call":
            lines.append(f"calls {part.get('tool_name')}({_short(part.get('args'))})")
        elif kind in ("tool-return", "retry-prompt"):
            lines.append(f"{part.get('tool_name')}: {_short(part.get('content'))}")
        else:
            lines.append(f"{kind.removesuffix('-prompt')}: {_short(part.get('content'), 2000)}")
    return "\n".join(lines) or last_text([message]) or _short(message)


def _short(value: Any, most: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"
