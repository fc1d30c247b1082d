"""Which activities are steps, and what of their results is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidRequest
from ..model import SnapshotTrigger

if TYPE_CHECKING:
    from .context import Step

__all__ = ["Policies", "StepAdapter", "StepPolicy"]


class StepAdapter:
    """Says what a step that knows nothing of the engine is to remember; override what is needed.

    ``before`` and ``after`` are not called for an activity that runs in a process pool.
    """

    def identity(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return what of the arguments tells one step from another on the way to a seed.

        It is called in workflows: no I/O, and the same answer each time. Leave out what differs
        from run to run, such as times and random ids.
        """
        return args

    def before(self, step: Step, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments for the step's body, which may come from the agent's memory."""
        return args

    def after(self, step: Step, args: Sequence[Any], result: Any) -> None:
        """Put what the step did into the agent's memory, before it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPolicy:
    """How the activities of one type are checkpointed.

    Attributes:
        record: Whether each of them is a step with a checkpoint. When not, it can still look at
            the agent's memory through ``current_step``.
        memory: Whether it has to do with an agent's memory at all. When not (and then it is no
            step either), the plugin leaves it alone.
        trigger: What the checkpoint says it was taken for.
        keep: The result in full, only its digest, or nothing of it.
        redact: Called with the messages a step appends, one by one; what it returns is stored
            instead, and is what later steps see.
        redact_result: Called with the result as the activity returned it; what it returns is
            stored in its place, encoded as results are. The workflow gets the true one.
        adapter: Connects a step that knows nothing of the engine with the agent's memory.

    Unless the result is kept in full and as it was, a step whose report was lost after its commit
    runs again, and a replay of the steps before a seed cannot pass it.
    """

    record: bool = True
    memory: bool = True
    trigger: SnapshotTrigger = SnapshotTrigger.TOOL_CALL
    keep: Literal["all", "digest", "nothing"] = "all"
    redact: Callable[[Any], Any] | None = None
    redact_result: Callable[[Any], Any] | None = None
    adapter: StepAdapter | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; leave out as a step what has no memory.

        Raises:
            InvalidRequest: A field has an impossible value.
        """
        if not self.memory:
            object.__setattr__(self, "record", False)
        if self.keep not in ("all", "digest", "nothing"):
            raise InvalidRequest(f"keep: 'all', 'digest' or 'nothing', not {self.keep!r}")
        if self.redact_result is not None and self.keep != "all":
            raise InvalidRequest(
                f"redact_result with keep={self.keep!r}: there is no result left to redact"
            )

    def identity(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return what of a step's arguments tells it from another."""
        return self.adapter.identity(args) if self.adapter is not None else args


@dataclass(frozen=True, slots=True)
class Policies:
    """Policies by activity type, or by ``type@queue`` which goes first.

    Either may be a pattern (``agent__*``, ``*@queue``, ``*``); where several match, the longest
    is meant.
    """

    by_name: Mapping[str, StepPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is not a policy.

        Raises:
            InvalidRequest: A value is not a ``StepPolicy``.
        """
        for name, policy in self.by_name.items():
            if not isinstance(policy, StepPolicy):
                raise InvalidRequest(
                    f"policy of {name!r}: a StepPolicy is expected, not {policy!r}"
                )

    def of(self, activity: str, queue: str) -> StepPolicy:
        """Return the policy of an activity type on a task queue."""
        if not self.by_name:
            return _DEFAULT
        for name in (f"{activity}@{queue}", activity):
            if (policy := self.by_name.get(name)) is not None:
                return policy
        for name in sorted(self.by_name, key=len, reverse=True):
            if fnmatchcase(f"{activity}@{queue}" if "@" in name else activity, name):
                return self.by_name[name]
        return _DEFAULT


_DEFAULT = StepPolicy()
