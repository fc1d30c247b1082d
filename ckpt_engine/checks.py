"""Arguments of the wrong type are refused by name, before anything is read or written.

``optional`` says that ``None`` is one, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from .errors import InvalidRequest, Unstorable, shown
from .model import id_to_bytes

__all__ = [
    "check_count",
    "check_flag",
    "check_ids",
    "check_list",
    "check_name",
    "check_object",
    "check_text",
    "check_time",
    "checked_object",
    "checked_tags",
]

_COUNTS = 2**63  # a database's whole numbers are below it


def check_flag(value: Any, name: str) -> None:
    """Refuse what is neither ``True`` nor ``False``.

    Raises:
        InvalidRequest: It is something else, which Python would take for one of them.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} is True or False, not {shown(value)}")


def check_list(values: Any, name: str, of: str, *, optional: bool = False) -> None:
    """Refuse what is no list: a text or an object in its place would be taken apart.

    Args:
        values: What was given.
        name: The argument.
        of: What it is a list of.
        optional: Whether it may be ``None``.

    Raises:
        InvalidRequest: It is no list.
    """
    if type(values) is list or type(values) is tuple or (optional and values is None):
        return
    if values is None:
        raise InvalidRequest(f"{name} must be a list of {of}, not None")
    text = isinstance(values, (str, bytes, bytearray, memoryview))
    if text or not isinstance(values, Sequence):
        raise InvalidRequest(
            f"{name} must be a list of {of}, not a {type(values).__name__}: "
            f"for one alone give {name}=[...]"
        )


def check_ids(values: Any, name: str) -> None:
    """Refuse what is no list of checkpoint ids.

    Raises:
        InvalidRequest: It is no list, or has something else in it.
    """
    check_list(values, name, "checkpoint ids")
    for value in values:
        id_to_bytes(value)


def check_object(values: Any, name: str, *, optional: bool = False) -> None:
    """Refuse what is no object.

    Raises:
        InvalidRequest: It is something else than a mapping.
    """
    if not (isinstance(values, Mapping) or (optional and values is None)):
        kind = "None" if values is None else f"a {type(values).__name__}"
        raise InvalidRequest(f"{name} must be a dict, not {kind}")


def checked_object(value: Any, name: str) -> Mapping[str, Any]:
    """Return an object; of a pydantic model, its JSON form.

    Raises:
        InvalidRequest: It is neither a mapping nor a model whose JSON form is an object.
        Unstorable: It is a model without a JSON form.
    """
    if type(value) is dict:  # what it mostly is: every step passes here
        return value
    dump = None if isinstance(value, (Mapping, type)) else getattr(value, "model_dump", None)
    if callable(dump):
        try:
            form = dump(mode="json")
        except ValueError as err:
            kind = type(value).__qualname__
            raise Unstorable(f"{name}: a {kind} has no JSON form: {err}") from err
        value = form if isinstance(form, Mapping) else value
    check_object(value, name)
    found: Mapping[str, Any] = value
    return found


def check_text(value: Any, name: str) -> str:
    """Return a text as plain ``str`` (a member of an enum is one, too); refuse what is none.

    Raises:
        InvalidRequest: It is no text, or has a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text, not {shown(value)}")
    plain = value if type(value) is str else str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} cannot have a lone surrogate") from None
    return plain


def check_count(value: Any, name: str, least: int | None = 0, *, optional: bool = False) -> None:
    """Refuse what is no whole number that a database keeps, from ``least`` up where it is given.

    Raises:
        InvalidRequest: It is no such number.
    """
    if optional and value is None:
        return
    if type(value) is int and (-_COUNTS if least is None else least) <= value < _COUNTS:
        return
    bound = f"from {'-2**63' if least is None else least} to 2**63 - 1"
    raise InvalidRequest(f"{name} must be a whole number {bound}, not {shown(value)}")


def check_time(value: Any, name: str) -> None:
    """Refuse what is neither a time nor ``None``.

    Raises:
        InvalidRequest: It is something else, such as a text.
    """
    if value is not None and not isinstance(value, datetime):
        raise InvalidRequest(f"{name} must be a datetime, not {shown(value)}")


def check_name(name: Any, what: str) -> str:
    """Return a name as plain ``str``; refuse what cannot be one.

    Raises:
        InvalidRequest: It is no text, is empty, or has a lone surrogate.
    """
    if not isinstance(name, str) or not name or len(name) > 1000:
        raise InvalidRequest(f"{what} is text of 1 to 1,000 characters, not {shown(name)}")
    return check_text(name, what)


def checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags, each once.

    Raises:
        InvalidRequest: They are no list of names.
    """
    if isinstance(tags, str) or not isinstance(tags, Collection):
        raise InvalidRequest(f"tags must be a list of names, not {shown(tags)}")
    return tuple(dict.fromkeys(check_name(tag, "a tag") for tag in tags))
