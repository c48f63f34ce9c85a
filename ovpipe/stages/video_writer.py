"""VideoWriter: streams recorded as files, shown as HLS, or published at a server.

    path: rec/{stream}.mp4                    a file a stream, playable whatever ends it
    path: rec/{stream}/{time:%H-%M-%S}.mp4    with `segment: 1m`, a file a minute
    path: www/{stream}/index.m3u8             HLS
    path: rtsp://host/{stream}                published

mp4 is written in fragments and mkv in clusters, one at each keyframe and at least one a second;
each is handed to the system when it is whole. So after SIGKILL the file plays, without what the
encoder and the last fragment held.

Law: within a file times rise strictly, and size, matrix and range stay; where these change, the
next file begins (`yard-2.mp4`). A file that exists is not touched, unless `overwrite` says so,
and then only what was there before the run. Where the disk is full, the oldest files make room if
`keep` says how much may stay; else frames fail with `disk_full`, the file ends with the last block
that found room, and the next one begins once there is space; the frames that the encoder held at
that moment are in no file. Where a file was moved or deleted, the next one begins, and the log
says so.

An I420 frame goes to the encoder as it is; other formats are converted by swscale. H.264 takes
even sizes only: an odd column or row is cut off. With `record: original` no picture is touched:
the packets that the source sent are written (`ovpipe.stages.remux`).
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.options import Duration
from ovpipe.stages.address import Transport
from ovpipe.stages.base import Consumer
from ovpipe.stages.hls import Hls
from ovpipe.stages.media import library
from ovpipe.stages.naming import Facts, Pattern
from ovpipe.stages.packets import Parcel
from ovpipe.stages.paths import FULL, prepare
from ovpipe.stages.publish import FORMATS, Publish, scheme_of
from ovpipe.stages.recording import Encoding, Kind, Output, Recording
from ovpipe.stages.remux import Copy, Follow, parcel_in
from ovpipe.stages.retention import Keep
from ovpipe.stages.segments import Files, Target

_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".m3u8": "hls"}
_NOMINAL_FPS = 25.0
_RETRY_S = 1.0
_HLS_SEGMENT_S = 4.0
_EARLY_S = 1e-6
Make = Callable[[Any], Output]
"""A file, or what takes the blocks of one -> the recording in it."""


class VideoWriter(Consumer):
    """Records streams as mp4 or mkv files, shows them as HLS, or publishes them (RTSP, RTMP)."""

    one_process: ClassVar[bool] = True

    requires: ClassVar[dict[str, str]] = {"av": "video"}

    path: Annotated[
        str,
        ".mp4, .mkv or .m3u8, or an rtsp: or rtmp: address; {stream}, {time:%H-%M-%S}, {n}, {seq} "
        "and {label} in it are filled in",
    ]
    record: Annotated[
        Literal["encoded", "original"],
        "encoded: the frames; original: the packets of the source as they came",
    ] = "encoded"
    segment: Annotated[Duration, Ge(0), "begin a new file after so long; 0: one file"] = 0.0
    keep: Annotated[Keep | None, "with segment: how much stays; the oldest are deleted"] = None
    window: Annotated[Duration, Gt(0), "of HLS: how much the playlist shows"] = 60.0
    utc: Annotated[bool, "{time} is UTC rather than local time"] = False
    codec: Annotated[str, "encoder, as FFmpeg calls it"] = "libx264"
    quality: Annotated[int, Ge(0), Le(63), "constant rate factor: lower is better and larger"] = 23
    preset: Annotated[str, "speed of the encoder, for x264 and x265"] = "veryfast"
    fps: Annotated[float, Ge(0), "rate of the file; 0: the frames' own times"] = 0.0
    gop: Annotated[Duration, Gt(0), "most time between keyframes"] = 1.0
    overwrite: Annotated[bool, "replace files of earlier runs; else take the next free name"] = (
        False
    )
    username: Annotated[str, "name for an address"] = ""
    password: Annotated[str, "password for an address; use a variable"] = ""
    transport: Annotated[Transport, "how RTSP carries its packets"] = "tcp"
    timeout: Annotated[Duration, Gt(0), "after so long a server that takes nothing is left"] = 5.0

    _target: Any = None
    _recordings: Any = None
    _follows: Any = None
    _reasons: Any = None
    _retry_s: float = 0.0
    _wall_s: Any = None

    def open(self) -> None:
        """Try folder, container and codec. PreflightError for whatever cannot be."""
        self._recordings, self._follows, self._reasons = {}, {}, {}
        library()
        self._target = self._chosen(scheme_of(self.path))
        if self.record == "encoded":
            self._try_codec()
        self._target.open()

    def consume(self, frame: Frame) -> None:
        """Write the frame; FrameError for one that has no image or finds no space."""
        kind: object
        if self.record == "original":
            parcel = parcel_in(frame)
            follow = self._follows.setdefault(frame.stream, Follow())
            kind = parcel.origin.header, parcel.origin.base
            pieces: list[Any] = [(packet, parcel.offset_ns) for packet in follow.take(parcel)]
            make: Make = partial(self._copy, parcel)
        else:
            image = frame.image
            if image is None or image.width < 2 or image.height < 2:
                raise FrameError("the frame has no image to write", "malformed")
            kind, pieces = Kind.of(image), [frame]
            make = partial(self._encoded, frame)
        try:
            self._write(frame, kind, pieces, make)
        except FrameError as error:
            if self.record == "original":
                self._follows[frame.stream].lose()
                self._reasons[frame.stream] = error.reason
            raise
        if not pieces and parcel.packets:
            raise FrameError(
                "its packets need a key frame before them, which is waited for",
                self._reasons.get(frame.stream, "decode_error"),
            )
        self._reasons.pop(frame.stream, None)

    def end_of_stream(self, stream: str) -> None:
        """Finish the stream's file."""
        self._end(stream)
        try:
            self._target.end_of_stream(stream)
        except OSError as error:
            self._log.warning("%s: the end cannot be written: %s", stream, error.strerror)
        follow = self._follows.pop(stream, None)
        if follow is not None and follow.left_out:
            self._log.warning(
                "%s: %d packets are not recorded: a key frame before them was missing",
                stream, follow.left_out,
            )  # fmt: skip

    def close(self) -> None:
        """Finish all files."""
        if self._target is not None:
            for stream in [*self._recordings, *self._follows]:
                self.end_of_stream(stream)
            self._target.close()

    @property
    def _log(self) -> logging.Logger:
        return logging.getLogger(f"ovpipe.{self.context.stage}")

    # -- where it goes ------------------------------------------------------------------

    def _chosen(self, scheme: str) -> Target:
        """The kind of target that the path names, with what goes with it."""
        stage = self.context.stage
        suffix = Path(self.path).suffix.lower()
        wall_s = self._wall_s or time.time
        if scheme:
            if self.segment or self.keep is not None:
                raise PreflightError("segment and keep are for files; an address has neither")
            streams = tuple(s for given in self.context.inputs.values() for s in given)
            return Publish(
                stage, self.path, self.username, self.password, self.transport, self.timeout,
                streams,
            )  # fmt: skip
        if self.username or self.password:
            raise PreflightError("username and password are for an address, not for a file")
        if suffix not in _FORMATS:
            raise PreflightError(
                f"path '{self.path}': the end of the name chooses the container: .mp4 or .mkv, "
                "or .m3u8 for HLS"
            )
        if suffix == ".m3u8":
            if self.keep is not None:
                raise PreflightError("keep is for files; how much HLS shows is its `window`")
            pattern = Pattern(self.path, allowed=("stream",))
            self._prepare(pattern)
            return Hls(pattern, self.window, self.segment or _HLS_SEGMENT_S, wall_s)
        if self.keep and not self.segment:
            raise PreflightError("keep deletes whole files: it needs `segment`, as 1m or 10m")
        pattern = Pattern(self.path, self.utc)
        self._prepare(pattern)
        # What is there after a restart is of this run, and cannot be told from what is older.
        overwrite = self.overwrite and not self.context.restarted
        return Files(stage, pattern, _FORMATS[suffix], overwrite, self.keep, wall_s)

    @staticmethod
    def _prepare(pattern: Pattern) -> None:
        name = pattern.path(Facts("stream"))
        prepare(str(pattern.root / name.name if pattern.fields else name))

    # -- one recording after the other --------------------------------------------------

    def _write(self, frame: Frame, kind: object, pieces: list[Any], make: Make) -> None:
        stream, target = frame.stream, self._target
        recording = self._recordings.get(stream)
        if recording is not None and recording.kind != kind:
            self._end(stream)
        elif recording is not None and not target.admit(stream, recording.file):
            self._give_up(stream)
            raise FrameError("the connection is over", "link_lost")
        if target.eager and stream not in self._recordings:
            recording = self._begin(frame, make)
            target.admit(stream, recording.file)
        for piece in pieces:
            try:
                self._put(frame, piece, make)
            except OSError as error:
                self._full(stream, error)
                if target.make_room(error):
                    self._retry_s = 0.0
                if self._retry_s or not self._opens(piece):
                    raise self._no_space() from error
                try:
                    self._put(frame, piece, make)
                except OSError as second:
                    self._full(stream, second)
                    raise self._no_space() from second

    def _put(self, frame: Frame, piece: Any, make: Make) -> None:
        recording = self._recordings.get(frame.stream)
        if recording is not None and self._opens(piece) and self._over(recording, piece):
            self._end(frame.stream)
            recording = None
        if recording is None:
            recording = self._begin(frame, make)
        recording.write(piece)

    def _over(self, recording: Any, piece: Any) -> bool:
        """Whether the next file begins with this piece."""
        if self._target.lost(recording.file):
            return True
        if not self.segment or not isinstance(self._target, Files):
            return False
        return bool(recording.elapsed_s(piece) >= self.segment - _EARLY_S)

    def _opens(self, piece: Any) -> bool:
        """Whether a file can begin with it."""
        return self.record == "encoded" or bool(piece[0].key)

    def _begin(self, frame: Frame, make: Make) -> Any:
        if time.monotonic() < self._retry_s:
            raise self._no_space()
        file = self._target.begin(frame)
        recording = self._recordings[frame.stream] = make(file)
        self._target.begun(recording)
        return recording

    def _copy(self, parcel: Parcel, file: Any) -> Output:
        return Copy(file, parcel.origin, self._target.container, self._target.hook(file))

    def _encoded(self, frame: Frame, file: Any) -> Output:
        assert frame.image is not None
        kind = Kind.of(frame.image)
        return Recording(file, kind, self._encoding(frame), self._target.hook(file))

    def _end(self, stream: str) -> None:
        recording = self._recordings.pop(stream, None)
        if recording is not None:
            if self._target.lost(recording.file):
                self._log.warning(
                    "%s: '%s' was moved or deleted while it was written",
                    stream,
                    recording.file.name,
                )
            recording.finish()
            self._target.ended(recording.file)

    def _give_up(self, stream: str) -> None:
        recording = self._recordings.pop(stream, None)
        if recording is not None:
            recording.abandon()
            self._target.ended(recording.file)

    def _full(self, stream: str, error: OSError) -> None:
        """The disk is full: what there is of the recording stays. Raises any other error."""
        if error.errno not in FULL:
            raise error
        self._retry_s = time.monotonic() + _RETRY_S
        self._give_up(stream)

    def _no_space(self) -> FrameError:
        return FrameError(f"no space for '{self.path}'", "disk_full")

    # -- how it is encoded --------------------------------------------------------------

    def _encoding(self, frame: Frame) -> Encoding:
        rate = self.fps or _number(frame.meta.get("fps")) or _NOMINAL_FPS
        options = self._encoder_options()
        container = self._target.container
        return Encoding(container, self.codec, options, rate, bool(self.fps), self.gop)

    def _encoder_options(self) -> dict[str, str]:
        if self.codec in ("libx264", "libx265", "h264", "hevc"):
            options = {"crf": str(self.quality), "preset": self.preset, "forced-idr": "1"}
            if isinstance(self._target, Publish):
                options["tune"] = "zerolatency"
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
        shown = FORMATS.get(scheme_of(self.path)) or Path(self.path).suffix
        try:
            if shown == "flv":
                with av.open(io.BytesIO(), "w", format="flv") as container:
                    container.add_stream(self.codec)
            trial = Recording(io.BytesIO(), Kind.of(image), self._encoding(frame))
            trial.write(frame)
            trial.finish()
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PreflightError(
                f"codec '{self.codec}' (preset '{self.preset}', quality {self.quality}) does not "
                f"write to {shown}: {reason}; try codec libx264, preset veryfast"
            ) from None


def _number(value: object) -> float:
    """A rate from metadata, or 0 where it is none."""
    return float(value) if isinstance(value, int | float) and 0 < value <= 1000 else 0.0
