"""When a snapshot is taken."""

from __future__ import annotations

import contextlib

from .errors import InvalidRequest, shown
from .model import SnapshotTrigger

__all__ = ["interval_wait", "parse_trigger"]

_LONGEST = 1e10  # seconds: three hundred years


def parse_trigger(value: SnapshotTrigger | str) -> SnapshotTrigger:
    """Return the trigger of this name, in any case and with ``-`` or ``_``.

    Raises:
        InvalidRequest: The name is unknown; the message lists the known ones.
    """
    if type(value) is SnapshotTrigger:
        return value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return SnapshotTrigger(value)
    known = ", ".join(SnapshotTrigger)
    raise InvalidRequest(f"{shown(value)} is not a trigger; there are {known}")


def interval_wait(last: float, now: float, every: float) -> float:
    """Return how many seconds from ``now`` the next interval snapshot is due; 0 when it is.

    Args:
        last: When the newest snapshot of any trigger was taken, on a monotonic clock, in seconds.
        now: The present, on the same clock.
        every: Length of the interval in seconds, greater than 0.

    Raises:
        InvalidRequest: ``every`` is not greater than 0.
    """
    if not isinstance(every, (int, float)) or isinstance(every, bool) or not 0 < every < _LONGEST:
        raise InvalidRequest(f"an interval is greater than 0 seconds, not {shown(every)}")
    return max(0.0, last + every - now)
