"""Frames that prove whose pixels they carry.

The first 32 bytes of an array, little-endian:

    magic   4 bytes  b"OVPT"
    crc32   4 bytes  of all other bytes of the array, those of this header included
    run     8 bytes  chosen by the painter; another one after a restart
    stream  8 bytes  BLAKE2b of the stream's key
    seq     8 bytes

Law: an array that was painted and is not wholly the one frame's, is not `ok`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"OVPT"
_START = struct.Struct("<4sI")
_REST = struct.Struct("<QQQ")
HEADER_BYTES = _START.size + _REST.size


class Painted(NamedTuple):
    """What an array says of itself; `stream` is a number, see `stream_number`."""

    run: int
    stream: int
    seq: int
    ok: bool


def paint(array: NDArray[Any], *, run: int = 0, stream: str = "", seq: int = 0) -> None:
    """Write the header into the first bytes of a C-contiguous array of 32 bytes or more.

    The last thing to be written to it. Raises ValueError where it does not fit.
    """
    if array.nbytes < HEADER_BYTES or not array.flags.c_contiguous:
        raise ValueError(f"an array to paint is C-contiguous, of {HEADER_BYTES} bytes or more")
    data = array.reshape(-1).view(np.uint8)
    rest = _REST.pack(run, stream_number(stream), seq)
    data[_START.size : HEADER_BYTES] = np.frombuffer(rest, np.uint8)
    start = _START.pack(_MAGIC, zlib.crc32(data[_START.size :].data))
    data[: _START.size] = np.frombuffer(start, np.uint8)


def check(array: NDArray[Any]) -> Painted:
    """Read it back; `ok` where the array is whole. Never raises."""
    if array.nbytes < HEADER_BYTES:
        return Painted(0, 0, 0, False)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    magic, crc = _START.unpack(data[: _START.size].tobytes())
    run, stream, seq = _REST.unpack(data[_START.size : HEADER_BYTES].tobytes())
    ok = magic == _MAGIC and crc == zlib.crc32(data[_START.size :].data)
    return Painted(run, stream, seq, ok)


def stream_number(stream: str) -> int:
    """The number that stands for a stream's key."""
    key = stream.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
