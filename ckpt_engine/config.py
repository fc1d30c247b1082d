"""How an engine takes and keeps checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .checks import check_count, check_flag, check_list, check_name
from .errors import InvalidRequest, shown
from .model import SnapshotTrigger
from .retention import KEEP_ALL, RetentionPolicy, check_policy
from .triggers import parse_trigger

__all__ = ["SnapshotConfig"]

_MOST = 1e10  # seconds: three hundred years; or megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """How an engine takes and keeps checkpoints; checked when it is made.

    Attributes:
        triggers: Which triggers take a snapshot; the others do nothing.
        retention: What :meth:`collect` keeps. Applied by itself to sessions that checkpoints come
            to: after so many, when they come to rest, and on closing; not to those that nobody
            touches any more.
        delta_snapshots: Store the state as differences; else whole each time.
        max_snapshot_size_mb: Largest snapshot in megabytes, encoded, with all that is new in it,
            its node and tags as well; no limit when absent.
        logs: Keys of the state that hold lists which grow by appending.
        interval_seconds: How often scopes, and steps of workflows that are at work, take an
            ``INTERVAL`` checkpoint.
        synchronous: ``full`` survives a power cut, ``normal`` may lose the newest commits.
        busy_timeout: Seconds to wait for another process before ``StoreBusy``.
        group_size: Most checkpoints in one transaction.
        in_place: SQLite: one agent alone that writes step after step to a quick disk does so on the
            event loop's own thread, about a sixth faster; else every commit is on another thread.
        connections: PostgreSQL: how many connections read, besides the one that writes.
        cache_mb: Memory for what was read and written last, in megabytes.
        idle_seal_seconds: A thread's rows are packed after it was idle for so long; 0 for never.
        schema_version: Version of what the application keeps in messages and state; each checkpoint
            says which one its content has (``metadata["schema"]``, absent for 0).
        upcast: Called with messages, state and their version, where a workflow is seeded from an
            older one; returns both as the current version has them.
    """

    triggers: frozenset[SnapshotTrigger] = frozenset(
        {
            SnapshotTrigger.MANUAL,
            SnapshotTrigger.TOOL_CALL,
            SnapshotTrigger.LLM_CALL,
            SnapshotTrigger.STATE_CHANGE,
        }
    )
    retention: RetentionPolicy = KEEP_ALL
    delta_snapshots: bool = True
    max_snapshot_size_mb: float | None = None
    logs: tuple[str, ...] = ()
    interval_seconds: float = 30.0
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout: float = 5.0
    group_size: int = 256
    in_place: bool = True
    connections: int = 4
    cache_mb: float = 64.0
    idle_seal_seconds: float = 5.0

    schema_version: int = 0
    upcast: Callable[[list[Any], dict[str, Any], int], tuple[list[Any], dict[str, Any]]] | None = (
        None
    )

    def __post_init__(self) -> None:
        if self.synchronous not in ("full", "normal"):
            raise InvalidRequest(f"synchronous is full or normal, not {shown(self.synchronous)}")
        try:
            if isinstance(self.triggers, str):
                raise TypeError
            triggers = frozenset(map(parse_trigger, self.triggers))
        except TypeError:
            raise InvalidRequest(
                f"triggers must be a set of triggers, not {shown(self.triggers)}"
            ) from None
        object.__setattr__(self, "triggers", triggers)
        check_policy(self.retention)
        check_list(self.logs, "logs", "keys of the state")
        for key in self.logs:
            check_name(key, "a key in logs")
        object.__setattr__(self, "logs", tuple(self.logs))
        self._check_numbers()
        check_flag(self.delta_snapshots, "delta_snapshots")
        check_flag(self.in_place, "in_place")
        if self.upcast is not None and not callable(self.upcast):
            raise InvalidRequest(f"upcast must be a function, not {shown(self.upcast)}")

    def _check_numbers(self) -> None:
        check_count(self.schema_version, "schema_version")
        check_count(self.group_size, "group_size", least=1)
        check_count(self.connections, "connections", least=1)
        seconds_and_sizes = {
            "interval_seconds": self.interval_seconds,
            "busy_timeout": self.busy_timeout,
            "cache_mb": self.cache_mb,
            "idle_seal_seconds": self.idle_seal_seconds,
        }
        if self.max_snapshot_size_mb is not None:
            seconds_and_sizes["max_snapshot_size_mb"] = self.max_snapshot_size_mb
        for name, value in seconds_and_sizes.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            never = name == "idle_seal_seconds" and number and value == 0
            if not never and not (number and 0 < value < _MOST):
                raise InvalidRequest(f"{name} must be greater than 0, not {shown(value)}")
