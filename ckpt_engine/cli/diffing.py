"""Two checkpoints side by side: messages from the merge base on, state by key, cost and time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from ..model import CheckpointInfo, KeyChange
from .describe import message_lines
from .exports import info_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ckpt_engine import CheckpointEngine

__all__ = ["Difference", "Took", "difference", "tables"]


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a line took since the merge base: steps, tokens, dollars (if known), seconds."""

    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float | None = None
    seconds: float = 0.0
    models: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two checkpoints differ.

    Attributes:
        a: The left one.
        b: The right one.
        base: Their newest common ancestor, if they have one.
        rows: Messages since then, side by side: the same on both sides, or one or the other.
        state: Keys of the state that differ.
        took: What each side took since then.
    """

    a: CheckpointInfo
    b: CheckpointInfo
    base: CheckpointInfo | None
    rows: list[tuple[Any, Any]]
    state: tuple[KeyChange, ...]
    took: tuple[Took, Took]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "a": info_json(self.a),
            "b": info_json(self.b),
            "merge_base": None if self.base is None else info_json(self.base),
            "messages": [{"a": left, "b": right} for left, right in self.rows],
            "state": [asdict(change) for change in self.state],
            "took": {"a": asdict(self.took[0]), "b": asdict(self.took[1])},
        }


async def difference(engine: CheckpointEngine, a: str, b: str) -> Difference:
    """Return how checkpoint ``b`` differs from ``a``."""
    found = await engine.diff(a, b)
    left, right = await engine.get(a), await engine.get(b)
    base = None if found.merge_base is None else await engine.get_info(found.merge_base)
    start = min(base.message_count if base else 0, found.common_messages)
    return Difference(
        a=await engine.get_info(a),
        b=await engine.get_info(b),
        base=base,
        rows=list(_beside(left.messages[start:], right.messages[start:])),
        state=found.state,
        took=(await _took(engine, left, base), await _took(engine, right, base)),
    )


def _beside(left: Sequence[Any], right: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield messages in pairs: equal ones together, the others next to each other."""
    first, second = (
        [json.dumps(m, sort_keys=True, default=str) for m in side] for side in (left, right)
    )
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for _, i, j, k, n in matcher.get_opcodes():
        ours, theirs = left[i:j], right[k:n]
        for at in range(max(len(ours), len(theirs))):
            yield (
                ours[at] if at < len(ours) else None,
                theirs[at] if at < len(theirs) else None,
            )


async def _took(engine: CheckpointEngine, tip: CheckpointInfo, base: CheckpointInfo | None) -> Took:
    since = base.step if base else -1
    own = [
        info
        for info in await engine.path(tip.id, limit=max(1, tip.step - since))
        if info.step > since
    ]
    models = sorted({str(i.metadata["model"]) for i in own if "model" in i.metadata})
    reads = sum(int(i.metadata.get("input_tokens", 0)) for i in own)
    writes = sum(int(i.metadata.get("output_tokens", 0)) for i in own)
    began = base.created_at if base else (own[0].created_at if own else tip.created_at)
    if own and own[0].node in ("branch", "rewind"):
        began = own[0].created_at  # how long it lay there before is nobody's work
    return Took(
        steps=len(own),
        input_tokens=reads,
        output_tokens=writes,
        money=_money(own),
        seconds=max(0.0, (tip.created_at - began).total_seconds()),
        models=models,
    )


def _money(own: Sequence[CheckpointInfo]) -> float | None:
    """Return what the steps cost in dollars; ``None`` where a price is not known."""
    try:
        from ckpt_agent.activities.budget import cost_of
    except ImportError:
        return None
    total = 0.0
    for info in own:
        if "model" not in info.metadata or "input_tokens" not in info.metadata:
            continue
        reads, writes = info.metadata["input_tokens"], info.metadata.get("output_tokens", 0)
        cost = cost_of(str(info.metadata["model"]), reads, writes, {})
        if cost is None:
            return None
        total += float(cost)
    return total


def tables(found: Difference, *, everything: bool = False) -> Iterator[RenderableType]:
    """Yield what shows a difference in a terminal."""
    from rich import box
    from rich.table import Table

    messages = Table(box=box.SIMPLE_HEAD, expand=True, show_lines=True)
    messages.add_column(f"{found.a.id[:7]} · {found.a.summary[:40]}", ratio=1, overflow="fold")
    messages.add_column(f"{found.b.id[:7]} · {found.b.summary[:40]}", ratio=1, overflow="fold")
    for left, right in found.rows:
        same = left is not None and left == right
        messages.add_row(
            _said(left, everything), _said(right, everything), style="dim" if same else ""
        )
    yield messages
    if found.state:
        state = Table("state", found.a.id[:7], found.b.id[:7], box=box.SIMPLE_HEAD)
        for change in found.state:
            state.add_row(change.key, _value(change, "before"), _value(change, "after"))
        yield state
    took = Table("took", found.a.id[:7], found.b.id[:7], box=box.SIMPLE_HEAD)
    for name, shown in _rows_of(*found.took):
        took.add_row(name, *shown)
    yield took


def _rows_of(left: Took, right: Took) -> Iterator[tuple[str, tuple[str, str]]]:
    from ..experiments.report import dollars

    yield "steps", (str(left.steps), str(right.steps))
    yield "tokens read", (f"{left.input_tokens:,}", f"{right.input_tokens:,}")
    yield "tokens written", (f"{left.output_tokens:,}", f"{right.output_tokens:,}")
    yield "cost", (dollars(left.money), dollars(right.money))
    yield "time", (f"{left.seconds:.2f}s", f"{right.seconds:.2f}s")
    yield "model", (", ".join(left.models) or "–", ", ".join(right.models) or "–")


def _said(message: Any, everything: bool) -> Any:
    from rich.text import Text

    return Text("\n").join(message_lines(message, everything)) if message is not None else ""


def _value(change: KeyChange, side: str) -> str:
    absent = {"before": "added", "after": "removed"}[side]
    if change.kind == absent:
        return "–"
    value = getattr(change, side)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:199] + "…"
