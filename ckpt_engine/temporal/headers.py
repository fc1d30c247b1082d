"""The one header, as it is put into a payload and taken out of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload

from .contract import SessionHeader, StepHeader

__all__ = ["header_payload", "is_sent_again", "read_header", "read_step_header", "sent_again"]


def header_payload(value: SessionHeader | StepHeader) -> Payload:
    """Return a header as a plain JSON payload, whatever converter the application uses."""
    return Payload(metadata={"encoding": b"json/plain"}, data=value.to_json())


def read_step_header(payload: Payload | None) -> StepHeader | None:
    """Return the header of a step, or ``None`` where there is no header of ours.

    Raises:
        msgspec.ValidationError: It is one, but of a kind that this version cannot read.
    """
    if payload is None:
        return None
    try:
        return StepHeader.from_json(payload.data)
    except msgspec.DecodeError:
        if read_header(payload) is None:
            return None
        raise


def read_header(payload: Payload | None) -> dict[str, Any] | None:
    """Return the header's fields, or ``None`` where there is no header of ours."""
    if payload is None:
        return None
    try:
        value = json.loads(payload.data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def sent_again() -> Payload:
    """Return the header of a message that was sent before, to a run that this one replays."""
    return Payload(metadata={"encoding": b"json/plain"}, data=b'{"again":true}')


def is_sent_again(payload: Payload | None) -> bool:
    """Say whether a message is one from before the seed."""
    return bool((read_header(payload) or {}).get("again"))
