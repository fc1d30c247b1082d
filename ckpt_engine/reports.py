"""What the verbs that tidy, check and merge answer with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CollectReport",
    "ForgetReport",
    "MergeResult",
    "OptimizeReport",
    "Problem",
    "VerifyReport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a merge did.

    Attributes:
        checkpoint_id: The head that has both sides: a new one, or the old one where the branch
            held nothing new.
        created: Whether it is new.
        resolved: State keys that the strategy decided, and ``messages`` where it did so of those.
    """

    checkpoint_id: str
    created: bool
    resolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """What a collection dropped, or would drop.

    Attributes:
        dropped: Ids of the checkpoints that went.
        kept: Reason -> how many stay for it.
        bytes_freed: Bytes by which the store shrank (0 in a dry run); where it has a log, its file
            gets shorter once that is written back.
        messages_kept: Messages of checkpoints that are gone, now or since an earlier collection,
            which stay: later ones hold them too, or they stand in one row with such (which is cut
            once over half of it is of no use).
        dry_run: Whether nothing was done.
    """

    dropped: tuple[str, ...]
    kept: Mapping[str, int]
    bytes_freed: int = 0
    messages_kept: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that ``verify`` found.

    Attributes:
        kind: Kind of row, such as ``checkpoint`` or ``batch``; ``file`` for what is beneath them.
        where: Which one.
        what: What is wrong with it.
        threads: Ids of the threads that have it, those that could be found.
    """

    kind: str
    where: str
    what: str
    threads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What ``verify`` looked at and found.

    Attributes:
        problems: Everything that is wrong; empty when the store is sound.
        checkpoints: How many checkpoints were read.
        threads: How many threads were read.
    """

    problems: tuple[Problem, ...]
    checkpoints: int
    threads: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetReport:
    """What an erasure did.

    Attributes:
        erased: Ids of the checkpoints whose content is gone.
        kept: What stays because something outside needs it: id of its checkpoint -> why.
        pending: Whether a reader still holds old pages; forgetting again finishes the erasure.
    """

    erased: tuple[str, ...]
    kept: Mapping[str, str] = field(default_factory=dict)
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeReport:
    """What ``optimize`` did.

    Attributes:
        sealed: How many rows were packed into fewer.
        size_before: Bytes before.
        size_after: Bytes after.
    """

    sealed: int
    size_before: int
    size_after: int
