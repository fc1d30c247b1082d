"""What the engine needs of a database: rows, a transaction over them, and a store that runs it.

The interface is narrow on purpose: a backend knows nothing of checkpoints, only of the row types
below. Everything else is decided by the engine inside a transaction, so that every backend behaves
alike.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from .observe import Observer

__all__ = [
    "SEALED",
    "TABLES",
    "Above",
    "Batch",
    "Blob",
    "BlobRef",
    "CheckpointRow",
    "Cond",
    "Edge",
    "Expect",
    "HeadMoveRow",
    "In",
    "Lineage",
    "Meta",
    "Pin",
    "Row",
    "RunRow",
    "Span",
    "StateRow",
    "Store",
    "TagRow",
    "ThreadRow",
    "Tombstone",
    "Tx",
    "Upto",
    "sealed",
]


class ThreadRow(NamedTuple):
    """A thread. ``session`` is the pk of its root; ``active`` is kept on the root only.

    ``open_tip`` is the checkpoint that may be extended in place; ``turned`` the target of the last
    rewind, and lineages up to ``closed`` belong to lines that it left.
    """

    pk: int
    name: str
    session: int
    branch: str
    origin: int | None
    head: int | None
    open_tip: int | None
    step: int
    superseded: int | None
    active: int | None
    turned: int | None
    closed: int
    at: int
    n_cp: int
    n_tag: int
    n_move: int
    n_run: int
    n_pin: int
    crc: int = 0


class HeadMoveRow(NamedTuple):
    """A move of a head by a caller; ``undoes`` is the number of the move that it takes back."""

    thread: int
    no: int
    from_id: int | None
    to_id: int | None
    why: str
    undoes: int | None
    at: int
    crc: int = 0


class Lineage(NamedTuple):
    """An append-only run of batches; ``pieces`` says what it begins with (packed, by log)."""

    pk: int
    thread: int
    parent: int | None
    fork_step: int | None
    late: int
    pieces: bytes | None
    crc: int = 0


class CheckpointRow(NamedTuple):
    """A checkpoint; its first parent is here, the others are edges.

    ``own`` is how many messages it appended itself, -1 where it replaced the conversation;
    ``length`` that of the conversation, ``chain`` the digest chain over it. ``result`` is to be
    read as ``fmt`` says. ``meta`` is packed [metadata, next_node, summary].
    """

    cid: int
    id: bytes
    lineage: int
    step: int
    parent: int | None
    nparents: int
    own: int
    state: int | None
    length: int
    logs: bytes | None
    trigger: int
    at: int
    node: str | None
    meta: bytes | None
    result: bytes | None
    fmt: int
    chain: bytes
    digest: bytes


class Edge(NamedTuple):
    """The second and further parents of a checkpoint."""

    child: int
    ord: int
    parent: int


class Batch(NamedTuple):
    """``n`` items of a log of a lineage, beginning at ``pos``. Log ``""`` is the conversation."""

    pk: int
    lineage: int
    log: str
    pos: int
    n: int
    codec: int
    body: bytes


class StateRow(NamedTuple):
    """A state: whole (``base`` absent) or a delta."""

    pk: int
    base: int | None
    depth: int
    codec: int
    body: bytes


class Blob(NamedTuple):
    """A large value, once."""

    pk: int
    digest: bytes
    codec: int
    body: bytes


class BlobRef(NamedTuple):
    """Which row holds a blob; kinds are ``batch``, ``state`` and ``checkpoint``."""

    blob: int
    owner_kind: int
    owner: int


class TagRow(NamedTuple):
    """A name of a checkpoint."""

    checkpoint: int
    name: str
    thread: int
    at: int
    crc: int = 0


class Pin(NamedTuple):
    """A lease that keeps a checkpoint from collection until ``expires`` (milliseconds)."""

    checkpoint: int
    owner: str
    expires: int
    crc: int = 0


class RunRow(NamedTuple):
    """A workflow that runs, or ran, a thread; the highest ``no`` is the newest."""

    thread: int
    no: int
    namespace: str
    workflow_id: str
    run_id: str
    workflow_type: str
    task_queue: str
    supervisor: str | None
    at: int
    crc: int = 0


class Tombstone(NamedTuple):
    """What is left of something that was erased: a checkpoint's stored id, or a name's digest."""

    key: bytes
    kind: int
    at: int
    crc: int = 0


class Meta(NamedTuple):
    """A fact about the whole store."""

    key: str
    value: str
    crc: int = 0


Row = (
    ThreadRow
    | HeadMoveRow
    | Lineage
    | CheckpointRow
    | Edge
    | Batch
    | StateRow
    | Blob
    | BlobRef
    | TagRow
    | Pin
    | RunRow
    | Tombstone
    | Meta
)
R = TypeVar("R", bound=Row)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    """How a row type is kept: its name, key columns, unique sets and further indexes."""

    name: str
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    index: tuple[tuple[str, ...], ...] = ()


TABLES: dict[type[Any], Table] = {
    ThreadRow: Table("thread", ("pk",), (("name",), ("session", "branch"))),
    HeadMoveRow: Table("head_move", ("thread", "no")),
    Lineage: Table("lineage", ("pk",), (), (("thread",),)),
    CheckpointRow: Table("checkpoint", ("cid",), (("id",), ("lineage", "step"))),
    Edge: Table("edge", ("child", "ord")),
    Batch: Table("batch", ("pk",), (("lineage", "log", "pos"),)),
    StateRow: Table("state", ("pk",)),
    Blob: Table("blob", ("pk",), (("digest",),)),
    BlobRef: Table("blob_ref", ("blob", "owner_kind", "owner"), (), (("owner_kind", "owner"),)),
    TagRow: Table("tag", ("checkpoint", "name"), (), (("thread", "name"),)),
    Pin: Table("pin", ("checkpoint", "owner"), (), (("owner",),)),
    RunRow: Table("run", ("thread", "no"), (), (("workflow_id",),)),
    Tombstone: Table("tombstone", ("key",)),
    Meta: Table("meta", ("key",)),
}


SEALED = frozenset(row for row in TABLES if row._fields[-1] == "crc")


def sealed(row: R) -> R:
    """Return the row with its checksum, if its type has one."""
    if type(row) not in SEALED:
        return row
    return cast("R", type(row)._make((*row[:-1], crc_of(row))))


def crc_of(row: Row) -> int:
    """Return the checksum over every other column of a row that has one."""
    return zlib.crc32(repr(row[:-1]).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class In:
    """The column is one of these values."""

    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Upto:
    """The column is at most this."""

    value: Any


@dataclass(frozen=True, slots=True)
class Above:
    """The column is greater than this."""

    value: Any


@dataclass(frozen=True, slots=True)
class Span:
    """The column is greater than ``above`` and at most ``upto``."""

    above: Any
    upto: Any


Cond = In | Upto | Above | Span | int | str | bytes | None


class Tx(ABC):
    """One transaction; synchronous, since it runs as a whole on the database's own thread.

    Within a transaction that writes, what was written is seen by what reads after it.

    Attributes:
        meta_keys: Facts that the store itself keeps; ``verify`` reports one that is missing.
    """

    meta_keys: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def find(
        self,
        table: type[R],
        order: str = "",
        limit: int | None = None,
        **where: Cond,
    ) -> list[R]:
        """Return the rows that meet every condition.

        Args:
            table: The row type.
            order: A column to sort by, with ``-`` before it for descending; else by key.
            limit: At most so many.
            where: Column -> value, :class:`In`, :class:`Upto`, :class:`Above` or :class:`Span`.
        """

    def columns(self, table: type[R], *names: str, **where: Cond) -> list[list[Any]]:
        """Return some columns of the rows that meet every condition, a list each.

        The rows come in no particular order, but in the same one in every list.
        """
        rows = self.find(table, "", None, **where)
        return [[getattr(row, name) for row in rows] for name in names]

    @abstractmethod
    def count(self, table: type[R], **where: Cond) -> int:
        """Return how many rows meet every condition."""

    @abstractmethod
    def insert(self, *rows: Row) -> None:
        """Add rows; their checksums are filled in.

        Raises:
            Conflict: A row with the same key or unique columns exists (at the latest at commit).
        """

    @abstractmethod
    def update(self, *rows: Row) -> None:
        """Replace the rows with the same keys."""

    @abstractmethod
    def delete(self, table: type[R], **where: Cond) -> int:
        """Remove the rows that meet every condition; returns how many."""

    def damage(self) -> list[str]:
        """Return what is wrong beneath the rows, a line each: as only the store itself can know."""
        return []

    def forgive(self) -> None:  # noqa: B027  (where there are none, nothing is to be done)
        """From now on return rows with texts that are none, too: somehow written, for checking."""

    def erase(self) -> None:  # noqa: B027  (where nothing is left behind, nothing is to be done)
        """Have everything that this transaction removes overwritten, where the store can."""

    @abstractmethod
    def next_pk(self, table: type[R]) -> int:
        """Return a key of one whole number that no row of the table has or ever had."""

    @abstractmethod
    def keep_above(self, table: type[R], top: int) -> None:
        """Never give a key up to ``top`` by :meth:`next_pk`."""

    @abstractmethod
    def match_ids(self, prefix: str, limit: int) -> list[bytes]:
        """Return stored ids of checkpoints whose text form begins with ``prefix``."""

    def one(self, table: type[R], **where: Cond) -> R | None:
        """Return the only row that meets every condition, or ``None``."""
        rows = self.find(table, "", 1, **where)
        return rows[0] if rows else None

    def thread(self, name: str) -> ThreadRow | None:
        """Return a thread by name; a backend may answer from what it loaded for the group."""
        return self.one(ThreadRow, name=name)

    def checkpoint(self, stored_id: bytes) -> CheckpointRow | None:
        """Return a checkpoint by id; a backend may answer from what it loaded for the group."""
        return self.one(CheckpointRow, id=stored_id)


class Expect(NamedTuple):
    """What a write will look up; a group loads it for all its members in one go.

    A write that names threads changes nothing but what is theirs, and blobs, and removes nothing
    but rows that it packs: a backend may let such writes to different threads run side by side,
    and each of their statements see what was committed before it. Any other write is alone in the
    store.

    ``size``: bytes of content that it adds, where it does nothing else that takes long.
    """

    threads: tuple[str, ...] = ()
    ids: tuple[bytes, ...] = ()
    size: int | None = None


class Store(ABC):
    """A database that runs transactions.

    Attributes:
        url: Where it is; without a password.
        observer: Is told of every transaction that was committed.
        reclaim_after: So many removed rows take space until :meth:`reclaim` lets others have it;
            absent where that happens by itself.
    """

    url: str
    observer: Observer | None = None
    reclaim_after: int | None = None

    @abstractmethod
    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` on one consistent state of the database and return its answer.

        Raises:
            StoreBusy: Another process held a lock for longer than the timeout.
            StoreUnavailable: The database cannot be reached.
            Corrupted: The database file is damaged.
        """

    @abstractmethod
    async def write(self, work: Callable[[Tx], T], expect: Expect | None = None) -> T:
        """Run ``work`` in a transaction and return its answer once that is durable.

        Writes of several tasks may share a transaction. A write that raises leaves nothing, and
        the others of its group are committed all the same; ``work`` may therefore run twice and
        must have no other effect than on the transaction. When the caller is cancelled, the write
        happens as a whole or not at all.

        Raises:
            StoreBusy: Another process held the write lock for longer than the timeout.
            StoreUnavailable: The database cannot be reached or written.
        """

    @abstractmethod
    async def reclaim(self, *, erase: bool = False, thorough: bool = False) -> None:
        """Give free space back to the file system without stalls.

        Where that cannot be done without stalls, it is made free for new rows instead.

        Args:
            erase: Also leave no byte of deleted rows in the database, its log or its free pages.
            thorough: Give all of it back, even if others have to wait meanwhile.

        Raises:
            StoreBusy: ``erase`` could not be completed since a reader still holds old pages.
        """

    async def write_back(self) -> None:  # noqa: B027  (where there is no log, nothing is to be done)
        """Write the log back, where the store has one; only then do its files get shorter."""

    @abstractmethod
    async def size(self) -> int:
        """Return the bytes the database takes once its log is written back."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes that were begun and close every connection; may be called twice."""
