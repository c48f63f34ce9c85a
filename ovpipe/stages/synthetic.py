"""Synthetic: noise that can be checked, as fast as it is taken or at a steady rate.

The first 32 bytes of the array are a header, little-endian:

    magic        8 bytes  b"OVPSYN01"
    stream hash  8 bytes  BLAKE2b of the stream key
    seq          8 bytes
    crc32        4 bytes  of all bytes behind the header
    length       4 bytes  of these bytes, modulo 2**32

Law: the frames of one stream, seed, size and format are the same in every run, byte for byte;
`verify` raises for every frame whose pixels are not wholly its own. The noise is made once, a few
bodies of it that take turns, so that a frame costs one copy.
"""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ovpipe.errors import PreflightError
from ovpipe.frame import UNSET, Frame, Image
from ovpipe.image import ImageFormat, pixel_shape
from ovpipe.options import Size
from ovpipe.stages.base import Producer
from ovpipe.stages.pace import wait_until

MAGIC = b"OVPSYN01"
HEADER = struct.Struct("<8s8sQII")
_BODY_BYTES = 64 * 2**20
_MAX_BODIES = 7  # a prime: no pool has a slot that sees the same body each time
_MAX_BYTES = 2**30
_NOMINAL_FPS = 25.0
_NS = 10**9


class Synthetic(Producer):
    """Noise with a checksum painted in; the same in every run."""

    size: Annotated[Size, "width and height"] = (640, 480)
    fps: Annotated[float, Ge(0), "frames per second; 0: as fast as they are taken"] = 0.0
    count: Annotated[int, Ge(0), "how many frames; 0: endless"] = 0
    seed: Annotated[int, Ge(0), "another seed gives other noise"] = 0
    format: Annotated[Literal["bgr", "i420", "gray", "rgb"], "how the pixels are carried"] = "bgr"
    live: Annotated[bool, "behave as a camera: edges drop rather than wait"] = False

    _shape: tuple[int, ...] = ()
    _bodies: Any = None

    @property
    def frame_bytes(self) -> int:
        """Of its one picture."""
        return int(np.prod(self._shape))

    def open(self) -> None:
        """Make the noise. PreflightError for sizes that the format cannot have."""
        self._shape = _shape(self.size, self.format)
        length = self.frame_bytes - HEADER.size
        number = min(_MAX_BODIES, max(2, _BODY_BYTES // length))
        bodies = []
        for i in range(min(number, self.count) if self.count else number):
            body = np.random.default_rng([self.seed, i]).integers(0, 256, length, np.uint8)
            bodies.append((body, zlib.crc32(body.data)))
        self._bodies = bodies

    def close(self) -> None:
        """Forget the noise."""
        self._bodies = None

    def frames(self) -> Iterator[Frame]:
        """`count` frames, each at its time."""
        stream = self.context.stream
        key = _hash(stream)
        rate = self.fps or _NOMINAL_FPS
        meta = {"fps": rate}
        seq = self.context.first_seq
        began_ns = time.monotonic_ns() - round(seq * _NS / rate)
        while not self.context.stopping and (not self.count or seq < self.count):
            pts_ns = round(seq * _NS / rate)
            if self.fps and not wait_until(began_ns + pts_ns, self.context):
                return
            body, crc = self._bodies[seq % len(self._bodies)]
            data: NDArray[Any] = self.loan(self._shape, np.uint8)
            flat = data.reshape(-1)
            header = HEADER.pack(MAGIC, key, seq, crc, len(body) % 2**32)
            flat[: HEADER.size] = np.frombuffer(header, np.uint8)
            np.copyto(flat[HEADER.size :], body)
            yield Frame(image=Image(data, self.format), seq=seq, pts_ns=pts_ns, meta=meta)
            del data, flat  # or the slot stays loaned while the next frame waits for its time
            seq += 1


def verify(frame: Frame) -> None:
    """Raise ValueError, naming what differs, unless `frame` is whole and the one it says it is."""
    if frame.image is None:
        raise ValueError("the frame has no image")
    flat = np.ascontiguousarray(frame.image.data).reshape(-1)
    if flat.size < HEADER.size:
        raise ValueError(f"{flat.size} bytes are too few for a header")
    magic, key, seq, crc, length = HEADER.unpack(flat[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise ValueError(f"magic differs: {magic!r}, not {MAGIC!r}")
    if frame.stream and key != _hash(frame.stream):
        raise ValueError(f"stream differs: the pixels are not of stream '{frame.stream}'")
    if frame.seq not in (UNSET, seq):
        raise ValueError(f"seq differs: the pixels are of frame {seq}, not {frame.seq}")
    body = flat[HEADER.size :]
    if body.size % 2**32 != length:
        raise ValueError(f"length differs: {body.size} bytes behind the header, not {length}")
    actual = zlib.crc32(body.data)
    if actual != crc:
        raise ValueError(f"crc32 differs: {actual:08x}, not {crc:08x}: the pixels have changed")


def _hash(stream: str) -> bytes:
    return hashlib.blake2b(stream.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _shape(size: tuple[int, int], form: ImageFormat) -> tuple[int, ...]:
    text = f"size {size[0]}x{size[1]}"
    try:
        shape = pixel_shape(form, *size)
    except ValueError as error:
        raise PreflightError(f"{text}: {error}") from None
    nbytes = int(np.prod(shape))
    if min(size) < 1 or not HEADER.size < nbytes <= _MAX_BYTES:
        raise PreflightError(
            f"{text}: a frame takes more than {HEADER.size} bytes, for its header, and at most "
            f"{_MAX_BYTES}; this one is {nbytes}"
        )
    return shape
