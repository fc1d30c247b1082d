"""A scorer of the user's, named as ``module:function``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import InvalidRequest
from ..experiments.report import Score
from ..experiments.scoring import ScoreRequest, to_score
from .agent import import_here

__all__ = ["ScorerNotLoaded", "load_scorer", "score_with"]


class ScorerNotLoaded(InvalidRequest):
    """There is no usable scorer where it was looked for; the message says what was found."""

    kind = "scorer-not-loaded"


def load_scorer(reference: str) -> Callable[[ScoreRequest], Any]:
    """Return the function that ``module:function`` names; the current directory is on the path.

    Raises:
        ScorerNotLoaded: There is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        found = getattr(import_here(module_name), name, None)
    except InvalidRequest as err:
        raise ScorerNotLoaded(str(err)) from err
    if not callable(found):
        raise ScorerNotLoaded(f"module {module_name} has no function {name!r}")
    return found  # type: ignore[no-any-return]


async def score_with(reference: str, request: ScoreRequest) -> Score:
    """Return what a scorer says; one that is not async runs in a thread.

    Raises:
        ScorerNotLoaded: There is no such scorer.
        InvalidRequest: It returned something that is no score.
        Exception: What it raised.
    """
    function = load_scorer(reference)
    if inspect.iscoroutinefunction(function):
        value = await function(request)
    else:
        value = await asyncio.to_thread(function, request)
    score = to_score(value)
    return score if score.by else score.model_copy(update={"by": reference})
