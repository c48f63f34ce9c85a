"""Video: frames of a file, an image, a folder of images, a camera or a stream of the network.

Law: every frame that leaves holds exactly the picture's pixels in a shape that fits them, in the
order of decoding. What cannot be decoded is counted as `decode_error`, once a packet (or image),
once more where a file ends before its time, and the rest goes on; so are packets that a decoder
leaves out without a word (`ovpipe.stages.swallowed`). Of a file, only what can be
known before the first frame (no such file, no video in it, a size beyond bounds) ends the run; a
live source that is away, silent or refuses the password never does (`ovpipe.stages.watch`). A
successor decodes what came before a file's first frame again and leaves it out, so that it goes on
exactly there.

Pixels are carried as I420, which is what decoders give: the planes are copied once, into shared
memory. swscale converts where the decoder's format is another one. I420 halves the colour planes,
so it has no odd sizes: such pictures are carried as BGR. Sources in RGB become BT.601, limited
range, the one that every converter is fastest at. Where a source does not say its matrix it is
BT.601, as swscale reads it. Pictures are turned upright as the file says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame, Image, ImageFormat
from ovpipe.options import Duration, Size
from ovpipe.stages.address import Address, Transport, address, how_to_open, local_path
from ovpipe.stages.ahead import Ahead
from ovpipe.stages.base import Producer
from ovpipe.stages.camera import Timing
from ovpipe.stages.feed import Feed, Picture
from ovpipe.stages.media import (
    STILLS,
    accelerator,
    check_size,
    images_in,
    library,
    nanoseconds,
    open_address,
    open_file,
    pictures,
    planar,
    reason,
    unpadded,
    unreadable,
)
from ovpipe.stages.pace import paced
from ovpipe.stages.packets import NAME, Origin, Packet, Parcel, Pending, Tap, packed
from ovpipe.stages.timeline import Timeline
from ovpipe.stages.watch import Watch

_NS = 10**9
_KEYFRAMES_SILENCE_S = 30.0  # key frames alone are far apart
_FIRST_FRAME_S = 10.0


class Video(Producer):
    """Frames of a video file, images, a camera, or a stream of the network."""

    requires: ClassVar[dict[str, str]] = {"av": "video"}

    url: Annotated[
        str,
        "path of a video, an image or a folder of images; /dev/video0; "
        "rtsp:, rtmp:, http: and other addresses",
    ]
    username: Annotated[str, "name for a network source"] = ""
    password: Annotated[str, "password for a network source; use a variable"] = ""
    # Never None once the stage is made.
    live: Annotated[bool | None, "has no end; default: by the url"] = None  # type: ignore[assignment]
    transport: Annotated[Transport, "how RTSP carries its packets"] = "tcp"
    timeout: Annotated[Duration, Gt(0), "silence after which a live source is connected anew"] = 5.0
    options: Annotated[dict[str, str], "further options of FFmpeg's for a device or address"] = (
        field(default_factory=dict)
    )
    hwaccel: Annotated[str, "decode with hardware: auto, cuda, vaapi, qsv ...; or none"] = "none"
    threads: Annotated[
        int, Ge(0), Le(16), "that decode a file, a frame each; 0: two or four, or one with `pace`"
    ] = 0
    keyframes: Annotated[bool, "decode key frames only"] = False
    packets: Annotated[bool, "give the compressed packets along, for `record: original`"] = False
    fps: Annotated[float, Ge(0), "at most so many frames per second of video; 0: all"] = 0.0
    loop: Annotated[bool, "begin again at the end"] = False
    pace: Annotated[bool, "play a file at its own speed, as a camera would give it"] = False
    start: Annotated[Duration, Ge(0), "where in the video to begin"] = 0.0
    duration: Annotated[Duration | None, "how much of the video to play; default: to its end"] = (
        None
    )
    size: Annotated[Size | None, "scale to this size, as 640x480"] = None
    format: Annotated[Literal["i420", "bgr", "rgb", "gray"], "how the pixels are carried"] = "i420"

    _paths: tuple[Path, ...] = ()
    _stills: bool = False
    _source: Address | None = None
    _connects: bool = False  # it is connected to, and again when it goes away
    _endless: bool = False
    _hardware: Any = None
    _first: Any = None
    _offset_ns: int = 0
    _end_ns: int = 0
    _slot: int | None = None
    _errors: Any = None
    _skip: int = 0
    _round: int = 0

    def __post_init__(self) -> None:
        """Whether the source is live, where the user does not say."""
        self._endless, wished = bool(self.live), self.live
        try:
            self._source = address(self.url, self.username, self.password, self.live)
        except PreflightError:
            self.live = bool(self.live)  # open() says what is wrong
        else:
            self._endless = self._source.live and self._source.certain
            self._connects = self._source.live and not (self.pace and self._source.is_file)
            self.live = self._connects or (self.pace and wished is not False)

    @property
    def frame_bytes(self) -> int:
        """Of a picture of the size that was asked for, or that the source says it has."""
        width, height = self.size or (0, 0)
        if not width and self._first is not None:
            context = self._first.streams.video[0].codec_context
            width, height = context.width, context.height
        pixels = width * height
        return {"i420": pixels * 3 // 2, "gray": pixels}.get(self.format, pixels * 3)

    def open(self) -> None:
        """Look at the source; PreflightError says what is wrong with it.

        A live source is not connected to yet.
        """
        if self.size is not None:
            check_size(str(self.size), *self.size)
        self._errors = library().error.FFmpegError
        self._hardware = accelerator(self.hwaccel)
        source = address(self.url, self.username, self.password, self.live)
        if self._connects:
            if self.loop or self.pace or self.start or self.duration is not None:
                raise PreflightError(
                    f"'{source.shown}' is live: it has no loop, pace, start or duration; "
                    "if it is a file, say `live: false`"
                )
            return
        if source.path is None or source.device:
            self._first = self._opened(source)
            return
        path = local_path(source)
        self._paths = images_in(path) if path.is_dir() else (path,)
        self._stills = path.is_dir() or path.suffix.lower() in STILLS
        if self._stills and self.packets:
            raise PreflightError(f"packets: '{path}' is no video, and has none; leave it out")
        if not path.is_dir():
            self._first = self._file(path)
            if self._stills:
                try:
                    next(self._first.decode(video=0))
                except (self._errors, StopIteration) as error:
                    raise unreadable(path, error) from None

    def close(self) -> None:
        """Close the file."""
        first, self._first = self._first, None
        if first is not None:
            first.close()

    def frames(self) -> Iterator[Frame]:
        """All frames; with `loop`, for ever, with times that go on rising."""
        assert self._source is not None
        if self._connects:
            return self._watched(self._source)
        return paced(self._played(), self.context, self.fps) if self.pace else self._played()

    def _played(self) -> Iterator[Frame]:
        """Frames of what has an end."""
        self._skip = first = self.context.first_seq
        given = True
        while given and not self.context.stopping:
            given = False
            self._slot = None
            for path in self._paths or (None,):
                for frame in self._frames_of(path):
                    given = True
                    if frame is not None:
                        yield frame
                    else:
                        self.context.getting_on()
            if not self.loop:
                return
            once = first - self._skip
            if self._skip and once:  # whole rounds need not be decoded to be left out
                rounds, self._skip = divmod(self._skip, once)
                self._end_ns += rounds * self._end_ns
                first = self._skip
            self._offset_ns = self._end_ns

    def _skipped(self) -> bool:
        """True where this frame, or this loss of one, was counted before we came."""
        if not self._skip:
            return False
        self._skip -= 1
        return True

    def _lost(self) -> None:
        """One packet or image that cannot be decoded."""
        if not self._skipped():
            self.context.count_failed("decode_error")

    def _watched(self, source: Address) -> Iterator[Frame]:
        """Frames of a live source, through all its absences."""
        how = how_to_open(source, self.transport, self.timeout, self.options)
        connect = partial(open_address, source.shown, how, self.timeout, self._hardware)
        feed = partial(
            Feed,
            connect,
            endless=self._endless,
            keyframes=self.keyframes,
            packets=self.packets,
        )
        pending, origin = Pending(), None
        line = Timeline()
        silence_s = max(self.timeout, _KEYFRAMES_SILENCE_S if self.keyframes else 0.0)
        timing = Timing(silence_s, 2 * self.timeout + max(silence_s, _FIRST_FRAME_S))
        watch: Watch[Picture] = Watch(self.context, source.shown, feed, timing, line.restart)
        for got in watch.frames():
            pts_ns = line.place(got.pts_ns, got.captured_ns)
            if got.origin != origin:  # of the connection before, none is left
                pending, origin = Pending(), got.origin
            pending.add(got.packets)
            if self.fps and not self._due(pts_ns, round(_NS / got.fps) if got.fps else 0):
                self.context.getting_on()
                continue
            offset_ns = None if got.pts_ns is None else pts_ns - got.pts_ns - got.first_ns
            arrays = self._carried(origin, offset_ns, pending.take())
            image = self._image(got.picture)
            fps = min(self.fps or got.fps, got.fps or self.fps)
            meta = {"fps": fps} if fps else {}
            yield Frame(
                image=image, arrays=arrays, pts_ns=pts_ns, captured_ns=got.captured_ns, meta=meta
            )
            del image, arrays  # or the slot stays loaned while the next frame is waited for

    def _opened(self, source: Address) -> Any:
        """The container of an address that is no live source."""
        how = how_to_open(source, self.transport, self.timeout, self.options)
        try:
            return open_address(source.shown, how, self.timeout, self._hardware)
        except (self._errors, OSError, ValueError) as error:
            raise PreflightError(f"cannot read '{source.shown}': {reason(error)}") from None

    def _file(self, path: Path) -> Any:
        """The container of a local file."""
        return open_file(path, self._stills, self._hardware, self.threads or int(self.pace))

    def _frames_of(self, path: Path | None) -> Iterator[Frame | None]:
        """Frames of a file, or of the address where there is none; None: one that is left out."""
        first, self._first = self._first, None
        try:
            if first is not None and self._stills:
                first.close()  # it was decoded to see whether it can be
                first = None
            if path is None and first is None:
                assert self._source is not None
                first = self._opened(self._source)
            container = first or self._file(cast(Path, path))
        except PreflightError:
            self._lost()
            return
        with container:
            if self.keyframes:
                container.streams.video[0].codec_context.skip_frame = "NONKEY"
            if self._stills:
                for picture in self._pictures(container):
                    yield None if self._skipped() else Frame(image=self._image(picture))
            else:
                yield from self._timed(container)

    def _timed(self, container: Any) -> Iterator[Frame | None]:
        """The frames between `start` and its `duration`, thinned to `fps`."""
        stream = container.streams.video[0]
        base, origin = stream.time_base, stream.start_time
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        step_ns = round(_NS / rate) if rate else 0
        if self.start:
            at = round(self.start / base) + (origin or 0)
            try:
                container.seek(at, stream=stream)
            except self._errors:
                pass  # not seekable: what comes before is decoded and left out
        fps = min(self.fps or rate, rate or self.fps)
        meta = {"fps": fps} if fps else {}
        start_ns = round(self.start * _NS)
        stop_ns = None if self.duration is None else start_ns + round(self.duration * _NS)
        tap = Tap(stream, self._round) if self.packets else None
        self._round += 1
        held: list[tuple[Any, int | None, list[Packet]]] = []

        def give(rest: Sequence[Packet] = ()) -> Frame | None:
            picture, pts_ns, taken = held.pop()
            if self._skipped():
                return None
            arrays = {}
            if tap is not None:
                offset_ns = self._offset_ns - (nanoseconds(origin or 0, base) or 0)
                arrays = self._carried(tap.origin, offset_ns, [*taken, *rest])
            return Frame(image=self._image(picture), arrays=arrays, pts_ns=pts_ns, meta=meta)

        with closing(self._pictures(container, tap)) as decoded:
            for picture in decoded:
                pts = picture.pts
                if pts is not None and origin is None:
                    origin = pts
                pts_ns = None if pts is None else nanoseconds(pts - (origin or 0), base)
                if pts_ns is not None:
                    if pts_ns < start_ns:
                        self.context.getting_on()
                        continue
                    if stop_ns is not None and pts_ns >= stop_ns:
                        break
                    pts_ns += self._offset_ns
                    self._end_ns = max(self._end_ns, pts_ns + step_ns)
                    if self.fps and not self._due(pts_ns, step_ns):
                        self.context.getting_on()
                        continue
                if held:
                    yield give()
                held.append((picture, pts_ns, [] if tap is None else tap.pending.take()))
                if tap is None:
                    yield give()
        if held:  # the last one takes along what came after it
            assert tap is not None
            yield give(tap.pending.take())

    def _carried(
        self, origin: Origin | None, offset_ns: int | None, packets: list[Packet]
    ) -> dict[str, NDArray[Any]]:
        """The arrays of a frame beside its image."""
        if origin is None:
            return {}
        return {NAME: packed(Parcel(origin, offset_ns, packets), self.loan)}

    def _due(self, pts_ns: int, step_ns: int) -> bool:
        """One frame for each 1/fps of time.

        A frame may come a third of the source's interval early, or timestamps rounded to
        milliseconds would thin a video out that has the wanted rate already.
        """
        slot = int((pts_ns + step_ns // 3) * self.fps / _NS)
        due = slot != self._slot
        self._slot = slot
        return due

    def _pictures(self, container: Any, tap: Tap | None = None) -> Generator[Any, None, None]:
        """Decoded pictures; to be closed before the container is."""
        if self._stills or self.pace or tap is not None:
            yield from pictures(container, lambda: self.context.stopping, self._lost, tap=tap)
            return
        context = self.context

        def decode(let_go: Callable[[], bool], lost: Callable[[], None]) -> Iterator[Any]:
            return pictures(container, lambda: let_go() or context.stopping, lost)

        with closing(Ahead(decode, self._lost)) as ahead:
            for picture in ahead:
                if context.stopping:  # since it was decoded
                    return
                yield picture
                del picture  # or it stays while the next one is waited for

    def _image(self, picture: Any) -> Image:
        """The decoder's picture in a loaned array, in our format, size and orientation."""
        turns = round(picture.rotation / 90) % 4
        width, height = self.size or (picture.width, picture.height)
        if turns % 2 and self.size:
            width, height = height, width
        odd = (width % 2 or height % 2) and self.format == "i420"
        target: ImageFormat = "bgr" if odd else self.format
        if target in ("bgr", "rgb"):
            packed = picture.reformat(width, height, f"{target}24", threads=1)
            pixels = np.rot90(unpadded(packed.planes[0], 3), turns)
            return Image(self._copy(pixels), target)
        even, matrix, full_range = planar(picture, width, height, target)
        planes = [unpadded(plane) for plane in even.planes[: 3 if target == "i420" else 1]]
        if turns:
            planes = [np.rot90(pixels, turns) for pixels in planes]
        if target == "gray":
            return Image(self._copy(planes[0]), target, matrix, full_range)
        height, width = planes[0].shape
        data: NDArray[Any] = self.loan((height * 3 // 2, width), np.uint8)
        np.copyto(data[:height], planes[0])
        chroma = data[height:].reshape(2, height // 2, width // 2)
        np.copyto(chroma[0], planes[1])
        np.copyto(chroma[1], planes[2])
        return Image(data, target, matrix, full_range)

    def _copy(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        data = self.loan(pixels.shape, np.uint8)
        np.copyto(data, pixels)
        return data
