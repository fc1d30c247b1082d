"""A step's result as the store keeps it: the encoded payload, exactly as Temporal would have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from temporalio.api.common.v1 import Payload

__all__ = ["from_stored", "readable", "to_stored"]


def to_stored(payload: Payload, keep: str = "all") -> dict[str, Any]:
    """Return the form to store of an encoded payload, as much of it as ``keep`` says."""
    if keep == "nothing":
        return {"kept": "nothing"}
    if keep == "digest":
        digest = blake2b(payload.SerializeToString(), digest_size=16).hexdigest()
        return {"kept": "digest", "digest": digest}
    return {"kept": "all", "metadata": dict(payload.metadata), "data": payload.data}


def from_stored(stored: Any) -> Payload | None:
    """Return the payload, or ``None`` where it was not kept."""
    if not isinstance(stored, dict) or stored.get("kept") != "all":
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
    payload = from_stored(stored)
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
