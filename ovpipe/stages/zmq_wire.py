"""Zmq wire: frames to and from foreign processes, message parts <-> values. Pure.

    part 0   b"ovpipe1/" and the name of the stream: magic, version, and what SUB filters by
    part 1   a msgpack map:
             kind     "frame" or "end"; an end has no other part
             seq      the sender's own number of the frame, 0 where it has none
             pts_ns   time in the source, in ns, or nil
             image    {format: bgr | rgb | gray | i420, shape, matrix, full_range}, or nil;
                      matrix (bt601 | bt709) and full_range may be left out
             arrays   [{name, dtype, shape}, ...], may be left out; dtype as numpy names it
             meta     a map of anything msgpack knows, may be left out
             detections  what was found, as `jsonl` writes it; sent, and not read
    others   the bytes of the image, then those of each array: C order, little-endian, no padding

Law: `decode` gives a Packet or raises WireError naming the check that failed; no input makes it
raise anything else, or take more memory than the input has. Nothing in it is an object, a pointer
or a stride; an array's bytes are exactly as many as its shape says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import WireError
from ovpipe.frame import Frame, Image, ImageFormat, Matrix
from ovpipe.stages.jsonl import record

MAGIC = b"ovpipe1/"
MAX_ARRAYS = 8  # beside the image
MAX_PARTS = 3 + MAX_ARRAYS
MAX_HEADER = 1 << 16
MAX_BYTES = 1 << 28
"""Of one part."""
_MAX_NAME = 64
_MAX_STREAM = 256
_MAX_DIMS = 8
_PTS_LIMIT = 2**62
_DTYPES = frozenset(
    {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
     "float32", "float64", "bool"}
)  # fmt: skip
_KEYS = frozenset({"kind", "seq", "pts_ns", "image", "arrays", "meta", "detections"})


@dataclass(frozen=True, eq=False)
class Packet:
    """A decoded message. The arrays are read-only views of what came."""

    stream: str
    end: bool = False
    seq: int = 0
    pts_ns: int | None = None
    image: Image | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def encode(frame: Frame) -> list[Any]:
    """The parts of a frame; WireError where it cannot travel."""
    buffers, image = [], None
    if frame.image is not None:
        data = np.ascontiguousarray(frame.image.data)
        image = {
            "format": frame.image.format,
            "shape": list(data.shape),
            "matrix": frame.image.matrix,
            "full_range": frame.image.full_range,
        }
        buffers.append(data)
    arrays = []
    for name, array in frame.arrays.items():
        if array.dtype.name not in _DTYPES:
            raise WireError("dtype", f"arrays of {array.dtype} cannot be sent")
        arrays.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
        buffers.append(np.ascontiguousarray(array))
    header: dict[str, Any] = {
        "kind": "frame",
        "seq": frame.seq,
        "pts_ns": frame.pts_ns,
        "image": image,
        "arrays": arrays,
        "meta": dict(frame.meta),
    }
    if frame.detections is not None:
        header["detections"] = record(frame)["detections"]
    try:
        packed = msgpack.packb(header)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError("meta", f"metadata cannot be sent: {error}") from None
    if len(packed) > MAX_HEADER:
        raise WireError("size", f"metadata of {len(packed)} bytes; put large data into arrays")
    return [MAGIC + frame.stream.encode(), packed, *buffers]


def encode_end(stream: str) -> list[bytes]:
    """The parts that say that a stream has ended."""
    return [MAGIC + stream.encode(), cast(bytes, msgpack.packb({"kind": "end"}))]


def decode(parts: Sequence[bytes | memoryview]) -> Packet:
    """The value of a message."""
    if not 2 <= len(parts) <= MAX_PARTS:
        raise WireError("parts", f"{len(parts)} parts")
    topic, packed, *buffers = parts
    stream = _stream(bytes(topic[: len(MAGIC) + _MAX_STREAM + 1]))
    header = _header(packed)
    if header.get("kind") == "end":
        if buffers:
            raise WireError("parts", "an end with pixels")
        return Packet(stream, end=True)
    if header.get("kind") != "frame":
        raise WireError("kind", "neither frame nor end")
    image, named = header.get("image"), header.get("arrays") or []
    if not isinstance(named, list) or len(named) > MAX_ARRAYS:
        raise WireError("arrays", "no list of at most eight")
    if len(buffers) != len(named) + (image is not None) or not buffers:
        raise WireError("parts", f"{len(buffers)} buffers for what the header names")
    picture = None if image is None else _image(image, buffers.pop(0))
    arrays: dict[str, NDArray[Any]] = {}
    for one, buffer in zip(named, buffers, strict=True):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _MAX_NAME:
            raise WireError("name", "an array without a name of 1 to 64 bytes")
        if name in arrays or name == "image":
            raise WireError("name", "two arrays of one name, or one called image")
        dtype = one.get("dtype")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise WireError("dtype", "no dtype that can be received")
        arrays[name] = _array(buffer, dtype, one.get("shape"))
    meta = header.get("meta") or {}
    if not isinstance(meta, dict) or not all(isinstance(key, str) for key in meta):
        raise WireError("meta", "no map with names")
    pts_ns = header.get("pts_ns")
    if pts_ns is not None:
        pts_ns = _whole("pts_ns", pts_ns, -_PTS_LIMIT, _PTS_LIMIT)
    seq = _whole("seq", header.get("seq", 0), 0, 2**63)
    return Packet(stream, False, seq, pts_ns, picture, arrays, meta)


def _stream(topic: bytes) -> str:
    if not topic.startswith(MAGIC) or len(topic) > len(MAGIC) + _MAX_STREAM:
        raise WireError("magic", "not of this protocol and version")
    try:
        return topic[len(MAGIC) :].decode()
    except UnicodeDecodeError:
        raise WireError("stream", "a name that is no UTF-8") from None


def _header(packed: bytes | memoryview) -> dict[str, Any]:
    if len(packed) > MAX_HEADER:
        raise WireError("size", f"a header of {len(packed)} bytes")
    try:
        header = msgpack.unpackb(packed, strict_map_key=False)
    except Exception:  # noqa: BLE001 - it has errors of many kinds, and all mean the same
        raise WireError("msgpack", "no msgpack") from None
    if not isinstance(header, dict) or not _KEYS.issuperset(
        key if isinstance(key, str) else "" for key in header
    ):
        raise WireError("header", "no map with the keys of this protocol")
    return header


def _image(said: Any, buffer: bytes | memoryview) -> Image:
    if not isinstance(said, dict):
        raise WireError("image", "no map")
    form, matrix = said.get("format"), said.get("matrix", "bt601")
    full = said.get("full_range", False)
    if not isinstance(form, str) or not isinstance(matrix, str) or not isinstance(full, bool):
        raise WireError("image", "format, matrix or full_range of another type")
    try:
        data = _array(buffer, "uint8", said.get("shape"))
        return Image(data, cast(ImageFormat, form), cast(Matrix, matrix), full)
    except ValueError as error:
        raise WireError("image", str(error)) from None


def _array(buffer: bytes | memoryview, dtype: str, shape: Any) -> NDArray[Any]:
    if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMS:
        raise WireError("shape", "no list of one to eight numbers")
    sides = [_whole("shape", side, 1, 2**31) for side in shape]
    size = prod(sides) * np.dtype(dtype).itemsize
    if size != len(buffer) or size > MAX_BYTES:
        raise WireError("size", f"{len(buffer)} bytes for {size}")
    array = np.frombuffer(buffer, dtype).reshape(sides)
    array.flags.writeable = False
    return array


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value < most:  # True is an int
        raise WireError(name, "no whole number within bounds")
    return value
