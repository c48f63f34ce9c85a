"""VideoWriter: a video file per stream, playable up to its last second whatever happens.

mp4 is written in fragments and mkv in clusters, each beginning at a keyframe, at least one every
`gop`; each is handed to the system when it is whole. So after SIGKILL the file plays, without
what the encoder and the last fragment held.

Law: within a file times rise strictly, and size, matrix and range stay; where these change, the
next file begins (`yard-2.mp4`). A file that exists is not touched, unless `overwrite` says so,
and then only what was there before the run. Where the disk is full, frames fail with `disk_full`,
the file ends with the last block that found room, and the next one begins once there is space; the
frames that the encoder held at that moment are in no file.

An I420 frame goes to the encoder as it is; other formats are converted by swscale. H.264 takes
even sizes only: an odd column or row is cut off.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.options import Duration
from ovpipe.stages.base import Consumer
from ovpipe.stages.media import library
from ovpipe.stages.paths import FULL, for_stream, prepare, unwritable
from ovpipe.stages.recording import Encoding, File, Kind, Recording

_FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
_NOMINAL_FPS = 25.0
_RETRY_S = 1.0
# With less, no block of a file would fit, which shows only when the encoder gives the first one.
_LEAST_FREE_BYTES = 2**16


class VideoWriter(Consumer):
    """Writes frames to mp4 or mkv files that survive being killed."""

    one_process: ClassVar[bool] = True

    requires: ClassVar[dict[str, str]] = {"av": "video"}

    path: Annotated[str, ".mp4 or .mkv; {stream} in it is the name of the stream"]
    codec: Annotated[str, "encoder, as FFmpeg calls it"] = "libx264"
    quality: Annotated[int, Ge(0), Le(63), "constant rate factor: lower is better and larger"] = 23
    preset: Annotated[str, "speed of the encoder, for x264 and x265"] = "veryfast"
    fps: Annotated[float, Ge(0), "rate of the file; 0: the frames' own times"] = 0.0
    gop: Annotated[Duration, Gt(0), "most time between keyframes: what a kill can cost"] = 1.0
    overwrite: Annotated[bool, "replace files of earlier runs; else take the next free name"] = (
        False
    )

    _recordings: Any = None
    _written: Any = None
    _retry_s: float = 0.0

    def open(self) -> None:
        """Try folder, container and codec. PreflightError for whatever cannot be."""
        self._recordings, self._written = {}, set()
        library()
        if Path(self.path).suffix.lower() not in _FORMATS:
            raise PreflightError(
                f"path '{self.path}': the end of the name chooses the container: .mp4 or .mkv"
            )
        prepare(self.path)
        self._try_codec()

    def consume(self, frame: Frame) -> None:
        """Encode the frame; FrameError for a frame that has no image or finds no space."""
        image = frame.image
        if image is None or image.width < 2 or image.height < 2:
            raise FrameError("the frame has no image to write", "malformed")
        kind = Kind.of(image)
        recording = self._recordings.get(frame.stream)
        if recording is not None and recording.kind != kind:
            self.end_of_stream(frame.stream)
            recording = None
        try:
            if recording is None:
                recording = self._begin(frame, kind)
            recording.write(frame)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._retry_s = time.monotonic() + _RETRY_S
            broken = self._recordings.pop(frame.stream, None)
            if broken is not None:
                broken.abandon()
                self._written = {path for path in self._written if path.exists()}
            raise FrameError(f"no space for '{self.path}'", "disk_full") from error

    def end_of_stream(self, stream: str) -> None:
        """Finish the stream's file."""
        recording = self._recordings.pop(stream, None)
        if recording is not None:
            recording.finish()

    def close(self) -> None:
        """Finish all files."""
        for stream in list(self._recordings or ()):
            self.end_of_stream(stream)

    def _begin(self, frame: Frame, kind: Kind) -> Recording:
        if time.monotonic() < self._retry_s:
            raise FrameError(f"no space for '{self.path}'", "disk_full")
        wanted = for_stream(self.path, frame.stream)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(wanted.parent).free < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path, number = wanted, 1
        while path in self._written or (path.exists() and not self.overwrite):
            number += 1
            path = wanted.with_stem(f"{wanted.stem}-{number}")
        try:
            file = File(path, "w" if self.overwrite else "x")
        except OSError as error:
            if error.errno in FULL:
                raise
            raise unwritable(path, error) from None
        recording = self._recordings[frame.stream] = Recording(file, kind, self._encoding(frame))
        self._written.add(path)
        return recording

    def _encoding(self, frame: Frame) -> Encoding:
        rate = self.fps or _number(frame.meta.get("fps")) or _NOMINAL_FPS
        container = _FORMATS[Path(self.path).suffix.lower()]
        options = self._encoder_options()
        return Encoding(container, self.codec, options, rate, bool(self.fps), self.gop)

    def _encoder_options(self) -> dict[str, str]:
        if self.codec in ("libx264", "libx265", "h264", "hevc"):
            options = {"crf": str(self.quality), "preset": self.preset, "forced-idr": "1"}
            if self.codec in ("libx265", "hevc"):
                # It writes to stderr by itself; and of a video that is shorter than its B-frames
                # reach back it gives packets whose decoding time was never set.
                options["x265-params"] = "log-level=error:bframes=0"
            return options
        if self.codec.startswith("libvpx"):
            return {"crf": str(self.quality), "b": "0", "deadline": "realtime"}
        return {}

    def _try_codec(self) -> None:
        """A small video into memory: whether this codec, preset and container go together."""
        av = library()
        try:
            codec = av.codec.Codec(self.codec, "w")
        except ValueError:
            codec = None
        if codec is None or codec.type != "video":
            known = ("libx264", "libx265", "libvpx-vp9", "mpeg4")
            here = ", ".join(name for name in known if name in av.codecs_available)
            raise PreflightError(f"no video encoder '{self.codec}' here; there are {here}")
        image = Image(np.zeros((64, 64), np.uint8), "gray")
        frame = Frame(image=image)
        try:
            trial = Recording(io.BytesIO(), Kind.of(image), self._encoding(frame))
            trial.write(frame)
            trial.finish()
        except av.error.FFmpegError as error:
            raise PreflightError(
                f"codec '{self.codec}' (preset '{self.preset}', quality {self.quality}) does not "
                f"write to {Path(self.path).suffix}: {error.strerror or error}; "
                "try codec libx264, preset veryfast"
            ) from None


def _number(value: object) -> float:
    """A rate from metadata, or 0 where it is none."""
    return float(value) if isinstance(value, int | float) and 0 < value <= 1000 else 0.0
