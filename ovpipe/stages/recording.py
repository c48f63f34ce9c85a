"""Recording: one video file being written, frame by frame.

Law: times in the file begin at 0 and rise strictly; the file ends with whole blocks, also where
the disk is full; a file of which nothing plays does not stay.
"""

from __future__ import annotations

import io
import logging
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovpipe.frame import Frame, Image, Matrix
from ovpipe.stages.media import library

_CONTAINER = {
    "mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"},
    "matroska": {"cluster_time_limit": "1000", "flush_packets": "1"},
}
_CLOCK = 60_000  # ticks per second: whole numbers for 24, 25, 29.97, 30 fps and milliseconds
_log = logging.getLogger("ovpipe")


class Kind(NamedTuple):
    """What may not change within a file; width and height are even."""

    width: int
    height: int
    matrix: Matrix
    full_range: bool

    @classmethod
    def of(cls, image: Image) -> Kind:
        """An odd column or row is cut off."""
        return cls(image.width & ~1, image.height & ~1, image.matrix, image.full_range)

    @property
    def colorspace(self) -> int:
        """As FFmpeg numbers it."""
        return 1 if self.matrix == "bt709" else 5

    @property
    def color_range(self) -> int:
        """As FFmpeg numbers it."""
        return 2 if self.full_range else 1


class Encoding(NamedTuple):
    """How a file is encoded. `rate`: nominal; `constant`: frames are `1/rate` apart, always."""

    container: str
    codec: str
    options: dict[str, str]
    rate: float
    constant: bool
    gop_s: float


class Recording:
    """One file being written. Raises OSError where the disk is full."""

    def __init__(self, file: io.FileIO | io.BytesIO, kind: Kind, how: Encoding) -> None:
        self.kind = kind
        self._file = file
        options = dict(_CONTAINER[how.container])
        self._container = library().open(file, "w", format=how.container, options=options)
        rate = Fraction(how.rate).limit_denominator(1001)
        stream = self._container.add_stream(how.codec, rate=rate, options=dict(how.options))
        stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, _CLOCK)
        context.gop_size = max(1, round(how.gop_s * how.rate))
        context.thread_count = 2
        context.colorspace, context.color_range = kind.colorspace, kind.color_range
        self._stream = stream
        self._step = max(1, round(_CLOCK / how.rate))
        self._gop = round(how.gop_s * _CLOCK)
        self._constant = how.constant
        self._base_ns: int | None = None
        self._last: int | None = None
        self._key = 0

    def write(self, frame: Frame) -> None:
        """Encode one frame at its time."""
        assert frame.image is not None
        picture = _picture(frame.image)
        picture.pts = ticks = self._ticks(frame.pts_ns)
        picture.time_base = Fraction(1, _CLOCK)
        if self._last is None or ticks - self._key >= self._gop:
            picture.pict_type = 1  # I: frames may come slower than their rate says
            self._key = ticks
        self._last = ticks
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds, and close."""
        try:
            self._mux(self._stream.encode())
            self._close()
        except OSError as error:
            _log.warning("the end of %s is lost: %s", self._file.name, error)
            self.abandon()
        self._file.close()

    def abandon(self) -> None:
        """Give the file up as it is; where nothing of it plays, it goes."""
        with suppress(OSError):
            self._close()
        self._file.close()
        if isinstance(self._file, io.FileIO) and not _plays(Path(self._file.name)):
            with suppress(OSError):
                os.unlink(self._file.name)

    def _mux(self, packets: list[Any]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except library().error.FFmpegError:
            self._raise_cause()
            raise

    def _close(self) -> None:
        try:
            self._container.close()
        except library().error.FFmpegError:
            self._raise_cause()
            raise

    def _raise_cause(self) -> None:
        """What the file said, where FFmpeg has made an error of its own of it."""
        if isinstance(self._file, File) and self._file.error is not None:
            raise self._file.error

    def _ticks(self, pts_ns: int | None) -> int:
        """Time in the file: from 0, rising; a step back in the source goes on one step later."""
        last = self._last
        if self._constant or pts_ns is None:
            return 0 if last is None else last + self._step
        if self._base_ns is None:
            self._base_ns = pts_ns - (0 if last is None else _ns(last + self._step))
        ticks = round((pts_ns - self._base_ns) * _CLOCK / 10**9)
        if last is not None and ticks <= last:
            ticks = last + self._step
            self._base_ns = pts_ns - _ns(ticks)
        return ticks


class File(io.FileIO):
    """Takes blocks whole or not at all; after one that found no room, none: what is there plays."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Raises OSError once; what closes the container afterwards is let pass."""
        block = memoryview(data)
        written = 0
        try:
            while written < len(block) and self.error is None:
                written += super().write(block[written:]) or 0
        except OSError as error:
            self.error = error
            self.truncate(self.tell() - written)
            raise
        return len(block)


def _plays(path: Path) -> bool:
    """True where at least one frame can be read back."""
    av = library()
    try:
        with av.open(f"file:{path}") as container:
            return next(container.decode(video=0), None) is not None
    except (OSError, ValueError, IndexError, av.error.FFmpegError):
        return False


def _ns(ticks: int) -> int:
    return ticks * 10**9 // _CLOCK


def _picture(image: Image) -> Any:
    """The image for the encoder; I420 is not copied on its way."""
    video_frame = library().VideoFrame
    kind = Kind.of(image)
    data = image.data
    if image.format == "i420":
        picture = video_frame.from_numpy_buffer(np.ascontiguousarray(data), "yuv420p")
    else:
        even = np.ascontiguousarray(data[: kind.height, : kind.width])
        packed = "gray" if image.format == "gray" else f"{image.format}24"
        picture = video_frame.from_numpy_buffer(even, packed).reformat(
            format="yuv420p",
            dst_colorspace=kind.colorspace,
            dst_color_range=kind.color_range,
            threads=1,
        )
    picture.colorspace, picture.color_range = kind.colorspace, kind.color_range
    return picture
