"""Media: what the video stage knows about files and about pictures as decoders give them.

Paths and URLs -> files; a file -> an open container whose declared size is within bounds; a
decoded picture -> planes. Functions only; `av` is imported by the first one that opens a file.

Law: no memory is taken for a picture before its declared size was checked, and nothing but local
files is read, whatever a playlist inside them names.
"""

from __future__ import annotations

import io
import re
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import MissingExtra, PreflightError
from ovpipe.frame import ImageFormat, Matrix

STILLS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_SIDE = 16384
MAX_PIXELS = 256 * 2**20
_PLAYLISTS = {"hls", "dash", "concat", "sdp"}  # may wait for ever for more to be named
_NOT_VIDEO = {"tty"}  # FFmpeg would draw any text file as a terminal
_MAX_IMAGE_FILE_BYTES = 4 * MAX_PIXELS
_MATRIX: dict[int, Matrix] = {0: "bt601", 1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}
_MPEG, _JPEG = 1, 2  # AVColorRange
_NS = 10**9
_PTS_LIMIT = 2**62


def open_container(path: Path, still: bool) -> Any:
    """An av container with a video stream to decode. PreflightError where it has none."""
    av = library()
    # Until PyAV 19, a title that is not UTF-8 made the whole file unreadable.
    old = int(av.__version__.partition(".")[0]) < 19
    tolerant: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
    try:
        if still and path.stat().st_size > _MAX_IMAGE_FILE_BYTES:
            raise PreflightError(f"image '{path}' is larger than {_MAX_IMAGE_FILE_BYTES} bytes")
        # An image is read by its content: by its name, `img%03d.jpg` would mean a whole folder.
        # `file:` keeps a name with a colon from being taken for a protocol.
        container = av.open(
            io.BytesIO(path.read_bytes()) if still else f"file:{path}",
            options={} if still else {"protocol_whitelist": "file,crypto,data"},
            **tolerant,
        )
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise unreadable(path, error) from None
    try:
        if container.format.name in _PLAYLISTS:
            raise PreflightError(f"'{path}' is a playlist; give the videos that it names")
        if container.format.name in _NOT_VIDEO:
            raise unreadable(path, ValueError())
        if not container.streams.video:
            raise PreflightError(f"no video stream in '{path}'; give a video or an image")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise PreflightError(
                f"no decoder for the video in '{path}'; convert it, to H.264 for example"
            )
        if (context.width, context.height) == (0, 0):
            raise unreadable(path, ValueError())
        check_size(f"'{path}'", context.width, context.height)
    except PreflightError:
        container.close()
        raise
    # Threads per slice cost nothing where there are no slices; threads per frame cost 15 to 60 %
    # more CPU, which the stages beside this one need.
    stream.thread_type = "SLICE"
    context.thread_count = 1 if still else 2
    return container


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


def check_size(what: str, width: int, height: int) -> None:
    """PreflightError for a size that no picture of ours may have."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
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


def plane(picture: Any, index: int, channels: int = 1) -> NDArray[np.uint8]:
    """A view of one plane without the padding at the end of its rows."""
    plane = picture.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    pixels = rows[: plane.height, : plane.width * channels]
    return pixels.reshape(plane.height, plane.width, channels) if channels > 1 else pixels


def nanoseconds(pts: int, base: Fraction) -> int | None:
    """Exact; None for times that no real video has (they overflow what travels)."""
    ns = pts * base.numerator * _NS // base.denominator
    return ns if abs(ns) < _PTS_LIMIT else None


def ends_early(container: Any, stream: Any, packets: int, end_s: float) -> bool:
    """True where a container that ended without an error had promised more.

    mp4 raises by itself; AVI knows its number of frames; Matroska notes the track's duration.
    """
    if container.format.name == "avi":
        return packets < int(stream.frames)
    promised = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if promised is None:
        return False
    hours, minutes, seconds = promised.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - end_s > 0.5


def local_path(url: str) -> Path:
    """The path that `url` means; PreflightError where it is none of this machine's files."""
    # A path may hold a colon; a scheme has "//" behind it, or is `file:`.
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):", url)
    if scheme and (scheme[1] or scheme[2]).lower() != "file":
        raise PreflightError(
            f"'{scheme[0]}...': live and network sources are not supported yet; "
            "give the path of a video, an image or a folder of images"
        )
    path = Path(unquote(urlsplit(url).path) if scheme else url).expanduser()
    if not url:
        raise PreflightError("url is empty; give the path of a video, an image or a folder")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise PreflightError(f"cannot open '{path}': {error.strerror}; check the path") from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise PreflightError(
            f"'{path}' is a device; live sources are not supported yet; give a file or a folder"
        )
    return path


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
