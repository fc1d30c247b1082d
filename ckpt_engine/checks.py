"""Arguments of the wrong type are refused by name, before anything is read or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InvalidRequest

__all__ = ["check_count", "check_list", "check_name", "check_object", "check_text"]


def check_list(values: Any, name: str, of: str) -> None:
    """Refuse what is no list: a text or an object in its place would be taken apart.

    Args:
        values: What was given; ``None`` for nothing.
        name: The argument.
        of: What it is a list of.

    Raises:
        InvalidRequest: It is no list.
    """
    if type(values) is list or type(values) is tuple or values is None:
        return
    text = isinstance(values, (str, bytes, bytearray, memoryview))
    if text or not isinstance(values, Sequence):
        raise InvalidRequest(
            f"{name} must be a list of {of}, not a {type(values).__name__}: "
            f"for one alone give {name}=[...]"
        )


def check_object(values: Any, name: str) -> None:
    """Refuse what is no object.

    Raises:
        InvalidRequest: It is something else than a mapping or ``None``.
    """
    if values is not None and not isinstance(values, Mapping):
        raise InvalidRequest(f"{name} must be a dict, not a {type(values).__name__}")


def check_text(value: Any, name: str) -> None:
    """Refuse what is no text that can be stored.

    Raises:
        InvalidRequest: It is neither text nor ``None``, or has a lone surrogate.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text, not {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} cannot have a lone surrogate") from None


def check_count(value: Any, name: str, least: int | None = 0) -> None:
    """Refuse what is no whole number, from ``least`` up where that is given.

    Raises:
        InvalidRequest: It is neither that nor ``None``.
    """
    if value is None or (type(value) is int and (least is None or value >= least)):
        return
    bound = "" if least is None else f" from {least} up"
    raise InvalidRequest(f"{name} must be a whole number{bound}, not {value!r:.60}")


def check_name(name: Any, what: str) -> None:
    """Refuse what cannot be a name.

    Raises:
        InvalidRequest: It is no text, is empty, or has a lone surrogate.
    """
    if not isinstance(name, str) or not name or len(name) > 1000:
        raise InvalidRequest(f"{what} is text of 1 to 1,000 characters, not {name!r:.60}")
    check_text(name, what)
