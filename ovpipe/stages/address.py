"""Address: what the `url` of a video means, and how FFmpeg is to open it.

    a path, file:          a file, an image, or a folder of images
    /dev/video0            a camera of this machine (V4L2)
    rtsp: rtmp: udp: ...   live
    http: https:           a file where its path ends as one (.mp4), else live until it turns out
                           to have a length

Law: name and password are put into the URL in `opened`, percent-encoded, and nowhere else. `shown`
has neither them nor the query, which may hold a token; nothing but `shown` goes into a log or an
error. A network address never makes FFmpeg read a local file, whatever a playlist names.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ovpipe.errors import PreflightError
from ovpipe.stages.paths import expanded

Transport = Literal["tcp", "udp"]

_ALWAYS_LIVE = {"rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "udp", "rtp", "srt", "tcp"}
_MAYBE_LIVE = {"http", "https"}
_FILES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ogv", ".wmv", ".gif"
}  # fmt: skip
_NETWORK = (
    "crypto,data,hls,http,httpproxy,https,rtmp,rtmps,rtmpt,rtp,rtsp,rtsps,srt,srtp,tcp,tls,udp"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):")
_DEVICE = re.compile(r"/dev/(video|v4l/)")
SPARE_S = 0.5
"""Who reads is to see the silence first: at its own limit FFmpeg hands out what its parser still
had, and then waits for as long again."""
_PROBE_US = 1_000_000  # how much of a live stream FFmpeg looks at before the first frame


@dataclass(frozen=True)
class Address:
    """A source of video. `path` where it is of this machine's files, `scheme` "" then."""

    scheme: str
    shown: str
    path: Path | None = None
    device: bool = False
    live: bool = False
    certain: bool = True
    """Whether `live` is known, rather than guessed until the source is open."""
    opened: str = field(default="", repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is of this machine's files, and no camera."""
        return self.path is not None and not self.device


def address(url: str, username: str = "", password: str = "", live: bool | None = None) -> Address:
    """What `url` means. PreflightError where it means nothing that can be read."""
    if not url:
        raise PreflightError("url is empty; give the path of a video, an image or a folder")
    # A path may hold a colon; a scheme has "//" behind it, or is `file:`.
    match = _SCHEME.match(url)
    scheme = (match[1] or match[2]).lower() if match else ""
    if scheme in ("", "file"):
        if username or password:
            raise PreflightError("username and password are for network sources, not for files")
        path = expanded(unquote(urlsplit(url).path) if scheme else url)
        device = _DEVICE.match(str(path)) is not None
        return Address("", str(path), path, device, device if live is None else live)
    if scheme not in _ALWAYS_LIVE | _MAYBE_LIVE:
        raise PreflightError(
            f"'{scheme}://...': no such kind of source; there are a path, file:, "
            f"{', '.join(f'{s}://' for s in sorted(_ALWAYS_LIVE | _MAYBE_LIVE))}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise PreflightError(f"'{scheme}://...': no valid address: {error}") from None
    if not host and scheme not in ("udp", "rtp"):
        raise PreflightError(f"'{scheme}://...': names no host")
    user, at, place = parts.netloc.rpartition("@")
    if username or password:
        if at:
            raise PreflightError(
                f"{scheme}://{place}: name and password stand in the url and in keys of their own; "
                "leave those in the url out"
            )
        if not username:
            raise PreflightError(f"{scheme}://{place}: password without username")
        user, at = f"{quote(username, safe='')}:{quote(password, safe='')}", "@"
    guess = scheme in _ALWAYS_LIVE or Path(parts.path).suffix.lower() not in _FILES
    shown = f"[{host}]" if host and ":" in host else host or ""
    return Address(
        scheme,
        f"{scheme}://{shown}{f':{port}' if port else ''}{parts.path}",
        live=guess if live is None else live,
        certain=live is not None or scheme in _ALWAYS_LIVE,
        opened=urlunsplit((parts.scheme, f"{user}{at}{place}", parts.path, parts.query, "")),
    )


def local_path(source: Address) -> Path:
    """The path of a source that is a file or a folder; PreflightError where there is none."""
    path = source.path
    assert path is not None
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise PreflightError(f"cannot open '{path}': {error.strerror}; check the path") from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise PreflightError(
            f"'{path}' is a device, and no camera; give a file, a folder or a /dev/video..."
        )
    return path


def how_to_open(
    source: Address, transport: Transport, timeout_s: float, options: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments of av.open for a device or a network source."""
    given: dict[str, str] = {}
    if source.live:
        given["analyzeduration"] = str(_PROBE_US)
    if source.device:
        return {"file": str(source.path), "format": "v4l2", "options": {**given, **options}}
    # FFmpeg's own time limits, by their names in each protocol; `timeout` makes RTMP listen.
    micros = str(round((timeout_s + SPARE_S) * 1e6))
    if source.scheme in ("rtsp", "rtsps"):
        given |= {"rtsp_transport": transport, "timeout": micros}
    elif source.scheme not in ("udp", "rtp"):
        given["rw_timeout"] = micros
    return {
        "file": source.opened,
        "options": {**given, **options, "protocol_whitelist": _NETWORK},
    }
