"""Any store with its content encrypted: what is written goes out sealed, what is read comes back.

Content is messages, states, large values, results, metadata, and why a head was moved. Each
database has a random data key of its own, which is kept in it, wrapped by a key of the user's
keyring; so a new key of the user's is taken up by wrapping the data key again, and no row changes.
Digests are encrypted one to one, so that equal content is still stored once. Names of threads,
branches, tags, nodes and workflows, times and counts are plain, as Temporal's own ids are.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar, cast

from ..errors import Corrupted, InvalidRequest, WrongKey
from ..keys import KEY_BYTES, Keyring, aes_gcm
from ..observe import Observer
from ..store import (
    TABLES,
    Batch,
    Blob,
    CheckpointRow,
    Cond,
    Expect,
    HeadMoveRow,
    In,
    Meta,
    R,
    Row,
    StateRow,
    Store,
    ThreadRow,
    Tx,
    crc_of,
    sealed,
)

__all__ = ["ENCRYPTION", "EncryptedStore", "check_plain"]

T = TypeVar("T")
ENCRYPTION = "encryption"
"""The fact under which a database keeps its data key, wrapped."""

_BLOCK = 16
_BODIES: dict[type[Any], tuple[str, ...]] = {
    Batch: ("body",),
    StateRow: ("body",),
    Blob: ("body",),
    CheckpointRow: ("meta", "result", "logs"),
    HeadMoveRow: ("why",),
}
_DIGESTS: dict[type[Any], tuple[str, ...]] = {
    Blob: ("digest",),
    CheckpointRow: ("chain", "digest"),
}


class _Cipher:
    """Encrypts the columns of rows with a database's data key."""

    def __init__(self, data_key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

        def derived(use: bytes) -> bytes:
            return HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=use).derive(data_key)

        self._bodies = aes_gcm(derived(b"ckpt bodies"))
        # A digest is one block, and a single block under AES is a permutation: nothing repeats
        # but what is equal anyway.
        self._blocks = Cipher(algorithms.AES(derived(b"ckpt digests")), modes.ECB())  # noqa: S305
        self._invalid = InvalidTag

    def out(self, row: R) -> R:
        """Return the row as it is stored."""
        table = type(row)
        changed: dict[str, Any] = {}
        for column in _BODIES.get(table, ()):
            value = getattr(row, column)
            if value is not None:
                changed[column] = self._sealed(value, _about(table, column, _keys(row)))
        for column in _DIGESTS.get(table, ()):
            changed[column] = self.digest_out(getattr(row, column))
        return cast("Any", row)._replace(**changed) if changed else row

    def back(self, row: R) -> R:
        """Return the row as it was given; what cannot be opened stays as it is, to be found out."""
        table = type(row)
        changed: dict[str, Any] = {}
        for column in _BODIES.get(table, ()):
            value = getattr(row, column)
            if value is not None:
                changed[column] = self.opened(value, _about(table, column, _keys(row)))
        for column in _DIGESTS.get(table, ()):
            changed[column] = self._digest_back(getattr(row, column))
        if not changed:
            return row
        found = cast("Any", row)._replace(**changed)
        intact = row._fields[-1] == "crc" and crc_of(row) == cast("Any", row).crc
        return cast("R", sealed(found)) if intact else cast("R", found)

    def _sealed(self, value: bytes | str, about: bytes) -> bytes | str:
        nonce = os.urandom(12)
        plain = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        body = nonce + self._bodies.encrypt(nonce, plain, about)
        return base64.b64encode(body).decode() if isinstance(value, str) else body

    def opened(self, value: bytes | str, about: bytes) -> bytes | str:
        """Return a sealed value as it was given; one that cannot be opened as it is."""
        try:
            body = base64.b64decode(value) if isinstance(value, str) else value
            plain = self._bodies.decrypt(body[:12], body[12:], about)
        except (self._invalid, ValueError, TypeError):  # the last one: it is no text, no bytes
            return value
        return plain.decode("utf-8", "surrogatepass") if isinstance(value, str) else plain

    def digest_out(self, digest: bytes) -> bytes:
        """Return a digest as it is stored."""
        if len(digest) != _BLOCK:
            return digest
        return self._blocks.encryptor().update(digest)

    def _digest_back(self, digest: bytes) -> bytes:
        if not isinstance(digest, bytes) or len(digest) != _BLOCK:
            return digest
        return self._blocks.decryptor().update(digest)


def _about(table: type[Any], column: str, keys: Iterable[Any]) -> bytes:
    """Return what a sealed value is bound to: its place."""
    return f"{TABLES[table].name}.{column}.{'.'.join(map(str, keys))}".encode()


def _keys(row: Row) -> list[Any]:
    return [getattr(row, key) for key in TABLES[type(row)].key]


class _EncryptedTx(Tx):
    """A transaction whose rows are encrypted on their way out and decrypted on their way in."""

    def __init__(self, inner: Tx, cipher: _Cipher) -> None:
        self._inner = inner
        self._cipher = cipher

    @property
    def meta_keys(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self._inner.meta_keys, ENCRYPTION)

    def find(
        self, table: type[R], order: str = "", limit: int | None = None, **where: Cond
    ) -> list[R]:
        rows = self._inner.find(table, order, limit, **self._where(table, where))
        return [self._cipher.back(row) for row in rows] if table in _BODIES else rows

    def columns(self, table: type[R], *names: str, **where: Cond) -> list[list[Any]]:
        if not set(names).isdisjoint(_DIGESTS.get(table, ())):
            return super().columns(table, *names, **where)
        keys = TABLES[table].key
        found = self._inner.columns(table, *keys, *names, **self._where(table, where))
        for place, name in enumerate(names, len(keys)):
            if name in _BODIES.get(table, ()):
                found[place] = [
                    value if value is None else self._cipher.opened(value, _about(table, name, at))
                    for value, *at in zip(found[place], *found[: len(keys)], strict=True)
                ]
        return found[len(keys) :]

    def count(self, table: type[R], **where: Cond) -> int:
        return self._inner.count(table, **self._where(table, where))

    def insert(self, *rows: Row) -> None:
        self._inner.insert(*map(self._cipher.out, rows))

    def update(self, *rows: Row) -> None:
        self._inner.update(*map(self._cipher.out, rows))

    def delete(self, table: type[R], **where: Cond) -> int:
        return self._inner.delete(table, **self._where(table, where))

    def damage(self) -> list[str]:
        return self._inner.damage()

    def forgive(self) -> None:
        self._inner.forgive()

    def next_pk(self, table: type[R]) -> int:
        return self._inner.next_pk(table)

    def keep_above(self, table: type[R], top: int) -> None:
        self._inner.keep_above(table, top)

    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        return self._inner.match_ids(prefix, limit)

    def thread(self, name: str) -> ThreadRow | None:
        return self._inner.thread(name)

    def checkpoint(self, stored_id: bytes) -> CheckpointRow | None:
        row = self._inner.checkpoint(stored_id)
        return self._cipher.back(row) if row is not None else None

    def _where(self, table: type[Any], where: dict[str, Cond]) -> dict[str, Cond]:
        for column in _DIGESTS.get(table, ()):
            wanted = where.get(column)
            if isinstance(wanted, In):
                values = In([self._cipher.digest_out(value) for value in wanted.values])
                where = {**where, column: values}
            elif isinstance(wanted, bytes):
                where = {**where, column: self._cipher.digest_out(wanted)}
        return where


class EncryptedStore(Store):
    """A store whose content only the holders of a key can read."""

    def __init__(self, inner: Store, cipher: _Cipher) -> None:
        self.url = inner.url
        self.reclaim_after = inner.reclaim_after
        self._inner = inner
        self._cipher = cipher

    @classmethod
    async def over(cls, inner: Store, keys: Keyring) -> EncryptedStore:
        """Return the store encrypted; a new one gets its data key, and a new key is taken up.

        Raises:
            WrongKey: The database's data key was wrapped by a key that ``keys`` lacks.
            InvalidRequest: The database holds content in the clear.
        """
        found = await inner.read(lambda tx: tx.one(Meta, key=ENCRYPTION))
        if found is None or json.loads(found.value)["key"] != keys.current:
            data_key = await inner.write(partial(_take_up, keys=keys, url=inner.url))
        else:
            data_key = _unwrapped(found, keys, inner.url)
        return cls(inner, _Cipher(data_key))

    @property
    def observer(self) -> Observer | None:
        return self._inner.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._inner.observer = observer

    async def read(self, work: Callable[[Tx], T]) -> T:
        return await self._inner.read(lambda tx: work(_EncryptedTx(tx, self._cipher)))

    async def write(self, work: Callable[[Tx], T], expect: Expect | None = None) -> T:
        return await self._inner.write(lambda tx: work(_EncryptedTx(tx, self._cipher)), expect)

    async def reclaim(self, *, erase: bool = False, thorough: bool = False) -> None:
        await self._inner.reclaim(erase=erase, thorough=thorough)

    async def write_back(self) -> None:
        await self._inner.write_back()

    async def size(self) -> int:
        return await self._inner.size()

    async def close(self) -> None:
        await self._inner.close()


async def check_plain(store: Store) -> None:
    """Refuse to read an encrypted database without a key.

    Raises:
        WrongKey: It is encrypted.
    """
    found = await store.read(lambda tx: tx.one(Meta, key=ENCRYPTION))
    if found is not None:
        raise WrongKey(
            f"{store.url} is encrypted with the key {json.loads(found.value)['key']!r}: give it as "
            "keys=Keyring(...), or to the command line as CKPT_KEYS"
        )


def _take_up(tx: Tx, *, keys: Keyring, url: str) -> bytes:
    """Return the data key, made or wrapped anew with the current key."""
    found = tx.one(Meta, key=ENCRYPTION)
    if found is not None:
        data_key = _unwrapped(found, keys, url)
        tx.delete(Meta, key=ENCRYPTION)
    elif tx.count(ThreadRow):
        raise InvalidRequest(
            f"{url} was begun without keys, so its content is in the clear: with the keys set, "
            "`ckpt db copy` makes an encrypted copy of it"
        )
    else:
        data_key = os.urandom(KEY_BYTES)
    wrapped = base64.b64encode(keys.seal(data_key, ENCRYPTION.encode())).decode()
    tx.insert(Meta(ENCRYPTION, json.dumps({"key": keys.current, "wrapped": wrapped})))
    return data_key


def _unwrapped(row: Meta, keys: Keyring, url: str) -> bytes:
    fact = json.loads(row.value)
    try:
        return keys.open(fact["key"], base64.b64decode(fact["wrapped"]), ENCRYPTION.encode())
    except WrongKey as err:
        raise WrongKey(f"{url} cannot be opened: {err}") from None
    except (KeyError, ValueError):
        raise Corrupted(f"{url}: the row of its data key is damaged") from None
