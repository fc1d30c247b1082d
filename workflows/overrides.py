"""What a rewind or a branch may change in the shipped agent, checked before anything is stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ckpt_engine.errors import InvalidRequest

if TYPE_CHECKING:
    from ckpt_engine.temporal.contract import Overrides

__all__ = ["check_overrides"]

_NODES = ("model", "tools", "end")
_ROLES = ("user", "system", "assistant")
_KINDS = ("request", "response")


def _is_limit(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("a model's name", lambda value: isinstance(value, str)),
    "instructions": ("text", lambda value: isinstance(value, str)),
    "settings": ("an object", lambda value: isinstance(value, Mapping)),
    "compact": ("an object", lambda value: isinstance(value, Mapping)),
    "usage": ("an object", lambda value: isinstance(value, Mapping)),
    "max_steps": ("a whole number of at least 1", _is_limit),
}


def check_overrides(overrides: Overrides) -> None:
    """Refuse what the agent could not go on with.

    Raises:
        InvalidRequest: A message, a key of the state or the next node; says which, and what
            would be right.
    """
    for number, message in enumerate(overrides.messages, 1):
        _check_message(number, message)
    for key, value in overrides.state_patch().items():
        expected, fits = _KEYS.get(key, ("", None))
        if fits is not None and value is not None and not fits(value):
            raise InvalidRequest(f"the state key {key!r} must be {expected}, not {value!r}")
    if overrides.next_node is not None and overrides.next_node not in _NODES:
        raise InvalidRequest(
            f"next_node must be one of {', '.join(_NODES)}, not {overrides.next_node!r}"
        )


def _check_message(number: int, message: Mapping[str, Any]) -> None:
    if message.get("kind") in _KINDS and isinstance(message.get("parts"), list):
        return
    if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
        raise InvalidRequest(
            f"extra message {number} must be an object with a role ({', '.join(_ROLES)}) and a "
            f"content that is text, not {message!r}"
        )
