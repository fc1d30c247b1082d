"""Values given on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .errors import CliError, Exit

__all__ = ["key_values", "object_of"]


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` pairs; a value that is not JSON is text.

    Raises:
        CliError: One of them has no ``=``.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CliError(f"--set {pair!r} is not KEY=VALUE", "", Exit.USAGE)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def object_of(option: str, text: str | None) -> dict[str, Any]:
    """Return a JSON object; an empty one when absent.

    Raises:
        CliError: It is something else.
    """
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as err:
        raise CliError(f"{option} is not JSON: {err}", "", Exit.USAGE) from None
    if not isinstance(value, dict):
        raise CliError(f"{option} must be a JSON object", "", Exit.USAGE)
    return value
