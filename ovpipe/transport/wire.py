"""The wire: descriptors of frames and the few other messages, bytes <-> values.

    message   kind u8, then
    FRAME     header, then per array: name, pool, slot, dtype code, dims; then msgpack metadata
    EOS       header with the stream that has ended
    WAKE      nothing: a credit or a slot has become free, look again

All integers are little-endian and of fixed size. There are no strides, offsets, dtype strings
or objects on the wire: an array is C-contiguous, at the start of its slot.

Law: pure. `decode` gives a Message or raises WireError naming the check that failed; no input
makes it raise anything else, allocate more than a small multiple of the input, or return a
value out of the bounds stated here.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from ovpipe.errors import WireError
from ovpipe.transport.ledger import MAX_REFS

FRAME, EOS, WAKE = 1, 2, 3
MAGIC = 0x504F  # "OP"
VERSION = 1
MAX_DIMS = 8
MAX_NAME = 64
MAX_MESSAGE = 1 << 20
"""Bytes of a whole message at most: metadata is for small things, arrays are for large ones."""

# magic, version, kind, link, epoch, record, n_arrays, stream, generation, seq, pts, captured
_HEADER = struct.Struct("<HBBIIHHIQQqQ")
_ARRAY = struct.Struct("<IIBBB")  # pool, slot, dtype code, ndim, length of the name
_UNPACK_ERRORS = (msgpack.exceptions.UnpackException, MemoryError)
_NO_META = b"\x80"
NO_PTS = -(1 << 63)
WAKE_MESSAGE = _HEADER.pack(MAGIC, VERSION, WAKE, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class ArrayRef(NamedTuple):
    """Where one array of a frame lies."""

    name: str
    pool: int
    slot: int
    dtype: int
    shape: tuple[int, ...]


class Message(NamedTuple):
    """A decoded message; `arrays` and `meta` are empty unless kind is FRAME."""

    kind: int
    link: int
    epoch: int
    record: int
    stream: int
    generation: int
    seq: int
    pts_ns: int
    captured_ns: int
    arrays: tuple[ArrayRef, ...]
    meta: dict[str, Any]


def encode_body(arrays: list[ArrayRef], meta: dict[str, Any]) -> bytes:
    """The part of a FRAME that is the same for every receiver. Raises WireError where too large."""
    if len(arrays) > MAX_REFS:
        raise WireError("arrays", f"a frame carries at most {MAX_REFS} arrays, not {len(arrays)}")
    parts = [_encode_array(a) for a in arrays]
    try:
        parts.append(msgpack.packb(meta))
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError("meta", f"metadata cannot be sent: {error}") from None
    body = b"".join(parts)
    if len(body) > MAX_MESSAGE - _HEADER.size:
        raise WireError("size", f"metadata of {len(body)} bytes; put large data into arrays")
    return body


@lru_cache(maxsize=1024)
def _encode_array(a: ArrayRef) -> bytes:
    """Cached: the arrays of a stream differ in their slots only, and slots come again."""
    name = a.name.encode()
    if len(name) > MAX_NAME or len(a.shape) > MAX_DIMS:
        raise WireError("array", f"array '{a.name}': name or number of dimensions too large")
    head = _ARRAY.pack(a.pool, a.slot, a.dtype, len(a.shape), len(name))
    return head + struct.pack(f"<{len(a.shape)}Q", *a.shape) + name


def copied(meta: dict[str, Any]) -> dict[str, Any]:
    """Metadata as a receiver of its own gets it, which shares nothing with the sender's."""
    if not meta:
        return {}
    values: dict[str, Any] = msgpack.unpackb(msgpack.packb(meta), strict_map_key=False)
    return values


def encode_frame(
    body: bytes,
    n_arrays: int,
    *,
    link: int,
    epoch: int,
    record: int,
    stream: int,
    generation: int,
    seq: int,
    pts_ns: int | None,
    captured_ns: int,
) -> bytes:
    """A whole FRAME for one receiver."""
    pts = NO_PTS if pts_ns is None else pts_ns
    return (
        _HEADER.pack(
            MAGIC, VERSION, FRAME, link, epoch, record, n_arrays, stream,
            generation, seq, pts, captured_ns,
        )
        + body
    )  # fmt: skip


def encode_eos(link: int, epoch: int, stream: int) -> bytes:
    """End of one stream on one link."""
    return _HEADER.pack(MAGIC, VERSION, EOS, link, epoch, 0, 0, stream, 0, 0, 0, 0)


@lru_cache(maxsize=1024)
def _decode_array(data: bytes) -> ArrayRef:
    """Cached, as _encode_array. Raises struct.error, WireError, UnicodeDecodeError."""
    pool, slot, dtype, ndim, name_length = _ARRAY.unpack_from(data)
    if ndim > MAX_DIMS or name_length > MAX_NAME:
        raise WireError("array", f"{ndim} dimensions, name of {name_length} bytes")
    shape = struct.unpack_from(f"<{ndim}Q", data, _ARRAY.size)
    name = data[_ARRAY.size + 8 * ndim :]
    if len(name) != name_length:
        raise WireError("truncated", "within an array")
    return ArrayRef(name.decode(), pool, slot, dtype, shape)


def decode(data: bytes) -> Message:
    """The message in `data`. Raises WireError, and nothing else."""
    if len(data) > MAX_MESSAGE:
        raise WireError("size", f"{len(data)} bytes")
    if len(data) < _HEADER.size:
        raise WireError("truncated", f"{len(data)} bytes")
    (magic, version, kind, link, epoch, record, n_arrays, stream, generation, seq, pts,
     captured) = _HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        raise WireError("magic", f"{magic:#x}")
    if version != VERSION:
        raise WireError("version", str(version))
    if kind not in (FRAME, EOS, WAKE):
        raise WireError("kind", str(kind))
    arrays: list[ArrayRef] = []
    meta: dict[str, Any] = {}
    at = _HEADER.size
    if kind == FRAME:
        if n_arrays > MAX_REFS:
            raise WireError("arrays", str(n_arrays))
        try:
            for _ in range(n_arrays):
                _, _, _, ndim, name_length = _ARRAY.unpack_from(data, at)
                end = at + _ARRAY.size + 8 * ndim + name_length
                arrays.append(_decode_array(data[at:end]))
                at = end
        except struct.error:
            raise WireError("truncated", "within an array") from None
        except UnicodeDecodeError:
            raise WireError("name", "not UTF-8") from None
        try:
            if data[at:] != _NO_META:
                meta = msgpack.unpackb(memoryview(data)[at:], strict_map_key=False)
        except (ValueError, TypeError, OverflowError, RecursionError, *_UNPACK_ERRORS) as error:
            raise WireError("meta", str(error)) from None
        if type(meta) is not dict:
            raise WireError("meta", f"{type(meta).__name__}, not a map")
    elif len(data) != at or n_arrays:
        raise WireError("size", "bytes after the header")
    return Message(
        kind, link, epoch, record, stream, generation, seq, pts, captured, tuple(arrays), meta
    )
