"""Copying everything from one database into another, row by row: ids and digests stay.

Rows are copied as they are stored, so an encrypted database needs no key for it, and its copy has
its data key. A target that encrypts what it is given makes an encrypted copy of one that is not.
Where the copy stands is written to the target in the same transactions as the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from ..errors import Conflict, InvalidRequest, SchemaMismatch, StoreBusy
from ..store import TABLES, Above, Batch, Blob, Meta, StateRow, Store, ThreadRow, Tx
from .encrypted import ENCRYPTION, EncryptedStore, check_plain
from .schema import FLOORS

if TYPE_CHECKING:
    from ..keys import Keyring

__all__ = ["Progress", "check_copied", "copy_store"]

Progress = Callable[[str, int, int], None]
"""Is told of a table how many of its rows were copied, and of how many."""

_MARK = "copy"
_OWN = ("floor:", _MARK, ENCRYPTION)  # facts that a database has of its own
_PAGE = 500
_LARGE = {Batch: 100, StateRow: 200, Blob: 20}
_FIRST: dict[type, Any] = {int: -(2**63), str: "", bytes: b""}
_ROUNDS = 3


async def check_copied(store: Store) -> None:
    """Refuse a database into which a copy was begun and not finished.

    Raises:
        SchemaMismatch: With what to run.
    """
    found = await store.read(lambda tx: tx.one(Meta, key=_MARK))
    if found is not None:
        source = json.loads(found.value)["source"]
        raise SchemaMismatch(
            f"{store.url} is a copy of {source} that was not finished: run `ckpt db copy` again"
        )


async def copy_store(
    source: Store, target: Store, progress: Progress, keys: Keyring | None = None
) -> dict[str, int]:
    """Copy every row, or go on where that was interrupted, and compare all of it at the end.

    Args:
        source: A database, as it is.
        target: Another one, as it is.
        progress: Is told how far it is.
        keys: Encrypt the copy, if the source is not encrypted.

    Returns:
        Table -> rows in it.

    Raises:
        InvalidRequest: The target has checkpoints of its own, or is a copy of another database.
        StoreBusy: The source was changed meanwhile.
        WrongKey: The target is an encrypted copy that was begun with other keys.
    """
    secret = await source.read(lambda tx: tx.one(Meta, key=ENCRYPTION))
    if secret is None and keys is not None:
        target = await EncryptedStore.over(target, keys)
    elif secret is None:
        await check_plain(target)
    done = await target.write(partial(_begin, source=source.url, target=target.url, secret=secret))
    for table in TABLES:
        try:
            await _copy_table(source, target, table, done, progress)
        except Conflict:  # rows were packed in the source since it was begun
            await _copy_anew(source, target, table, done, progress)
    different: dict[type[Any], int] = {}
    for _ in range(_ROUNDS):
        counts, different = await _compare(source, target)
        if not different:
            break
        for table in different:  # changed in the source since it was copied
            await _copy_anew(source, target, table, done, progress)
    if different:
        names = ", ".join(TABLES[table].name for table in different)
        raise StoreBusy(
            f"{source.url} is not what was copied of it ({names}): stop its workers, copy again; "
            "if they are stopped, look with `ckpt verify`"
        )
    tops = {table: await source.write(_top(table)) for table in FLOORS}
    await target.write(partial(_finish, tops=tops))
    return {TABLES[table].name: count for table, count in counts.items()}


def _begin(tx: Tx, *, source: str, target: str, secret: Meta | None) -> dict[str, Any]:
    """Return the last key that was copied of each table."""
    mark = tx.one(Meta, key=_MARK)
    if mark is None:
        if tx.count(ThreadRow):
            raise InvalidRequest(f"{target} has checkpoints already: copy into an empty database")
        done: dict[str, Any] = {}
        tx.insert(_marked(source, done), *([secret] if secret else []))
        return {"source": source, "tables": done}
    found: dict[str, Any] = json.loads(mark.value)
    if found["source"] != source:
        raise InvalidRequest(
            f"{target} is an unfinished copy of {found['source']}, not of {source}"
        )
    return found


def _marked(source: str, tables: dict[str, Any]) -> Meta:
    return Meta(_MARK, json.dumps({"source": source, "tables": tables}))


async def _copy_table(
    source: Store, target: Store, table: type[Any], done: dict[str, Any], progress: Progress
) -> None:
    name = TABLES[table].name
    total = await source.read(lambda tx: len(_keys(tx)) if table is Meta else tx.count(table))
    copied = await target.read(lambda tx: len(_keys(tx)) if table is Meta else tx.count(table))
    progress(name, copied, total)
    while rows := await source.read(partial(_page, table=table, after=_last(table, done))):
        key = rows[-1][0]
        done["tables"][name] = key.hex() if isinstance(key, bytes) else key
        await target.write(partial(_put, rows=rows, done=done))
        copied += len(rows)
        progress(name, copied, total)


async def _copy_anew(
    source: Store, target: Store, table: type[Any], done: dict[str, Any], progress: Progress
) -> None:
    await target.write(partial(_empty, table=table, done=done))
    with contextlib.suppress(Conflict):  # being changed right now: the comparison will say so
        await _copy_table(source, target, table, done, progress)


def _keys(tx: Tx) -> list[str]:
    return [row.key for row in tx.find(Meta) if not row.key.startswith(_OWN)]


def _last(table: type[Any], done: dict[str, Any]) -> Any:
    """Return the last key that was copied, or one before the first."""
    kind, last = _key_type(table), done["tables"].get(TABLES[table].name)
    if last is None:
        return _FIRST[kind]
    return bytes.fromhex(last) if kind is bytes else last


def _page(tx: Tx, *, table: type[Any], after: Any) -> list[Any]:
    """Return the next rows by the first column of the key, all of the same value together."""
    if table is Meta:  # there are few
        return [r for r in tx.find(Meta, key=Above(after)) if not r.key.startswith(_OWN)]
    column, most = TABLES[table].key[0], _LARGE.get(table, _PAGE)
    rows: list[Any] = tx.find(table, "", most, **{column: Above(after)})
    if len(rows) == most and len(TABLES[table].key) > 1:
        last = rows[-1][0]
        whole = [row for row in rows if row[0] != last]
        rows = whole or tx.find(table, **{column: last})
    return rows


def _put(tx: Tx, *, rows: list[Any], done: dict[str, Any]) -> None:
    tx.insert(*rows)
    tx.update(_marked(done["source"], done["tables"]))


def _empty(tx: Tx, *, table: type[Any], done: dict[str, Any]) -> None:
    done["tables"].pop(TABLES[table].name, None)
    column = TABLES[table].key[0]
    if table is Meta:
        for key in _keys(tx):
            tx.delete(Meta, key=key)
    else:
        tx.delete(table, **{column: Above(_FIRST[_key_type(table)])})
    tx.update(_marked(done["source"], done["tables"]))


async def _compare(
    source: Store, target: Store
) -> tuple[dict[type[Any], int], dict[type[Any], int]]:
    """Return how many rows each table has, and those tables whose rows are not the same."""
    counts, different = {}, {}
    for table in TABLES:
        theirs, ours = await _digest(source, table), await _digest(target, table)
        counts[table] = ours[0]
        if theirs != ours:
            different[table] = theirs[0]
    return counts, different


async def _digest(store: Store, table: type[Any]) -> tuple[int, bytes]:
    """Return the number of a table's rows, and a digest over all of them in order."""
    count, over, after = 0, hashlib.blake2b(digest_size=16), _FIRST[_key_type(table)]
    while rows := await store.read(partial(_page, table=table, after=after)):
        for row in rows:
            over.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
        count, after = count + len(rows), rows[-1][0]
    return count, over.digest()


def _key_type(table: type[Any]) -> type:
    kind: type = get_type_hints(table)[TABLES[table].key[0]]
    return kind


def _top(table: type[Any]) -> Callable[[Tx], int]:
    return lambda tx: tx.next_pk(table) - 1


def _finish(tx: Tx, *, tops: dict[type[Any], int]) -> None:
    for table, top in tops.items():
        tx.keep_above(table, top)
    tx.delete(Meta, key=_MARK)
