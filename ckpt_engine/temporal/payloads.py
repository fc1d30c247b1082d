"""A step's result as the store keeps it: the encoded payload, exactly as Temporal would have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from temporalio.api.common.v1 import Payload

__all__ = ["from_stored", "readable", "to_stored"]


def to_stored(
    payload: Payload, keep: str = "all", redacted: Payload | None = None
) -> dict[str, Any]:
    """Return the form to store of an encoded payload, as much of it as ``keep`` says.

    Args:
        payload: The result.
        keep: ``all``, ``digest`` or ``nothing``.
        redacted: What is to be kept in its place, encoded as well.
    """
    if redacted is not None:
        return {"kept": "redacted", "metadata": dict(redacted.metadata), "data": redacted.data}
    if keep == "nothing":
        return {"kept": "nothing"}
    if keep == "digest":
        digest = blake2b(payload.SerializeToString(deterministic=True), digest_size=16).hexdigest()
        return {"kept": "digest", "digest": digest}
    return {"kept": "all", "metadata": dict(payload.metadata), "data": payload.data}


def from_stored(stored: Any) -> Payload | None:
    """Return the payload, or ``None`` where it was not kept as it was."""
    return _payload(stored, "all")


def _payload(stored: Any, *kept: str) -> Payload | None:
    if not isinstance(stored, dict) or stored.get("kept") not in kept:
        return None
    return Payload(metadata=stored["metadata"], data=stored["data"])


def readable(stored: Any, decode: Callable[[Payload], Payload] | None = None) -> Any:
    """Return a stored result for people: JSON decoded, anything else described.

    Args:
        stored: The result as it is stored.
        decode: Undoes the codec of an application that encrypts its payloads.
    """
    if isinstance(stored, list):
        return [readable(item, decode) for item in stored]
    payload = _payload(stored, "all", "redacted")
    if payload is None:
        return stored
    if decode is not None:
        payload = decode(payload)
    encoding = payload.metadata.get("encoding", b"").decode(errors="replace")
    if encoding == "json/plain":
        try:
            return json.loads(payload.data)
        except ValueError:
            pass
    if encoding == "binary/null":
        return None
    return {"encoding": encoding, "bytes": len(payload.data)}
