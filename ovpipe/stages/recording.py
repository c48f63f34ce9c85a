"""Recording: one video file being written, frame by frame.

Law: times in the file begin at 0 and rise strictly; the file ends with whole blocks, also where
the disk is full; a file of which nothing plays does not stay. What is written to is a file on the
disk, or whatever takes the blocks of one (`ovpipe.stages.hls`, `ovpipe.stages.publish`).
"""

from __future__ import annotations

import io
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovpipe.frame import Frame, Image, Matrix
from ovpipe.stages.media import library
from ovpipe.stages.packets import header_of
from ovpipe.stages.paths import astray

_FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
# A block a second, at least: key frames of a camera may be far apart.
_CONTAINER = {
    "mp4": (
        "mp4",
        {"movflags": _FRAGMENTS, "frag_duration": "1000000", "flush_packets": "1"},
    ),
    "matroska": ("matroska", {"cluster_time_limit": "1000", "flush_packets": "1"}),
    "hls": ("mp4", {"movflags": f"{_FRAGMENTS}+skip_trailer", "flush_packets": "1"}),
    "nut": ("nut", {"flush_packets": "1"}),
}
_CLOCK = 60_000  # ticks per second: whole numbers for 24, 25, 29.97, 30 fps and milliseconds
Hook = Callable[[float, bool], None]
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


class Output(ABC):
    """One container being written. Raises OSError where the disk is full.

    `hook`: called after each packet with its time in the file, in seconds, and whether it is a
    key frame's: then all before that one is written.
    """

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        container: str,
        hook: Hook | None = None,
    ) -> None:
        self.file = file
        self._hook = hook
        form, options = _CONTAINER[container]
        self._container = library().open(file, "w", format=form, options=dict(options))

    @property
    @abstractmethod
    def header(self) -> bytes:
        """What is to be known to write its packets elsewhere; after `start`."""

    def start(self) -> None:
        """Write the header now, rather than with the first packet."""
        self._run(self._container.start_encoding)

    def finish(self) -> None:
        """Write what is still held, and close."""
        try:
            self._flush()
            self._run(self._container.close)
            self.file.close()
        except OSError as error:
            _log.warning("the end of %s is lost: %s", _name(self.file), error)
            self.abandon()

    def abandon(self) -> None:
        """Give the file up as it is; where nothing of it plays, it goes."""
        with suppress(OSError):
            self._run(self._container.close)
        with suppress(OSError):
            self.file.close()
        file = self.file
        if isinstance(file, File) and not file.astray() and not _plays(Path(str(file.name))):
            with suppress(OSError):
                os.unlink(file.name)

    def _flush(self) -> None:
        """Write what is held before the end."""

    def _mux(self, packet: Any) -> None:
        # Read first: to write a packet is to change its times, and to give it away.
        at_s, key = float(packet.pts * packet.time_base), packet.is_keyframe
        self._run(self._container.mux, packet)
        if self._hook is not None:
            self._hook(at_s, key)

    def _run(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except library().error.FFmpegError:
            # What the file said, where FFmpeg has made an error of its own of it.
            cause = getattr(self.file, "error", None)
            if cause is not None:
                raise cause from None
            raise


class Recording(Output):
    """Frames, encoded into one file."""

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        kind: Kind,
        how: Encoding,
        hook: Hook | None = None,
    ) -> None:
        super().__init__(file, how.container, hook)
        self.kind = kind
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

    @property
    def header(self) -> bytes:
        """As `ovpipe.stages.packets` makes it."""
        return header_of(self._stream)

    def elapsed_s(self, frame: Frame) -> float:
        """How long the file would be before this frame."""
        return self._ticks(frame.pts_ns) / _CLOCK

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
        for packet in self._stream.encode(picture):
            self._mux(packet)

    def _flush(self) -> None:
        for packet in self._stream.encode():
            self._mux(packet)

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
    """Takes blocks whole or not at all; after one that found no room, none: what is there plays.

    `room`: asked where the disk is full; True where something was deleted, so that it is worth
    another try.
    """

    def __init__(
        self, path: Path, mode: str, room: Callable[[OSError], bool] = lambda error: False
    ) -> None:
        super().__init__(path, mode)
        self.error: OSError | None = None
        self._room = room
        self._path = path
        self._state = os.fstat(self.fileno())

    def astray(self) -> bool:
        """Whether it was moved or deleted."""
        return astray(self._path, self._state)

    def write(self, data: Any) -> int:
        """Raises OSError once; what closes the container afterwards is let pass."""
        block = memoryview(data)
        written, start = 0, self.tell()
        while written < len(block) and self.error is None:
            try:
                written += super().write(block[written:]) or 0
            except OSError as error:
                self.truncate(start)
                self.seek(start)
                written = 0
                if not self._room(error):
                    self.error = error
                    raise
        return len(block)


def _name(file: Any) -> str:
    return str(getattr(file, "name", "the recording"))


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
