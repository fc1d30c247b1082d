"""Scorers of a user's."""

from __future__ import annotations

from ckpt_engine.experiments import Score
from ckpt_engine.experiments.scoring import ScoreRequest


def shorter(request: ScoreRequest) -> Score:
    """The shorter, the better; looks at the final checkpoint and at the seed."""
    added = len(request.final.messages) - len(request.seed.messages)
    assert request.final.step > request.seed.step
    return Score(value=-len(request.answer or ""), why=f"{added} messages more")


async def picky(request: ScoreRequest) -> float:
    if request.variant == "b":
        raise RuntimeError("cannot say")
    return 1
