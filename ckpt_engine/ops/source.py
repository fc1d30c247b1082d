"""Rows by what names them, from memory or from a transaction.

Preparing a checkpoint needs its parents and their state, which never change and mostly are
remembered. So it is first tried from memory alone; where something is missing, :class:`MissError`
says so and the same function runs again inside a read transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from ..checks import check_name
from ..codec import (
    decompress,
    digest_of,
    join_map,
    likely_references,
    split_array,
    split_map,
    unpack,
)
from ..delta import apply
from ..errors import CheckpointNotFound, Corrupted, ThreadNotFound
from ..model import id_from_bytes, id_to_bytes
from ..store import (
    Batch,
    Blob,
    CheckpointRow,
    Edge,
    In,
    Lineage,
    Span,
    StateRow,
    ThreadRow,
    Tx,
    Upto,
)
from .ahead import contents
from .cache import Lru
from .tombstones import check_unerased, thread_key

__all__ = [
    "MESSAGES",
    "Caches",
    "LoadedState",
    "MissError",
    "Names",
    "Piece",
    "Source",
    "batches",
    "clip",
    "id_text",
    "inherited_pieces",
]

MESSAGES = ""
"""The log of the conversation."""

_AHEAD = 64_000  # bytes of packed items that are looked through before they are unpacked
_HELD = 4_000_000  # bytes of large values that are held
_ROW = 2_000  # bytes of a checkpoint's row that count as one, where the rows used last are kept
_MOST = 400  # large values that are read together


class MissError(Exception):
    """Not in memory: run again with a transaction."""


class Piece(NamedTuple):
    """The items ``start`` to ``stop`` of a lineage's own rows."""

    lineage: int
    start: int
    stop: int


_decode_pieces = msgspec.msgpack.Decoder(dict[str, list[Piece]]).decode


class LoadedState(NamedTuple):
    """A state with its packed values, and where its row stands among the deltas."""

    pk: int | None
    base: int | None
    depth: int
    values: dict[str, bytes]
    digest: bytes


class Names(NamedTuple):
    """Who a thread is: its id and its session's."""

    thread: str
    session: str


EMPTY_STATE = LoadedState(None, None, -1, {}, b"")


class Caches:
    """What never changes once it is stored, and the last seen thread rows (checked when used)."""

    def __init__(self, limit_bytes: int) -> None:
        self.checkpoints: Lru[bytes, CheckpointRow] = Lru(20_000)
        self.cids: Lru[int, CheckpointRow] = Lru(20_000)
        self.lineages: Lru[int, Lineage] = Lru(5_000)
        self.states: Lru[int, LoadedState] = Lru(max(1, limit_bytes // 4))
        self.contents: Lru[bytes, Any] = Lru(max(1, limit_bytes))
        self.names: Lru[int, Names] = Lru(20_000)
        self.threads: Lru[str, ThreadRow] = Lru(20_000)

    def remember(self, row: CheckpointRow) -> None:
        """Keep a checkpoint's row for those that come after it."""
        size = 1 + (len(row.result or b"") + len(row.meta or b"")) // _ROW
        self.checkpoints.put(row.id, row, size)
        self.cids.put(row.cid, row, size)

    def remember_state(self, state: LoadedState) -> None:
        """Keep a state for those that come after it, if it has a row."""
        if state.pk is not None:
            size = 200 + 60 * len(state.values) + sum(map(len, state.values.values()))
            self.states.put(state.pk, state, size)

    def clear(self) -> None:
        """Forget everything."""
        for cache in vars(self).values():
            cache.clear()


class TxBlobs(dict[bytes, bytes]):
    """Blobs by digest, read when they are asked for; a ``MissError`` without a transaction.

    With one that is asked for come those that are expected next: at first a few, since nobody
    knows how large they are. What is held is forgotten once it is more than :data:`_HELD`.
    """

    def __init__(self, tx: Tx | None) -> None:
        super().__init__()
        self._tx = tx
        self._expected: deque[bytes] = deque()
        self._many = 1  # are read together, the next time
        self._size = 0

    def expect(self, packed: bytes) -> None:
        """Note that the blobs which a packed value names will be asked for, in their order."""
        self._expected += likely_references(packed)

    def __missing__(self, digest: bytes) -> bytes:
        if self._tx is None:
            raise MissError
        if self._size > _HELD:
            self.clear()
            self._size = 0
        largest = 1
        rows = self._tx.find(Blob, digest=In(self._next(digest)))
        while rows:
            row = rows.pop()
            content = self[row.digest] = decompress(row.codec, row.body)
            self._size += len(content)
            largest = max(largest, len(content))
        self._many = max(1, min(4 * self._many, _MOST, _HELD // largest))
        found = self.get(digest)
        if found is None:
            raise Corrupted(f"a large value is missing: blob {digest.hex()}")
        if len(found) > _HELD:  # what is made of it is as large
            del self[digest]
            self._size -= len(found)
        return found

    def _next(self, digest: bytes) -> list[bytes]:
        """Return this digest and those that are to be read with it."""
        wanted = {digest: None}
        while self._expected and len(wanted) < self._many:
            following = self._expected.popleft()
            if following not in self:
                wanted[following] = None
        return list(wanted)


class Source:
    """Looks rows up; without a transaction, in memory only."""

    def __init__(self, caches: Caches, tx: Tx | None = None, *, writes: bool = False) -> None:
        self._caches = caches
        self._tx = tx
        self._keep = not writes  # what a transaction wrote may yet be rolled back
        self._blobs: TxBlobs | None = None
        self._recent: dict[int, bytes] = {}
        self._states: dict[int, StateRow] = {}

    @property
    def tx(self) -> Tx:
        """The transaction.

        Raises:
            MissError: There is none.
        """
        if self._tx is None:
            raise MissError
        return self._tx

    @property
    def blobs(self) -> TxBlobs:
        """Large values by digest."""
        if self._blobs is None:
            self._blobs = TxBlobs(self._tx)
        return self._blobs

    # --- threads ---

    def thread(self, name: str) -> ThreadRow:
        """Return a thread; from memory it may be out of date.

        Raises:
            InvalidRequest: This is no name.
            ThreadNotFound: There is none of this name.
            Erased: It was erased.
        """
        name = check_name(name, "a thread id")
        if self._tx is None and (row := self._caches.threads.get(name)) is not None:
            return row
        row = self.tx.thread(name)
        if row is None:
            check_unerased(self.tx, thread_key(name), f"thread {name!r}")
            raise ThreadNotFound(f"there is no thread {name!r}")
        if self._keep:
            self._caches.threads.put(name, row)
        return row

    def maybe_thread(self, name: str) -> ThreadRow | None:
        """Return a thread, or ``None``."""
        try:
            return self.thread(name)
        except ThreadNotFound:
            return None

    def thread_by_pk(self, pk: int) -> ThreadRow:
        """Return a thread by key."""
        row = self.tx.one(ThreadRow, pk=pk)
        if row is None:
            raise Corrupted(f"the row of thread {pk} is missing")
        return row

    def names(self, thread_pk: int) -> Names:
        """Return a thread's id and its session's."""
        found = self._caches.names.get(thread_pk)
        if found is None:
            row = self.thread_by_pk(thread_pk)
            root = row if row.session == row.pk else self.thread_by_pk(row.session)
            found = Names(row.name, root.name)
            if self._keep:
                self._caches.names.put(thread_pk, found)
        return found

    # --- checkpoints ---

    def checkpoint(self, checkpoint_id: str) -> CheckpointRow:
        """Return a checkpoint's row.

        Raises:
            InvalidRequest: This is no id.
            CheckpointNotFound: No checkpoint has it.
            Erased: It was erased.
        """
        row = self.maybe_checkpoint(id_to_bytes(checkpoint_id))
        if row is None:
            check_unerased(self.tx, id_to_bytes(checkpoint_id), f"checkpoint {checkpoint_id}")
            raise CheckpointNotFound(f"there is no checkpoint {checkpoint_id}")
        return row

    def maybe_checkpoint(self, stored: bytes) -> CheckpointRow | None:
        """Return a checkpoint's row by stored id, or ``None``."""
        row = self._caches.checkpoints.get(stored) if self._tx is None else None
        if row is None:
            row = self.tx.checkpoint(stored)
            if row is not None:
                self.remember(row)
        return row

    def by_cid(self, cid: int) -> CheckpointRow:
        """Return a checkpoint's row by key."""
        row = self._caches.cids.get(cid) if self._tx is None else None
        if row is None:
            row = self.tx.one(CheckpointRow, cid=cid)
            if row is None:
                raise Corrupted(f"the row of checkpoint {cid} is missing")
            self.remember(row)
        return row

    def remember(self, row: CheckpointRow) -> None:
        """Keep a checkpoint's row for those that come after it."""
        if self._keep:
            self._caches.remember(row)

    def parents(self, row: CheckpointRow) -> list[CheckpointRow]:
        """Return the parents that still exist, the first one first."""
        first = self.first_parent(row)
        rest: list[CheckpointRow] = []
        if row.nparents > 1:
            cids = [edge.parent for edge in self.tx.find(Edge, child=row.cid, order="ord")]
            by_cid = {p.cid: p for p in self.tx.find(CheckpointRow, cid=In(cids))}
            rest = [by_cid[cid] for cid in cids if cid in by_cid]
        return ([first] if first is not None else []) + rest

    def first_parent(self, row: CheckpointRow) -> CheckpointRow | None:
        """Return the first parent, or its nearest ancestor that was not collected."""
        if row.parent is None:
            return None
        found = self.tx.one(CheckpointRow, cid=row.parent)
        return found if found is not None else self.before(row)

    def before(self, row: CheckpointRow) -> CheckpointRow | None:
        """Return the newest checkpoint before this one on its line of first parents."""
        lineage: Lineage | None = self.lineage(row.lineage)
        upto: int | None = row.step - 1
        while lineage is not None and upto is not None:
            rows = self.tx.find(
                CheckpointRow, lineage=lineage.pk, step=Upto(upto), order="-step", limit=1
            )
            if rows:
                return rows[0]
            upto = lineage.fork_step
            lineage = self.lineage(lineage.parent) if lineage.parent is not None else None
        return None

    # --- content ---

    def lineage(self, pk: int) -> Lineage:
        """Return a lineage."""
        row = self._caches.lineages.get(pk)
        if row is None:
            row = self.tx.one(Lineage, pk=pk)
            if row is None:
                raise Corrupted(f"the row of lineage {pk} is missing")
            if self._keep:
                self._caches.lineages.put(pk, row)
        return row

    def pieces(self, lineage_pk: int, log: str, upto: int) -> list[Piece]:
        """Return where the first ``upto`` items of a lineage's log are."""
        inherited = inherited_pieces(self.lineage(lineage_pk)).get(log, [])
        clipped, at = clip(inherited, upto)
        if at < upto:
            clipped.append(Piece(lineage_pk, at, upto))
        return clipped

    def items(self, lineage_pk: int, log: str, start: int, stop: int) -> list[bytes]:
        """Return the packed items from ``start`` to ``stop`` of a log."""
        items: list[bytes] = []
        for packed, low, high in self.chunks(lineage_pk, log, start, stop):
            items += split_array(packed)[low:high]
        return items

    def values(self, lineage_pk: int, log: str, start: int, stop: int) -> list[Any]:
        """Return the items from ``start`` to ``stop`` of a log, made anew."""
        found: list[Any] = []
        for packed, low, high in self._expected(self.chunks(lineage_pk, log, start, stop)):
            some = unpack(packed, self.blobs)
            found += some if low == 0 and high == len(some) else some[low:high]
        if len(found) != stop - start:
            raise Corrupted(
                f"the log {log or 'messages'} has {len(found)} items "
                f"from {start} to {stop} in lineage {lineage_pk}"
            )
        return found

    def chunks(
        self, lineage_pk: int, log: str, start: int, stop: int
    ) -> Iterator[tuple[bytes, int, int]]:
        """Yield packed lists with the part of each that is wanted, in order."""
        at = 0
        for piece in self.pieces(lineage_pk, log, stop):
            size = piece.stop - piece.start
            low = max(start - at, 0)
            if low < size:
                yield from self._own_chunks(log, piece._replace(start=piece.start + low))
            at += size

    def _own_chunks(self, log: str, piece: Piece) -> Iterator[tuple[bytes, int, int]]:
        at = piece.start
        for row, packed in self._contents(batches(self.tx, log, piece)):
            if row.pos > at or row.pos + row.n <= at:
                break
            high = min(piece.stop, row.pos + row.n)
            yield packed, at - row.pos, high - row.pos
            at = high
        if at < piece.stop:
            raise Corrupted(
                f"items {at} to {piece.stop} of the log {log or 'messages'} are missing "
                f"in lineage {piece.lineage}"
            )

    def _expected(
        self, chunks: Iterator[tuple[bytes, int, int]]
    ) -> Iterator[tuple[bytes, int, int]]:
        """Yield chunks some later, so that the large values of several are read together."""
        waiting: deque[tuple[bytes, int, int]] = deque()
        size = 0
        for chunk in chunks:
            self.blobs.expect(chunk[0])
            size += len(chunk[0])
            waiting.append(chunk)
            del chunk  # nothing is held that the reader is through with
            while waiting and size > _AHEAD:
                yield waiting.popleft()
            size = size if waiting else 0
        while waiting:
            yield waiting.popleft()

    def _contents(self, rows: list[Batch]) -> Iterator[tuple[Batch, bytes]]:
        """Yield rows with their contents; the last few are remembered."""
        if len(rows) == 1 and (known := self._recent.get(rows[0].pk)) is not None:
            yield rows[0], known
            return
        for row, packed in contents(rows):
            if len(packed) <= _HELD:
                self._recent[row.pk] = packed
                if len(self._recent) > 4:
                    del self._recent[next(iter(self._recent))]
            yield row, packed

    def state(self, pk: int | None) -> LoadedState:
        """Return a state."""
        if pk is None:
            return EMPTY_STATE
        found = self._caches.states.get(pk)
        if found is None:
            found = self._load_state(pk)
            if self._keep:
                self._caches.remember_state(found)
        return found

    def expect_states(self, pks: Iterable[int | None]) -> None:
        """Read the rows of states that will be asked for, and of those they stand on, together."""
        wanted = set(pks)
        while wanted := {pk for pk in wanted if pk is not None and not self._has_state(pk)}:
            rows = self.tx.find(StateRow, pk=In(list(wanted)))
            self._states.update({row.pk: row for row in rows})
            wanted = {row.base for row in rows}

    def _has_state(self, pk: int) -> bool:
        return pk in self._states or self._caches.states.get(pk) is not None

    def _load_state(self, pk: int) -> LoadedState:
        rows: list[StateRow] = []
        at: int | None = pk
        values: dict[str, bytes] | None = None
        while at is not None and values is None:
            row = self._states.get(at) or self.tx.one(StateRow, pk=at)
            if row is None or len(rows) > 64:
                raise Corrupted(f"the row of state {at} is missing")
            rows.append(row)
            at = row.base
            known = self._caches.states.get(at) if at is not None else None
            values = dict(known.values) if known is not None else None
        base, depth = rows[0].base, rows[0].depth
        digest: bytes | None = None
        while rows:
            row = rows.pop()
            body = decompress(row.codec, row.body)
            values = split_map(body) if row.base is None else apply(values or {}, body)
            digest = digest_of(body) if row.base is None else None
            del row, body  # with large states, each of both is as much as all that is wanted
        values = values or {}
        return LoadedState(pk, base, depth, values, digest or digest_of(join_map(values)))


def batches(tx: Tx, log: str, piece: Piece) -> list[Batch]:
    """Return the rows that hold a piece, in order."""
    rest = tx.find(
        Batch, lineage=piece.lineage, log=log, pos=Span(piece.start, piece.stop - 1), order="pos"
    )
    # last: where the rows are packed between the two, it has what those that follow held
    first = tx.find(
        Batch, lineage=piece.lineage, log=log, pos=Upto(piece.start), order="-pos", limit=1
    )
    end = first[0].pos + first[0].n if first else piece.start
    return first + [row for row in rest if row.pos >= end]


def inherited_pieces(lineage: Lineage) -> dict[str, list[Piece]]:
    """Return what a lineage begins with, by log."""
    if lineage.pieces is None:
        return {}
    try:
        return _decode_pieces(lineage.pieces)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as err:
        raise Corrupted(f"the pieces of lineage {lineage.pk} cannot be read: {err}") from err


def clip(pieces: list[Piece], upto: int) -> tuple[list[Piece], int]:
    """Return the leading pieces that make up at most ``upto`` items, and how many those are."""
    kept: list[Piece] = []
    at = 0
    for piece in pieces:
        if at >= upto:
            break
        stop = min(piece.stop, piece.start + upto - at)
        kept.append(piece._replace(stop=stop))
        at += stop - piece.start
    return kept, at


def id_text(row: CheckpointRow) -> str:
    """Return a checkpoint's id."""
    return id_from_bytes(row.id)
