"""Packets: the compressed video of a source, carried beside its decoded frames.

A frame of `video` with `packets: true` has one more array, `packets`: the packets that came since
the frame before it, as the source sent them, among them those that no frame came of (thinned out,
not decodable, no key frame). Who records the original (`record: original`) needs nothing else.

    header     what a muxer must know of the stream: codec, size, parameter sets (a NUT header)
    base       the unit of the packets' times, in seconds
    offset_ns  from a packet's time to the frames' (`pts_ns`), or None where the source tells none
    origin     changes with each connection, and each round of a loop: times begin anew there
    number     of a packet, from 0 within an origin: a hole in the numbers is a loss
    key        decoding can begin here

Law: the array describes itself, and what does not fit together is refused as `malformed`. A source
keeps at most MAX_BYTES that no frame has taken along: then the oldest go, and leave a hole.
"""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.media import library

NAME = "packets"
MAX_BYTES = 64 * 2**20
MAX_PACKETS = 1 << 14
_HEAD = struct.Struct("<4sIIIqqqq")  # magic, packets, header, -, origin, offset, base
_MAGIC = b"ovp1"
_COLUMNS = 6
_NONE = -(2**63)
_MAX_HEADER_BYTES = 1 << 20


class Packet(NamedTuple):
    """One packet of compressed video; times in the unit of its stream."""

    number: int
    data: bytes | NDArray[np.uint8]
    pts: int | None
    dts: int | None
    duration: int
    key: bool


@dataclass(frozen=True)
class Origin:
    """Where packets come from: what is the same for all of one connection."""

    header: bytes
    base: Fraction
    number: int = 0


@dataclass(frozen=True)
class Parcel:
    """What one frame carries."""

    origin: Origin
    offset_ns: int | None
    packets: list[Packet]


class Pending:
    """Packets that wait for the next frame, oldest first."""

    def __init__(self) -> None:
        self._packets: deque[Packet] = deque()
        self._bytes = 0

    def add(self, packets: Iterable[Packet]) -> None:
        """Put packets behind those that wait; the oldest go where there is no room."""
        for packet in packets:
            self._packets.append(packet)
            self._bytes += len(packet.data)
        while self._bytes > MAX_BYTES or len(self._packets) > MAX_PACKETS:
            self._bytes -= len(self._packets.popleft().data)

    def take(self) -> list[Packet]:
        """All of them; none is left."""
        taken = list(self._packets)
        self._packets.clear()
        self._bytes = 0
        return taken


class Tap:
    """Takes what a demuxer gives, before it is decoded, and numbers it."""

    def __init__(self, stream: Any, number: int) -> None:
        self.origin = Origin(header_of(stream), stream.time_base, number)
        self.pending = Pending()
        self._count = 0

    def __call__(self, packet: Any) -> None:
        """A packet of av's; its bytes are copied."""
        taken = Packet(
            self._count,
            bytes(packet),
            packet.pts,
            packet.dts,
            packet.duration or 0,
            bool(packet.is_keyframe),
        )
        self.pending.add((taken,))
        self._count += 1


def header_of(stream: Any) -> bytes:
    """What another process needs to write packets of this stream: `template` is the way back.

    A NUT file of one packet: NUT holds any codec, and its parameter sets as they are.
    """
    target = io.BytesIO()
    with library().open(target, "w", format="nut") as container:
        made = container.add_stream_from_template(stream, opaque=True)
        packet = library().Packet(bytes(4))
        packet.stream, packet.time_base, packet.is_keyframe = made, stream.time_base, True
        packet.pts = packet.dts = 0
        container.mux(packet)
    return target.getvalue()


def template(header: bytes) -> Any:
    """An open container whose first video stream is like the one that `header` was made of."""
    options = {"probesize": "32", "analyzeduration": "0"}
    return library().open(io.BytesIO(header), format="nut", options=options)


def packed(
    parcel: Parcel, loan: Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]
) -> NDArray[Any]:
    """A parcel as one array, in memory from `loan`."""
    origin, packets = parcel.origin, parcel.packets
    offset_ns = _NONE if parcel.offset_ns is None else parcel.offset_ns
    base = origin.base
    head = _HEAD.pack(
        _MAGIC, len(packets), len(origin.header), 0,
        origin.number, offset_ns, base.numerator, base.denominator,
    )  # fmt: skip
    table = np.array(
        [
            (p.number, len(p.data), _number(p.pts), _number(p.dts), p.duration, p.key)
            for p in packets
        ],
        "<i8",
    )
    data = b"".join((head, table.tobytes(), origin.header, *(bytes(p.data) for p in packets)))
    array = loan((len(data),), np.uint8)
    array[:] = np.frombuffer(data, np.uint8)
    return array


def parcel_of(frame: Frame) -> Parcel | None:
    """What the frame carries, its packets as views; None where it carries none."""
    array = frame.arrays.get(NAME)
    if array is None:
        return None
    try:
        return _parcel(array)
    except (ValueError, ZeroDivisionError, struct.error) as error:
        raise FrameError(f"array '{NAME}' holds no packets: {error}", "malformed") from None


def _parcel(array: NDArray[Any]) -> Parcel:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"{array.dtype} of {array.ndim} dimensions")
    magic, count, header_bytes, _, number, offset_ns, numerator, denominator = _HEAD.unpack(
        array[: _HEAD.size].tobytes()
    )
    if magic != _MAGIC or count > MAX_PACKETS or header_bytes > _MAX_HEADER_BYTES:
        raise ValueError("no such beginning")
    at = _HEAD.size + count * _COLUMNS * 8
    table = np.frombuffer(array[_HEAD.size : at].tobytes(), "<i8").reshape(count, _COLUMNS)
    sizes = table[:, 1]
    if (sizes < 0).any() or at + header_bytes + int(sizes.sum()) != array.size:
        raise ValueError("the sizes do not add up")
    base = Fraction(numerator, denominator)
    if not 0 < base <= 3600:
        raise ValueError(f"a unit of time of {base} s")
    origin = Origin(array[at : at + header_bytes].tobytes(), base, number)
    at += header_bytes
    packets = []
    for row in table.tolist():
        end = at + row[1]
        packets.append(
            Packet(row[0], array[at:end], _time(row[2]), _time(row[3]), row[4], bool(row[5]))
        )
        at = end
    return Parcel(origin, None if offset_ns == _NONE else offset_ns, packets)


def _number(time: int | None) -> int:
    return _NONE if time is None else time


def _time(number: int) -> int | None:
    return None if number == _NONE else number
