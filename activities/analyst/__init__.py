"""The shipped example: an analyst that answers questions about data in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ckpt_engine.contrib.agent import AgentSpec

from .scripted import SCRIPTED, scripted_model
from .tools import describe, list_tables, run_sql

__all__ = ["DEFAULT_QUESTION", "SCRIPTED", "agent", "analyst"]

DEFAULT_QUESTION = "How does the average wind in Seattle differ by kind of weather?"
"""A question about the shipped data, for demonstrations."""

INSTRUCTIONS = (
    "You answer questions about tables of data. Find out which tables there are, describe those "
    "that matter (several at once where you can), look at the values that occur, then query them "
    "with run_sql. Answer with the numbers you found, and say so when the data cannot answer."
)
_BY_KEY = {
    "OPENAI_API_KEY": "openai:gpt-5.6-sol",
    "ANTHROPIC_API_KEY": "anthropic:claude-sonnet-5-5",
}


def analyst(environ: Mapping[str, str] = os.environ) -> AgentSpec:
    """Return the analyst; its model is the one in ``CKPT_MODEL``, else one that a key is set for.

    Without a key a script stands in, which says so. ``model="scripted"`` chooses it in any case.
    """
    scripted = scripted_model()
    by_key = next((name for key, name in _BY_KEY.items() if environ.get(key)), None)
    return AgentSpec(
        name="analyst",
        model=environ.get("CKPT_MODEL") or by_key or scripted,
        instructions=INSTRUCTIONS,
        tools=[list_tables, describe, run_sql],
        models={SCRIPTED: scripted},
    )


agent = analyst()
