"""Temporal's payloads encrypted with the keys that also encrypt the checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec

if TYPE_CHECKING:
    from ckpt_engine import Keyring

__all__ = ["EncryptionCodec", "data_converter"]

_ENCODING = b"binary/encrypted"
_KEY = "encryption-key-id"


class EncryptionCodec(PayloadCodec):
    """Encrypts every payload with a keyring's current key, and opens those of its older keys.

    Use it as the codec of the client's data converter, and give the same keyring to the plugin::

        keys = Keyring.parse(os.environ["CKPT_KEYS"])
        converter = dataclasses.replace(DataConverter.default, payload_codec=EncryptionCodec(keys))
        plugins = [CheckpointPlugin(url, keys=keys)]

    Payloads that are not encrypted are let through when read, so that it can be added to an
    application whose workflows are running.

    Raises:
        WrongKey: A payload was sealed with a key that the keyring lacks.
    """

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads encrypted."""
        return [self._sealed(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads as they were."""
        return [self.opened(payload) for payload in payloads]

    def _sealed(self, payload: Payload) -> Payload:
        return Payload(
            metadata={"encoding": _ENCODING, _KEY: self._keys.current.encode()},
            data=self._keys.seal(payload.SerializeToString(), _ENCODING),
        )

    def opened(self, payload: Payload) -> Payload:
        """Return one payload as it was."""
        if payload.metadata.get("encoding") != _ENCODING:
            return payload
        name = payload.metadata.get(_KEY, b"").decode(errors="replace")
        return Payload.FromString(self._keys.open(name, payload.data, _ENCODING))


def data_converter(keys: Keyring | None) -> DataConverter:
    """Return the converter for pydantic models, which encrypts where there are keys."""
    if keys is None:
        return pydantic_data_converter
    return dataclasses.replace(pydantic_data_converter, payload_codec=EncryptionCodec(keys))
