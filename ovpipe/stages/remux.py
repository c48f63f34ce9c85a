"""Remux: the original packets of a source into a file, nothing decoded, nothing encoded.

Law: what is written can be decoded: it begins with a key frame, and after a hole (an edge dropped
a frame, and with it its packets) nothing is written until the next one. A packet of a picture that
comes before its key frame in time and after it in the file (an open group) is left out where the
file begins there. Times in a file begin at 0 and are the source's own, pts and dts; where the
source begins to count anew, the time that has passed for the frames has passed for the packets.
"""

from __future__ import annotations

import io
from typing import Any

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.media import library
from ovpipe.stages.packets import Origin, Packet, Parcel, parcel_of, template
from ovpipe.stages.recording import Hook, Output

_NS = 10**9
_STEP_S = 0.04  # where a packet has no times at all


class Follow:
    """Which packets of one stream can be decoded. Pure.

    `left_out` counts those that cannot be; `whole` is False while a key frame is waited for.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self.whole = False
        self._origin: Origin | None = None
        self._next = 0
        self._key_pts: int | None = None

    def lose(self) -> None:
        """What was taken last is not written: the next key frame is waited for."""
        self.whole = False

    def take(self, parcel: Parcel) -> list[Packet]:
        """Those of a parcel that can be written, in order."""
        if parcel.origin != self._origin:
            self._origin, self.whole = parcel.origin, False
        taken = []
        for packet in parcel.packets:
            if packet.number != self._next:
                self.whole = False
            self._next = packet.number + 1
            if packet.key:
                self._key_pts = None if self.whole else packet.pts
                self.whole = True
            elif self._leads(packet):
                self.left_out += 1
                continue
            if self.whole:
                taken.append(packet)
            else:
                self.left_out += 1
        return taken

    def _leads(self, packet: Packet) -> bool:
        """True for a picture shown before the key frame at which we began."""
        if self._key_pts is None or packet.pts is None or packet.pts >= self._key_pts:
            return False
        return self.whole


class Copy(Output):
    """Packets of one header, in one file."""

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        origin: Origin,
        container: str,
        hook: Hook | None = None,
    ) -> None:
        super().__init__(file, container, hook)
        self.kind = origin.header, origin.base
        self._origin = origin
        self._base = origin.base
        # Its streams are gone when it is: kept as long as what is made of them.
        self._template = template(origin.header)
        like = self._template.streams.video[0]
        try:
            self._stream = self._container.add_stream_from_template(like, opaque=True)
        except ValueError:
            raise PreflightError(
                f"record: original: the source's video is {like.codec_context.name}, which does "
                f"not go into {container}; try .mkv, or `record: encoded`"
            ) from None
        self._stream.time_base = origin.base
        self._step = max(1, round(_STEP_S / self._base))
        self._shift: int | None = None
        self._offset_ns: int | None = None
        self._last: int | None = None

    @property
    def header(self) -> bytes:
        """The source's own."""
        return self._origin.header

    def elapsed_s(self, piece: tuple[Packet, int | None]) -> float:
        """How long the file would be before this packet."""
        return float(self._times(*piece)[0] * self._base) if self._last is not None else 0.0

    def write(self, piece: tuple[Packet, int | None]) -> None:
        """One packet, and what is added to its times to make them the frames'."""
        packet, offset_ns = piece
        pts, dts = self._times(packet, offset_ns)
        made: Any = library().Packet(bytes(packet.data))
        made.stream, made.time_base, made.is_keyframe = self._stream, self._base, packet.key
        made.pts, made.dts, made.duration = pts, dts, max(0, packet.duration)
        self._last = dts
        self._mux(made)

    def _times(self, packet: Packet, offset_ns: int | None) -> tuple[int, int]:
        """(pts, dts) in the file; dts rise, and no picture is shown before it is decoded."""
        last = self._last
        expected = 0 if last is None else last + max(1, packet.duration or self._step)
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            return expected, expected
        if self._shift is None:
            self._shift = dts
        elif offset_ns != self._offset_ns and None not in (offset_ns, self._offset_ns):
            passed_ns = (offset_ns or 0) - (self._offset_ns or 0)
            self._shift -= round(passed_ns / _NS / self._base)
        self._offset_ns = offset_ns
        placed = dts - self._shift
        if last is not None and (packet.dts is None or placed <= last):
            # Matroska tells none for the first of a video with B-frames: no room is wasted.
            placed = last + 1
        pts = placed if packet.pts is None else max(packet.pts - self._shift, placed)
        return pts, placed


def parcel_in(frame: Frame) -> Parcel:
    """The packets that a frame carries; PreflightError where nobody gave it any."""
    parcel = parcel_of(frame)
    if parcel is None:
        raise PreflightError(
            f"record: original: the frames of stream '{frame.stream}' carry no packets; say "
            "`packets: true` at its `kind: video`, and read it directly or through stages that "
            "pass frames on (synthetic frames, images and pipes have none)"
        )
    return parcel
