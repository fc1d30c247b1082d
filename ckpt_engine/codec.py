"""Values <-> bytes: what can be stored, how it is packed, compressed and digested.

A value is packed as msgpack. Any JSON value, ``bytes`` and pydantic models (as their JSON form) can
be stored; tuples become lists. Whole numbers of any size, NaN and the infinities, and strings with
lone surrogates come back as they were. Everything else is refused with the path to it, and so is
nesting deeper than :data:`MAX_DEPTH`.

A string or bytes of :data:`BLOB_MIN` bytes or more is kept apart under its digest, so that it is
stored once however many checkpoints hold it; so is a list or object of that size which stands
under a key of a message, or of the state while it does not change there.
"""

from __future__ import annotations

import io
import re
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import msgspec
import zstandard

from .errors import Corrupted, SchemaMismatch, TooLarge, Unstorable

__all__ = [
    "BLOB_MIN",
    "EMPTY_CHAIN",
    "FORMAT",
    "LOG_PLACE",
    "MAX_BLOB",
    "MAX_DEPTH",
    "NIL",
    "Blobs",
    "chain_over",
    "check_size",
    "compress",
    "compress_against",
    "compress_array",
    "content_size",
    "decompress",
    "decompress_against",
    "digest_of",
    "join_array",
    "join_arrays",
    "join_map",
    "kind_of",
    "likely_references",
    "pack",
    "pack_item",
    "parts_apart",
    "recompress",
    "references",
    "seal",
    "shared_parts",
    "split_array",
    "split_map",
    "unpack",
    "value_blob",
    "versioned",
]

FORMAT = 2
"""Version of the packed form; rows carry it, and older versions stay readable.

1: as below, but lists and objects are never kept apart. 2: those of a few KB are.
"""

MAX_DEPTH = 256
"""Deepest nesting of lists and objects that is accepted."""

_SHOWN = 16  # parts of a path, in an error

BLOB_MIN = 4096
"""Strings and bytes of at least this many characters are stored once, under their digest."""

MAX_BLOB = 900_000_000
"""Largest single string or bytes, in bytes; SQLite ends at a thousand million."""

_LOOSE = 1_000  # bytes from which on a packed message is copied, to take no more room than it has
_STREAMED = 1_000_000  # bytes of items from which on they are compressed one after the other

EMPTY_CHAIN = bytes(16)
"""Digest chain of an empty log."""

Blobs = dict[bytes, bytes]
"""Digest -> content of the values that are stored apart."""

_INT, _SURROGATE, _TEXT_BLOB, _BYTES_BLOB, _LOG, _VALUE_BLOB = 1, 2, 3, 4, 5, 6
_REFERENCE = re.compile(b"\xd8[%c%c%c](.{16})" % (_TEXT_BLOB, _BYTES_BLOB, _VALUE_BLOB), re.DOTALL)
_Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder().encode
LOG_PLACE = _encode(_Ext(_LOG, b""))
"""Stands in a packed state for a list that is kept as a log."""
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_AS_THEY_ARE = frozenset((type(None), bool, float))
_UNCHANGING = _AS_THEY_ARE | {str, int, bytes}
NIL = _encode(None)
"""``None``, packed."""
_raw_list = msgspec.msgpack.Decoder(list[msgspec.Raw])
_raw_map = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


class _RefusedError(Exception):
    """A value that cannot be stored; gathers the path on its way up."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []


def pack(value: Any, blobs: Blobs | None, where: str = "value", place: int | None = None) -> bytes:
    """Return ``value`` packed; large strings and bytes go into ``blobs`` under their digest.

    Args:
        value: Any JSON value, bytes or pydantic model, or a list or object of them.
        blobs: Receives digest -> content of what is stored apart; nothing is when absent.
        where: What the value is called in an error message.
        place: Its place in the list of that name.

    Raises:
        Unstorable: Some part of it cannot be stored; the message gives the path.
    """
    try:
        clean = _clean(value, 0, blobs, strict=False)
        try:
            return _encode(clean)
        except UnicodeEncodeError:
            return _encode(_clean(value, 0, blobs, strict=True))
    except _RefusedError as refused:
        at = "" if place is None else f"[{place}]"
        parts = refused.path[::-1]
        if len(parts) > _SHOWN:
            parts = [*parts[: _SHOWN // 2], "…", *parts[-_SHOWN // 2 :]]
        path = where + at + "".join(parts)
        raise Unstorable(f"{path}: {refused.why}") from None


def unpack(packed: bytes | memoryview, blobs: Mapping[bytes, bytes]) -> Any:
    """Return the value, made anew.

    Raises:
        KeyError: A digest that ``blobs`` lacks; the error's first argument is the digest.
        Corrupted: The bytes are not a packed value.
    """
    return _decode(packed, blobs)


def _decode(packed: bytes | memoryview, blobs: Mapping[bytes, bytes]) -> Any:
    def hook(code: int, data: memoryview) -> Any:
        if code == _TEXT_BLOB:
            return blobs[bytes(data)].decode("utf-8", "surrogatepass")
        if code == _BYTES_BLOB:
            return blobs[bytes(data)]
        if code == _INT:
            return int.from_bytes(data, "big", signed=True)
        if code == _SURROGATE:
            return bytes(data).decode("utf-8", "surrogatepass")
        if code == _VALUE_BLOB:
            return _decode(blobs[bytes(data)], blobs)
        raise Corrupted(f"a stored value has the unknown type code {code}")

    try:
        return msgspec.msgpack.decode(packed, ext_hook=hook)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as err:
        raise Corrupted(f"a stored value cannot be read: {err}") from err


def _clean(value: Any, depth: int, blobs: Blobs | None, *, strict: bool) -> Any:
    """Return what msgpack can carry for ``value``; the same object where nothing changes."""
    kind = type(value)
    if kind is str:
        return _clean_text(value, blobs, strict=strict)
    if kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels (or it contains itself)")
        if kind is dict:
            return _clean_object(value, depth + 1, blobs, strict=strict)
        return _clean_array(value, depth + 1, blobs, strict=strict)
    if kind in _AS_THEY_ARE:
        return value
    if kind is int:
        return value if _LOWEST <= value <= _HIGHEST else _big_int(value)
    if kind is bytes:
        large = blobs is not None and len(value) >= BLOB_MIN
        return _blob(_BYTES_BLOB, value, blobs) if large else value
    return _clean(_plain(value), depth, blobs, strict=strict)


def _plain(value: Any) -> Any:
    """Return the JSON form of a value of another type than JSON's own."""
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str):
        return str.__str__(value)
    for base in (int, float, dict, list, bytes):
        if isinstance(value, base):
            return cast("Any", base)(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        try:
            return dump(mode="json")
        except ValueError as err:
            raise _RefusedError(f"a {type(value).__qualname__} has no JSON form: {err}") from err
    raise _RefusedError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored; "
        "give a JSON value, bytes or a pydantic model"
    )


def settled(value: Any) -> Any:
    """Return the value as it is now, in containers of its own.

    One that cannot be stored comes back itself, so that packing refuses it and says where.
    """
    try:
        return _settled(value, 0)
    except _RefusedError:
        return value


def _settled(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _UNCHANGING:
        return value
    if depth > MAX_DEPTH:  # with what is beside it, one that contains itself would never end
        raise _RefusedError("nested too deep")
    if kind is dict:
        return {
            key: item if type(item) in _UNCHANGING else _settled(item, depth + 1)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [item if type(item) in _UNCHANGING else _settled(item, depth + 1) for item in value]
    return _settled(_plain(value), depth)


def _clean_object(value: dict[Any, Any], depth: int, blobs: Blobs | None, *, strict: bool) -> Any:
    changed: dict[str, Any] = {}
    short = 0 if strict else BLOB_MIN
    key: Any = None
    try:
        for key, item in value.items():
            if type(key) is not str:
                if not isinstance(key, str):
                    raise _RefusedError(f"the key {key!r} is not a string")
                changed[key] = item  # a subclass of str: rebuild below with plain keys
            if strict and not _encodable(key):
                raise _RefusedError("a key with a lone surrogate cannot be stored")
            kind = type(item)  # what most values are is spared the call
            if (kind is str and len(item) < short) or (
                _LOWEST <= item <= _HIGHEST if kind is int else kind in _AS_THEY_ARE
            ):
                continue
            new = _clean(item, depth, blobs, strict=strict)
            if new is not item:
                changed[key] = new
    except _RefusedError as refused:
        refused.path.append(f"[{key!r}]")
        raise
    if not changed:
        return value
    return {str.__str__(key): changed.get(key, item) for key, item in value.items()}


def _clean_array(value: list[Any], depth: int, blobs: Blobs | None, *, strict: bool) -> Any:
    out: list[Any] | None = None
    short = 0 if strict else BLOB_MIN
    index = 0
    try:
        for index, item in enumerate(value):
            kind = type(item)  # what most values are is spared the call
            plain = (kind is str and len(item) < short) or (
                _LOWEST <= item <= _HIGHEST if kind is int else kind in _AS_THEY_ARE
            )
            new = item if plain else _clean(item, depth, blobs, strict=strict)
            if new is not item and out is None:
                out = value[:index]
            if out is not None:
                out.append(new)
    except _RefusedError as refused:
        refused.path.append(f"[{index}]")
        raise
    return value if out is None else out


def _clean_text(value: str, blobs: Blobs | None, *, strict: bool) -> Any:
    if blobs is not None and len(value) >= BLOB_MIN:
        return _blob(_TEXT_BLOB, value.encode("utf-8", "surrogatepass"), blobs)
    if strict and not _encodable(value):
        return _Ext(_SURROGATE, value.encode("utf-8", "surrogatepass"))
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _big_int(value: int) -> Any:
    return _Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _blob(code: int, content: bytes, blobs: Blobs | None) -> Any:
    assert blobs is not None
    if len(content) > MAX_BLOB:
        raise _RefusedError(f"{len(content):,} bytes in one value; at most {MAX_BLOB:,} fit")
    digest = digest_of(content)
    blobs[digest] = content
    return _Ext(code, digest)


def pack_item(value: Any, blobs: Blobs, where: str, place: int) -> bytes:
    """Return a message packed; what is large in it, also a list or object, goes into ``blobs``."""
    own: Blobs = {}
    packed = pack(value, own, where, place)
    if len(packed) >= BLOB_MIN:
        packed, own = parts_apart(packed, own)
    if own:
        blobs.update(own)
    # the encoder's own took more room and keeps it: half as much again, with many messages
    return bytes(memoryview(packed)) if _LOOSE < len(packed) < BLOB_MIN else packed


def parts_apart(packed: bytes, blobs: Blobs) -> tuple[bytes, Blobs]:
    """Return a packed value with the large lists and objects under its keys apart, and all blobs.

    Args:
        packed: The value.
        blobs: What it names.
    """
    if not _is_map(packed):
        return packed, blobs
    parts, found = split_map(packed), dict(blobs)
    apart = shared_parts(parts, found)
    if not apart:
        return packed, blobs
    packed = join_map({**parts, **apart})
    return packed, {digest: found[digest] for digest in references(packed)}


def shared_parts(
    parts: Mapping[str, bytes], blobs: Blobs, before: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Return references for the large lists and objects among packed values by key.

    Args:
        parts: The values.
        blobs: Receives digest -> packed value.
        before: The values of the state before: one that has changed since is left where it is,
            since a difference from it is shorter.
    """
    apart: dict[str, bytes] = {}
    for key, part in parts.items():
        if len(part) < BLOB_MIN or not (_is_map(part) or _is_array(part)):
            continue
        found: Blobs = {}
        whole = pack(unpack(part, blobs), None) if references(part) else part
        reference = value_blob(whole, found)
        if before is None or before.get(key, reference) == reference:
            apart[key] = reference
            blobs.update(found)
    return apart


def value_blob(packed: bytes, blobs: Blobs) -> bytes:
    """Return a reference to a packed value, which goes into ``blobs``."""
    digest = digest_of(packed)
    blobs[digest] = packed
    return _encode(_Ext(_VALUE_BLOB, digest))


def _is_map(packed: bytes) -> bool:
    return 0x80 <= packed[0] <= 0x8F or packed[0] in (0xDE, 0xDF)


def _is_array(packed: bytes) -> bool:
    return 0x90 <= packed[0] <= 0x9F or packed[0] in (0xDC, 0xDD)


def references(*values: bytes) -> set[bytes]:
    """Return the digests of the blobs that packed values name."""
    found: set[bytes] = set()

    def hook(code: int, data: memoryview) -> Any:
        if code in (_TEXT_BLOB, _BYTES_BLOB, _VALUE_BLOB):
            found.add(bytes(data))
        return None

    for packed in values:
        try:
            if b"\xd8" not in packed:  # every one begins with this byte
                continue
            msgspec.msgpack.decode(packed, ext_hook=hook)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise Corrupted(f"a stored value cannot be read: {err}") from err
    return found


def likely_references(packed: bytes) -> list[bytes]:
    """Return what look like digests of blobs, in order; it takes a search, no decoding.

    Numbers and bytes may look like one and, where they do, hide one that follows.
    """
    return _REFERENCE.findall(packed) if b"\xd8" in packed else []


def digest_of(*parts: bytes) -> bytes:
    """Return the 16-byte blake2b digest of the parts, one after the other."""
    return blake2b(parts[0] if len(parts) == 1 else b"".join(parts), digest_size=16).digest()


def chain_over(chain: bytes, items: Iterable[bytes | memoryview]) -> bytes:
    """Return the digest chain of a log whose chain is ``chain`` after ``items`` are appended."""
    for item in items:
        chain = blake2b(item, digest_size=16, key=chain).digest()
    return chain


def join_array(items: Sequence[bytes | memoryview]) -> bytes:
    """Return packed items as one packed list."""
    return b"".join((_header(len(items), 0x90, 0xDC), *items))


def join_arrays(arrays: Sequence[bytes]) -> bytes:
    """Return packed lists as one packed list of all their items.

    Raises:
        Corrupted: One is no packed list.
    """
    count, parts = 0, []
    for packed in arrays:
        first = packed[0] if packed else 0
        size = {0xDC: 2, 0xDD: 4}.get(first, 0)
        if not (size or 0x90 <= first <= 0x9F):
            raise Corrupted("a stored value cannot be read: a list is expected")
        count += int.from_bytes(packed[1 : 1 + size], "big") if size else first & 0x0F
        parts.append(memoryview(packed)[1 + size :])
    return b"".join([_header(count, 0x90, 0xDC), *parts])


def join_map(items: Mapping[str, bytes]) -> bytes:
    """Return packed values by key as one packed object."""
    if not items:
        return b"\x80"
    parts = [_header(len(items), 0x80, 0xDE)]
    for key, value in items.items():
        parts.append(_encode(key))
        parts.append(value)
    return b"".join(parts)


def _header(count: int, short: int, long: int) -> bytes:
    if count < 16:
        return bytes((short | count,))
    if count < 2**16:
        return bytes((long,)) + count.to_bytes(2, "big")
    return bytes((long + 1,)) + count.to_bytes(4, "big")


def split_array(packed: bytes | memoryview) -> list[bytes]:
    """Return the packed items of a packed list.

    Raises:
        Corrupted: This is none.
    """
    try:
        return [bytes(raw) for raw in _raw_list.decode(packed)]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as err:
        raise Corrupted(f"a stored value cannot be read: {err}") from err


def split_map(packed: bytes | memoryview) -> dict[str, bytes]:
    """Return the packed values of a packed object by key.

    Raises:
        Corrupted: This is none.
    """
    try:
        return {key: bytes(raw) for key, raw in _raw_map.decode(packed).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as err:
        raise Corrupted(f"a stored value cannot be read: {err}") from err


# --- bytes <-> rows ---------------------------------------------------------------------------
# A codec byte a row. Its low half: 0 raw with a crc32 behind it, 1 one zstd frame with its own
# checksum, 2 the same for rows that were packed together and need not be looked at again. Its high
# half: the version of the packed form, 0 in rows of version 1.

RAW, ZSTD, SEALED = 0, 1, 2
_local = threading.local()


def versioned(kind: int) -> int:
    """Return the code of a row of this kind in the present format."""
    return FORMAT << 4 | kind


def kind_of(code: int) -> int:
    """Return the kind of a row with this code.

    Raises:
        SchemaMismatch: A newer release wrote it.
    """
    if code >> 4 > FORMAT:
        raise SchemaMismatch(
            f"a row was written in format {code >> 4}, this ckpt-engine reads formats up to "
            f"{FORMAT}: upgrade it with `pip install --upgrade ckpt-engine`"
        )
    return code & 15


def compress(content: bytes, *, level: int = 1) -> tuple[int, bytes]:
    """Return (codec, body), whichever codec is smaller; both carry a checksum."""
    if len(content) > 64:
        body = _compressor(level).compress(content)
        if len(body) < len(content) + 4:
            return FORMAT << 4 | ZSTD, body
    return FORMAT << 4 | RAW, content + zlib.crc32(content).to_bytes(4, "big")


def compress_array(items: Sequence[bytes]) -> tuple[int, bytes]:
    """Return (codec, body) of packed items as one packed list; many bytes are not joined for it."""
    size = sum(map(len, items))
    if size < _STREAMED:
        return compress(join_array(items))
    header = _header(len(items), 0x90, 0xDC)
    body = io.BytesIO()
    with _compressor(1).stream_writer(body, size=len(header) + size, closefd=False) as stream:
        stream.write(header)
        for item in items:
            stream.write(item)
    if body.tell() < len(header) + size + 4:
        return FORMAT << 4 | ZSTD, body.getvalue()
    del body, stream
    crc = zlib.crc32(header)
    for item in items:
        crc = zlib.crc32(item, crc)
    return FORMAT << 4 | RAW, b"".join((header, *items, crc.to_bytes(4, "big")))


def content_size(codec: int, body: bytes) -> int:
    """Return how many bytes the content of a row has, without decompressing it.

    Raises:
        Corrupted: It does not say.
        SchemaMismatch: A newer release wrote it.
    """
    if kind_of(codec) == RAW:
        return len(body) - 4
    try:
        return zstandard.frame_content_size(body)
    except zstandard.ZstdError as err:
        raise Corrupted(f"a stored row cannot be decompressed: {err}") from err


def decompress(codec: int, body: bytes) -> bytes:
    """Return the content of a row.

    Raises:
        Corrupted: The checksum does not match, or the codec is unknown.
        SchemaMismatch: A newer release wrote it.
    """
    try:
        kind = kind_of(codec)
        if kind == RAW:
            content = body[:-4]
            if zlib.crc32(content).to_bytes(4, "big") != body[-4:]:
                raise Corrupted("a stored row does not match its checksum")
            return content
        if kind not in (ZSTD, SEALED):
            raise Corrupted(f"a stored row has the unknown codec {codec}")
        return bytes(_decompressor().decompress(body))
    except (zstandard.ZstdError, MemoryError, TypeError) as err:
        raise Corrupted(f"a stored row cannot be decompressed: {err}") from err


def seal(content: bytes) -> bytes:
    """Return the body of a row with codec :data:`SEALED`."""
    return bytes(_compressor(3).compress(content))


def recompress(codec: int, content: bytes) -> tuple[int, bytes]:
    """Return (codec, body) of the changed content of a row that had this codec."""
    if kind_of(codec) == SEALED:
        return versioned(SEALED), seal(content)
    return compress(content)


def compress_against(content: bytes, dictionary: bytes) -> bytes | None:
    """Return ``content`` compressed against ``dictionary``, or ``None`` if that saves little."""
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    body = zstandard.ZstdCompressor(level=1, dict_data=raw, write_checksum=True).compress(content)
    return body if len(body) < len(content) * 3 // 4 else None


def decompress_against(body: bytes, dictionary: bytes) -> bytes:
    """Return what :func:`compress_against` was given.

    Raises:
        Corrupted: The checksum does not match.
    """
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    try:
        return bytes(zstandard.ZstdDecompressor(dict_data=raw).decompress(body))
    except (zstandard.ZstdError, MemoryError) as err:
        raise Corrupted(f"a stored row cannot be decompressed: {err}") from err


def _compressor(level: int) -> zstandard.ZstdCompressor:
    try:
        known: dict[int, zstandard.ZstdCompressor] = _local.compressors
    except AttributeError:
        known = _local.compressors = {}
    found = known.get(level)
    if found is None:
        found = known[level] = zstandard.ZstdCompressor(level=level, write_checksum=True)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "reader", None)
    if found is None:
        found = _local.reader = zstandard.ZstdDecompressor()
    return found


def check_size(size: int, limit_mb: float | None) -> None:
    """Refuse a snapshot above the limit.

    Raises:
        TooLarge: ``size`` bytes are more than ``limit_mb`` megabytes.
    """
    if limit_mb is not None and size > limit_mb * 1_000_000:
        raise TooLarge(
            f"the snapshot has {size / 1e6:.2f} MB encoded, max_snapshot_size_mb is {limit_mb:g}; "
            "nothing was stored"
        )
