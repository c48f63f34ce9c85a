"""Media: what the video stage knows about containers and about pictures as decoders give them.

A file or an address -> an open container whose declared size is within bounds; a container ->
decoded pictures; a picture -> planes. Functions only; `av` is imported by the first that opens.

Law: no memory is taken for a picture before its declared size was checked, also where the size
changes in mid-stream. Out of a local file nothing but local files is read, whatever a playlist
inside it names.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import MissingExtra, PreflightError
from ovpipe.frame import ImageFormat, Matrix
from ovpipe.stages.address import SPARE_S
from ovpipe.stages.swallowed import ONE_EACH, Swallowed

STILLS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_SIDE = 16384
MAX_PIXELS = 256 * 2**20
_PLAYLISTS = {"hls", "dash", "concat", "sdp"}  # may wait for ever for more to be named
_FRAME_THREADS = 4
_MANY_PIXELS = 2**25  # 8K; each thread has a picture of its own
_TELLING_FRAME_THREADS = 2  # of more, FFmpeg tells of all errors but those of the last packets
_NOT_VIDEO = {"tty"}  # FFmpeg would draw any text file as a terminal
_MAX_DEMUX_ERRORS = 5
_MAX_IMAGE_FILE_BYTES = 4 * MAX_PIXELS
_MATRIX: dict[int, Matrix] = {0: "bt601", 1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}
_MPEG, _JPEG = 1, 2  # AVColorRange
_NS = 10**9
_PTS_LIMIT = 2**62


def open_file(path: Path, still: bool, hardware: Any = None, threads: int = 0) -> Any:
    """An av container of a file, with video to decode. PreflightError where it has none.

    `threads`: that decode a frame each; 0: as many as are of use, and tell of all that is damaged.
    """
    av = library()
    try:
        if still and path.stat().st_size > _MAX_IMAGE_FILE_BYTES:
            raise PreflightError(f"image '{path}' is larger than {_MAX_IMAGE_FILE_BYTES} bytes")
        # An image is read by its content: by its name, `img%03d.jpg` would mean a whole folder.
        # `file:` keeps a name with a colon from being taken for a protocol.
        container = av.open(
            io.BytesIO(path.read_bytes()) if still else f"file:{path}",
            options={} if still else {"protocol_whitelist": "file,crypto,data"},
            hwaccel=None if still else hardware,
            **_tolerant(av),
        )
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise unreadable(path, error) from None
    with _closed_on_error(container):
        if container.format.name in _PLAYLISTS:
            raise PreflightError(f"'{path}' is a playlist; give the videos that it names")
        if container.format.name in _NOT_VIDEO:
            raise unreadable(path, ValueError())
        context = _video(container, f"'{path}'", 1 if still else threads, "FRAME")
        if (context.width, context.height) == (0, 0):
            raise unreadable(path, ValueError())
        check_size(f"'{path}'", context.width, context.height)
    return container


def open_address(shown: str, how: dict[str, Any], timeout_s: float, hardware: Any = None) -> Any:
    """An av container of a device or a network source (`how`: the arguments of av.open).

    Raises what FFmpeg raises, whose text may hold the password: say `reason(error)` only. No call
    of the container lasts much longer than `timeout_s`.
    """
    av = library()
    limits = (timeout_s, timeout_s + SPARE_S)  # to open, to read
    container = av.open(**how, timeout=limits, hwaccel=hardware, **_tolerant(av))
    with _closed_on_error(container):
        context = _video(container, f"'{shown}'", 2, "SLICE")
        if (context.width, context.height) != (0, 0):  # else known with the first key frame
            check_size(f"'{shown}'", context.width, context.height)
    return container


def _tolerant(av: Any) -> dict[str, Any]:
    """Until PyAV 19, a title that is not UTF-8 made the whole file unreadable."""
    old = int(av.__version__.partition(".")[0]) < 19
    return {"metadata_errors": "replace"} if old else {}


@contextmanager
def _closed_on_error(container: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        container.close()
        raise


def _video(container: Any, what: str, threads: int, each: str) -> Any:
    """The codec context of the container's first video stream, made ready."""
    if not container.streams.video:
        raise PreflightError(f"no video stream in {what}; give a video or an image")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise PreflightError(
            f"no decoder for the video in {what}; convert it, to H.264 for example"
        )
    # Threads per slice cost nothing where there are no slices. Threads per frame keep each back for
    # as many frames as there are threads, and cost some more CPU: for files alone. They wait for
    # each other, so it takes more of them than cores to keep those busy.
    if not threads:
        many = context.name in ONE_EACH and context.width * context.height <= _MANY_PIXELS
        threads = _FRAME_THREADS if many else _TELLING_FRAME_THREADS
    stream.thread_type = "SLICE" if threads == 1 else each
    context.thread_count = threads
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return context


def pictures(
    container: Any,
    stopping: Callable[[], bool],
    count_error: Callable[[], None],
    patient: bool = True,
    tap: Callable[[Any], None] | None = None,
) -> Iterator[Any]:
    """Decoded pictures of the first video stream, until its end or `stopping`.

    `tap`: given each packet before it is decoded.

    Each packet that cannot be decoded is counted, and the rest goes on; a demuxer that fails
    several times on end has ended. Not `patient`: a demuxer's error is raised, and what the decoder
    leaves out without a word is no loss.
    """
    errors = library().error.FFmpegError
    stream = container.streams.video[0]
    context = stream.codec_context
    whole = patient and context.skip_frame == "DEFAULT"
    balance = Swallowed(context.name if whole else "", context.thread_count)
    packets, end, failures, demux_failures = 0, 0, 0, 0
    demuxer = container.demux(stream)
    while not stopping():
        try:
            packet = next(demuxer, None)
        except errors:
            if not patient:
                raise
            failures += 1
            demux_failures += 1
            count_error()
            if demux_failures == _MAX_DEMUX_ERRORS:
                return
            demuxer = container.demux(stream)
            continue
        if packet is None:
            break
        demux_failures = 0
        if packet.size:
            packets += 1
            balance.packet(packet)
            if tap is not None:
                tap(packet)
            pts = packet.pts
            if pts is not None:
                end = max(end, pts + (packet.duration or 0))
        else:
            balance.ending()
        try:
            decoded = packet.decode()
        except errors:
            failures += 1
            balance.error()
            count_error()
            continue
        for picture in decoded:
            if stopping():
                return
            balance.picture(picture)
            if within_bounds(picture.width, picture.height):
                yield picture
            else:
                failures += 1
                count_error()
    else:
        return
    for _ in range(balance.count):
        failures += 1
        count_error()
    if not failures and ends_early(container, stream, packets, end):
        count_error()


def accelerator(choice: str) -> Any:
    """What av.open takes to decode with hardware; None for software.

    `auto` tries what there is and is content with software. PreflightError where a device that
    was named is not there.
    """
    if choice == "none":
        return None
    av = library()
    from av.codec.hwaccel import HWAccel, hwdevices_available

    known = hwdevices_available()
    for name in known if choice == "auto" else (choice,):
        try:
            HWAccel(name).create(av.Codec("h264", "r"))
        except (av.error.FFmpegError, NotImplementedError, ValueError):
            continue
        return HWAccel(name)
    if choice == "auto":
        return None
    raise PreflightError(
        f"hwaccel: no '{choice}' here; this FFmpeg knows {', '.join(known) or 'none'}, and the "
        "device must be there too; `auto` takes what there is"
    )


def library() -> Any:
    """The av package. Its messages stay off: without a level set, it prints none of FFmpeg's."""
    try:
        import av
    except ImportError:
        raise MissingExtra("video", "av", "video") from None
    return av


def unreadable(path: Path, error: BaseException) -> PreflightError:
    """One line from whatever FFmpeg or the system said."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ValueError):
        return PreflightError(f"cannot read '{path}': {error.strerror}; check the path")
    return PreflightError(
        f"cannot read '{path}': not a video or image, or damaged from the beginning, or larger "
        f"than {MAX_SIDE} pixels a side; "
        "see what `ffprobe` says about it"
    )


def reason(error: BaseException) -> str:
    """What FFmpeg said, without the URL that its errors quote."""
    if isinstance(error, PreflightError):
        return str(error)
    text = getattr(error, "strerror", None) or type(error).__name__
    return "no answer in time" if text == "Immediate exit requested" else str(text)


def within_bounds(width: int, height: int) -> bool:
    """Whether a picture of ours may have this size."""
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def check_size(what: str, width: int, height: int) -> None:
    """PreflightError for a size that no picture of ours may have."""
    if not within_bounds(width, height):
        raise PreflightError(
            f"{what}: pictures of {width}x{height} cannot be read; at most {MAX_SIDE} pixels a "
            f"side and {MAX_PIXELS} in all; scale it down first"
        )


def planar(picture: Any, width: int, height: int, target: ImageFormat) -> tuple[Any, Matrix, bool]:
    """The picture as 8-bit planes with half-size colour, its matrix, and whether full range."""
    name = picture.format.name
    full = picture.color_range == _JPEG or name.startswith("yuvj")
    matrix = _MATRIX.get(picture.colorspace)
    if picture.format.is_rgb or name.startswith(("pal", "gray", "mono", "ya")):
        matrix, full = "bt601", target == "gray"
    same = (width, height) == (picture.width, picture.height) and matrix is not None
    if same and name in ("yuv420p", "yuvj420p"):
        return picture, matrix or "bt601", full
    matrix = matrix or "bt709"  # BT.2020 and rarer ones: swscale turns them into BT.709
    planar = picture.reformat(
        width,
        height,
        "yuv420p",
        dst_colorspace=1 if matrix == "bt709" else 5,
        dst_color_range=_JPEG if full else _MPEG,
        threads=1,
    )
    return planar, matrix, full


def unpadded(plane: Any, channels: int = 1) -> NDArray[np.uint8]:
    """A view of a plane of a picture without the padding at the end of its rows."""
    width, height, line = plane.width, plane.height, plane.line_size
    pixels = np.ndarray((height, width * channels), np.uint8, plane, 0, (line, 1))
    return pixels.reshape(height, width, channels) if channels > 1 else pixels


def nanoseconds(pts: int, base: Fraction) -> int | None:
    """Exact; None for times that no real video has (they overflow what travels)."""
    ns = pts * base.numerator * _NS // base.denominator
    return ns if abs(ns) < _PTS_LIMIT else None


def ends_early(container: Any, stream: Any, packets: int, end: int) -> bool:
    """True where a container that ended without an error had promised more.

    `end`: of the last packet, in the stream's own time.

    mp4 raises by itself; AVI knows its number of frames; Matroska notes the track's duration.
    """
    if container.format.name == "avi":
        return packets < int(stream.frames)
    promised = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if promised is None:
        return False
    hours, minutes, seconds = promised.groups()
    promised_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return promised_s - float(end * stream.time_base) > 0.5


def images_in(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, img2 before img10."""

    def natural(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", path.name.lower())
        return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)]

    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in STILLS and p.is_file()]
    except OSError as error:
        raise PreflightError(f"cannot read folder '{folder}': {error.strerror}") from None
    if not found:
        raise PreflightError(f"no images in folder '{folder}'; it takes {' '.join(sorted(STILLS))}")
    return tuple(sorted(found, key=natural))
