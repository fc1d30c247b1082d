"""When a snapshot is taken."""

from __future__ import annotations

from .errors import InvalidRequest
from .model import SnapshotTrigger

__all__ = ["interval_wait", "parse_trigger"]


def parse_trigger(value: SnapshotTrigger | str) -> SnapshotTrigger:
    """Return the trigger of this name, in any case and with ``-`` or ``_``.

    Raises:
        InvalidRequest: The name is unknown; the message lists the known ones.
    """
    if type(value) is SnapshotTrigger:
        return value
    try:
        return SnapshotTrigger(value)
    except ValueError:
        known = ", ".join(SnapshotTrigger)
        raise InvalidRequest(f"{value!r} is not a trigger; there are {known}") from None


def interval_wait(last: float, now: float, every: float) -> float:
    """Return how many seconds from ``now`` the next interval snapshot is due; 0 when it is.

    Args:
        last: When the newest snapshot of any trigger was taken, on a monotonic clock, in seconds.
        now: The present, on the same clock.
        every: Length of the interval in seconds, greater than 0.

    Raises:
        InvalidRequest: ``every`` is not greater than 0.
    """
    if not every > 0:
        raise InvalidRequest(f"an interval is greater than 0 seconds, not {every}")
    return max(0.0, last + every - now)
