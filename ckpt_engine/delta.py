"""The difference between two states, and the state a difference leads to.

A state is an object whose values are packed (key -> bytes), in order. Comparing packed bytes tells
``1``, ``1.0`` and ``True`` apart, which ``==`` does not. Objects and lists inside are compared
part by part, so that a long list that grew by one item costs one item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .codec import NIL, join_array, join_map, split_array, split_map
from .errors import Corrupted

__all__ = ["State", "apply", "base_depth", "diff"]

State = Mapping[str, bytes]
"""Key -> packed value, in order."""

KEYFRAME_EVERY = 32
_WORTH = 64  # bytes from which on a value is worth looking into
_pack = msgspec.msgpack.Encoder().encode
_EMPTY = _pack([])


def base_depth(depth: int) -> int | None:
    """Return the depth of the state that the state at ``depth`` is a delta against.

    It is ``depth`` with its lowest bit cleared, which is always among the bases of the state
    before; a state has at most five of them. ``None`` for a keyframe.
    """
    return None if depth % KEYFRAME_EVERY == 0 else depth & (depth - 1)


def diff(old: State, new: State) -> bytes:
    """Return the packed difference that leads from ``old`` to ``new``, order of keys included."""
    sets: dict[str, bytes] = {}
    patches: dict[str, bytes] = {}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        patch = _patch(before, value) if before is not None else None
        if patch is None:
            sets[key] = value
        else:
            patches[key] = patch
    before_keys, keys = list(old), list(new)
    removed: list[str] = []
    order = NIL
    if before_keys != keys:
        removed = [key for key in before_keys if key not in new]
        natural = [key for key in before_keys if key in new]
        natural += [key for key in sets if key not in old]
        order = NIL if natural == keys else _pack(keys)
    gone = _pack(removed) if removed else _EMPTY
    return join_array((join_map(sets), join_map(patches), gone, order))


def _patch(old: bytes, new: bytes) -> bytes | None:
    """Return how to change one value, if that is shorter than the new value."""
    if len(new) < _WORTH:
        return None
    patch: bytes | None = None
    if _is_map(old) and _is_map(new):
        patch = join_array([_pack(0), diff(split_map(old), split_map(new))])
    elif _is_array(old) and _is_array(new):
        before, after = split_array(old), split_array(new)
        keep = _common(before, after)
        patch = join_array([_pack(1), _pack(keep), join_array(after[keep:])])
    return patch if patch is not None and len(patch) < len(new) // 2 else None


def _common(first: list[bytes], second: list[bytes]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _is_map(packed: bytes) -> bool:
    return 0x80 <= packed[0] <= 0x8F or packed[0] in (0xDE, 0xDF)


def _is_array(packed: bytes) -> bool:
    return 0x90 <= packed[0] <= 0x9F or packed[0] in (0xDC, 0xDD)


def apply(old: State, change: bytes) -> dict[str, bytes]:
    """Return the state that :func:`diff` was given as ``new``.

    Raises:
        Corrupted: ``change`` is not a difference from ``old``.
    """
    try:
        packed_sets, packed_patches, packed_removed, packed_order = split_array(change)
        removed = set(msgspec.msgpack.decode(packed_removed))
        new = {key: value for key, value in old.items() if key not in removed}
        for key, patch in split_map(packed_patches).items():
            new[key] = _patched(new[key], patch)
        new.update(split_map(packed_sets))
        order = msgspec.msgpack.decode(packed_order)
        return new if order is None else {key: new[key] for key in order}
    except (KeyError, IndexError, ValueError, TypeError, msgspec.MsgspecError) as err:
        raise Corrupted(f"a stored change of the state cannot be applied: {err!r}") from err


def _patched(old: bytes, patch: bytes) -> bytes:
    kind, *rest = split_array(patch)
    parts: tuple[Callable[..., Any], ...] = (_patched_map, _patched_array)
    new: bytes = parts[msgspec.msgpack.decode(kind)](old, *rest)
    return new


def _patched_map(old: bytes, change: bytes) -> bytes:
    return join_map(apply(split_map(old), change))


def _patched_array(old: bytes, keep: bytes, tail: bytes) -> bytes:
    return join_array(split_array(old)[: msgspec.msgpack.decode(keep)] + split_array(tail))
