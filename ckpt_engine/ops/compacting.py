"""Copying together what a new lineage begins with, where that is in too many pieces.

Every rewind, edit or branch adds a piece. Without this, the thousandth would store a thousand
pieces and read as many rows; with it, a conversation is copied once in :data:`MOST` times at most.
"""

from __future__ import annotations

from dataclasses import replace

from ..store import Lineage, Tx
from .prepare import LogDraft
from .source import Caches, Piece, Source, clip, inherited_pieces

__all__ = ["MOST", "compact", "pieces_of"]

MOST = 32
"""Pieces that a lineage begins with at most."""


def pieces_of(parent: Lineage, name: str, keep: int) -> list[Piece]:
    """Return what makes up the first ``keep`` items of a lineage's log."""
    pieces, at = clip(inherited_pieces(parent).get(name, []), keep)
    if at < keep:
        pieces.append(Piece(parent.pk, at, keep))
    return pieces


def compact(tx: Tx, parent: Lineage, logs: dict[str, LogDraft]) -> None:
    """Let the drafts hold themselves what would be in too many pieces."""
    for name, log in logs.items():
        pieces = pieces_of(parent, name, log.keep)
        if len(pieces) <= MOST:
            continue
        first = pieces[0].stop - pieces[0].start
        keep = first if 2 * first >= log.keep else 0
        copied = Source(Caches(1), tx).items(parent.pk, name, keep, log.keep)
        logs[name] = replace(log, keep=keep, items=[*copied, *log.items])
