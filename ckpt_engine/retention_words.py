"""Retention policies in words, for command lines and settings: ``last:100 | milestones:20``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import reduce
from operator import and_, or_
from typing import Literal, cast

from .checks import check_text
from .errors import InvalidRequest
from .retention import KEEP_ALL, KeepAge, KeepLastN, KeepMilestones, RetentionPolicy

__all__ = ["RETENTION_WORDS", "parse_duration", "parse_retention"]

RETENTION_WORDS = (
    "all, last:N, milestones:N (each thread; /session for the session as a whole), "
    "age:30d (or h, m, s, w); a | b keeps what either keeps, a & b what both keep"
)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PER = Literal["thread", "session"]
_COUNTED: dict[str, Callable[[int, _PER], RetentionPolicy]] = {
    "last": KeepLastN,
    "milestones": KeepMilestones,
}


def parse_retention(text: str) -> RetentionPolicy:
    """Return the policy that the words mean; ``&`` binds before ``|``.

    Args:
        text: Such as ``last:100``, ``age:30d & last:1000``, ``milestones:20/session | age:1d``.

    Raises:
        InvalidRequest: A word is none of them; the message lists those there are.
    """
    check_text(text, "a retention policy")
    either = [reduce(and_, map(_word, part.split("&"))) for part in text.split("|")]
    return reduce(or_, either)


def parse_duration(text: str) -> timedelta:
    """Return a duration such as ``30m``, ``6h`` or ``1d``.

    Raises:
        InvalidRequest: It is none, or longer than can be counted.
    """
    check_text(text, "a duration")
    found = re.fullmatch(r"(\d{1,18})([smhdw])", text.strip())
    if not found:
        raise InvalidRequest(f"{text!r} is no duration: 90s, 30m, 6h, 1d or 2w")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise InvalidRequest(f"{text!r} is longer than can be counted") from None


def _word(text: str) -> RetentionPolicy:
    word = text.strip()
    if word == "all":
        return KEEP_ALL
    if found := re.fullmatch(r"(last|milestones):(\d{1,18})(?:/(thread|session))?", word):
        return _COUNTED[found[1]](int(found[2]), cast("_PER", found[3] or "thread"))
    if re.fullmatch(r"age:\d+[smhdw]", word):
        return KeepAge(parse_duration(word.removeprefix("age:")))
    raise InvalidRequest(f"{word!r} says no retention policy: {RETENTION_WORDS}")
