"""Keys: what content and payloads are encrypted with (AES-256-GCM of the ``cryptography`` package).

A keyring has one current key, which seals, and any number of older ones, which only open what was
sealed with them. The engine keeps its content under it (``create_checkpoint_engine(url,
keys=...)``), and so does the codec for Temporal's payloads
(:class:`ckpt_engine.temporal.EncryptionCodec`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .checks import check_object, check_text
from .errors import InvalidRequest, WrongKey, shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "Keyring", "aes_gcm", "new_key"]

KEY_BYTES = 32
"""Length of a key."""

_NONCE = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def aes_gcm(key: bytes) -> AESGCM:
    """Return the cipher of a key.

    Raises:
        InvalidRequest: The ``cryptography`` package is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise InvalidRequest(
            "keys need the package cryptography: pip install 'ckpt-engine[encryption]'"
        ) from None
    return AESGCM(key)


def new_key(name: str) -> str:
    """Return a new random key in the form that :meth:`Keyring.parse` reads.

    Raises:
        InvalidRequest: The name is odd.
    """
    _check_name(name)
    return f"{name}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{shown(name)} is no name of a key: letters, digits, . _ - (63)")


class Keyring:
    """One key to seal with, and older ones that still open what they sealed.

    Args:
        keys: Name -> 32 bytes; the first is the current one. Names are stored in the clear.

    Raises:
        InvalidRequest: There is none, a name is odd, or a key is not 32 bytes long.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        check_object(keys, "keys")
        if not keys:
            raise InvalidRequest("a keyring needs a key; make one with: ckpt key new")
        for name, key in keys.items():
            _check_name(name)
            if not isinstance(key, (bytes, bytearray, memoryview)):
                raise InvalidRequest(f"key {name!r} is a {type(key).__name__}, not bytes")
            if len(key) != KEY_BYTES:
                raise InvalidRequest(f"key {name!r} has {len(key)} bytes; {KEY_BYTES} are needed")
        self.current = next(iter(keys))
        self._ciphers = {name: aes_gcm(bytes(key)) for name, key in keys.items()}

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Return the keyring written as ``name:base64, older:base64``, the current key first.

        Raises:
            InvalidRequest: It is not written like that; no key is shown in the message.
        """
        keys: dict[str, bytes] = {}
        check_text(text, "a keyring")
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, found, encoded = part.partition(":")
            try:
                key = base64.b64decode(encoded.strip(), validate=True)
            except (binascii.Error, ValueError):
                found = ""
            if not found or not name:
                raise InvalidRequest(
                    "keys are written name:base64, separated by commas, the current one first; "
                    "make one with: ckpt key new"
                )
            if name in keys:
                raise InvalidRequest(f"there are two keys of the name {name!r}")
            keys[name] = key
        return cls(keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all keys, the current one first."""
        return tuple(self._ciphers)

    def seal(self, content: bytes, about: bytes = b"") -> bytes:
        """Return ``content`` encrypted with the current key; ``about`` is bound to it, not kept."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[self.current].encrypt(nonce, content, about)

    def open(self, name: str, sealed: bytes, about: bytes = b"") -> bytes:
        """Return what the key ``name`` sealed.

        Raises:
            WrongKey: The keyring has no such key, it is another one, or the bytes were changed.
        """
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise WrongKey(
                f"this was encrypted with the key {name!r}; the keyring has only "
                f"{', '.join(self._ciphers)}: add {name!r} behind them"
            )
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
        except (InvalidTag, ValueError):
            raise WrongKey(
                f"the key given as {name!r} does not open what was encrypted under that name: it "
                "is another key, or the bytes were changed"
            ) from None
