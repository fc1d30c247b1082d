"""Copying together what a new lineage begins with, where that is in too many pieces.

Every rewind, edit or branch adds a piece. Without this, the thousandth would store a thousand
pieces and read as many rows; with it, a conversation is copied once in :data:`MOST` times at most.
"""

from __future__ import annotations

from dataclasses import replace

from ..store import Lineage, Tx
from .prepare import LogDraft
from .source import Caches, Piece, Source, clip, inherited_pieces

__all__ = ["MOST", "beginning", "compact"]

MOST = 32
"""Pieces that a lineage begins with at most."""


def pieces_of(parent: Lineage, name: str, start: int, stop: int) -> list[Piece]:
    """Return what makes up the items from ``start`` to before ``stop`` of a lineage's log."""
    pieces, at = clip(inherited_pieces(parent).get(name, []), stop)
    if at < stop:
        pieces.append(Piece(parent.pk, at, stop))
    return _after(pieces, start)


def _after(pieces: list[Piece], count: int) -> list[Piece]:
    """Return the pieces without the first ``count`` items."""
    left: list[Piece] = []
    for piece in pieces:
        skipped = min(count, piece.stop - piece.start)
        count -= skipped
        if piece.start + skipped < piece.stop:
            left.append(piece._replace(start=piece.start + skipped))
    return left


def beginning(parent: Lineage, name: str, log: LogDraft, apart: int) -> list[Piece]:
    """Return what a lineage begins with that leaves ``parent``.

    Args:
        parent: The lineage that it leaves.
        name: The log.
        log: What of the parent's log it goes on from.
        apart: The lineage that holds the new items among the runs.
    """
    pieces = pieces_of(parent, name, 0, log.keep)
    at = 0
    for run in log.runs:
        if run.fresh:
            pieces.append(Piece(apart, at, at + len(run.fresh)))
            at += len(run.fresh)
        pieces += pieces_of(parent, name, run.start, run.stop)
    return pieces


def compact(tx: Tx, parent: Lineage, logs: dict[str, LogDraft]) -> None:
    """Let the drafts hold themselves what would be in too many pieces."""
    for name, log in logs.items():
        pieces = beginning(parent, name, log, 0)
        if len(pieces) <= MOST:
            continue
        source = Source(Caches(1), tx)
        first = pieces[0].stop - pieces[0].start
        keep = min(first, log.keep) if 2 * first >= log.keep else 0
        copied = source.items(parent.pk, name, keep, log.keep)
        for run in log.runs:
            copied += run.fresh
            copied += source.items(parent.pk, name, run.start, run.stop)
        logs[name] = replace(log, keep=keep, items=[*copied, *log.items], runs=())
