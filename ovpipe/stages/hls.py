"""Hls: a live playlist and its segments, as a web server hands them out.

    www/cam/index.m3u8         the last minute or so
    www/cam/index-000017.m4s   a segment; beginning at a key frame, never changed
    www/cam/index-000012.mp4   what a player must know before the segments that follow (fMP4)

Law: the playlist is replaced as a whole, and names only what is on the disk as a whole. No name
and no number is ever used twice, whatever died in between. Where the video does not go on exactly
(a restart, another size, a full disk) the playlist says so. `EXT-X-ENDLIST` stands there when the
stream has ended, and only then. A segment is deleted once it has been out of the playlist for as
long as that is; other files are left alone. Where the segment that is being written, or its header,
is moved or deleted, a playlist without what was before begins at the next key frame, with the
numbers that follow.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.naming import Facts, Pattern
from ovpipe.stages.paths import FULL, GONE, in_folder, unwritable
from ovpipe.stages.recording import File, Hook, Output

_LEAST_SEGMENTS = 3
_EARLY_S = 0.001  # times are rounded to the units of the container
_TAG = re.compile(r"#(EXT[A-Z-]*)(?::(.*))?")
_URI = re.compile(r'URI="([^"/]+)"')


@dataclass(frozen=True)
class Segment:
    """One line of a playlist. `began`: the date as it is written; `header`: its fMP4 header."""

    name: str
    duration_s: float
    header: str
    began: str = ""
    breaks: bool = False
    """True where it does not go on from the one before."""


class Playlist:
    """A live media playlist (RFC 8216). Pure."""

    def __init__(self, window_s: float, segment_s: float) -> None:
        self.segments: list[Segment] = []
        self.first = 0
        self.breaks = 0
        self.ended = False
        self._window_s = window_s
        self._longest_s = math.ceil(segment_s)

    def add(self, segment: Segment) -> list[Segment]:
        """One more at the end; those that leave at the beginning."""
        self.segments.append(segment)
        self._longest_s = max(self._longest_s, round(segment.duration_s))
        left = []
        total = sum(one.duration_s for one in self.segments)
        while len(self.segments) > _LEAST_SEGMENTS:
            oldest = self.segments[0]
            if total - oldest.duration_s < self._window_s:
                break
            total -= oldest.duration_s
            left.append(self.segments.pop(0))
            self.first += 1
            self.breaks += oldest.breaks
        return left

    def text(self) -> str:
        """As players read it."""
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            f"#EXT-X-TARGETDURATION:{max(1, self._longest_s)}",
            f"#EXT-X-MEDIA-SEQUENCE:{self.first}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{self.breaks}",
        ]
        header = ""
        for one in self.segments:
            if one.breaks:
                lines.append("#EXT-X-DISCONTINUITY")
            if one.header != header:
                header = one.header
                lines.append(f'#EXT-X-MAP:URI="{header}"')
            if one.began:
                lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{one.began}")
            lines += [f"#EXTINF:{one.duration_s:.5f},", one.name]
        if self.ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    def read(self, text: str) -> None:
        """Take over what an earlier process wrote; ValueError for anything else."""
        lines = text.splitlines()
        if not lines or lines[0] != "#EXTM3U":
            raise ValueError("no playlist")
        duration_s, header, began, breaks = 0.0, "", "", False
        for line in lines[1:]:
            match = _TAG.match(line)
            if match is None:
                if not line or line.startswith("#"):
                    continue
                if "/" in line or not duration_s:
                    raise ValueError("no playlist of ours")
                self.segments.append(Segment(line, duration_s, header, began, breaks))
                self._longest_s = max(self._longest_s, round(duration_s))
                duration_s, began, breaks = 0.0, "", False
                continue
            name, value = match[1], match[2] or ""
            if name == "EXT-X-MEDIA-SEQUENCE":
                self.first = int(value)
            elif name == "EXT-X-DISCONTINUITY-SEQUENCE":
                self.breaks = int(value)
            elif name == "EXT-X-DISCONTINUITY":
                breaks = True
            elif name == "EXT-X-PROGRAM-DATE-TIME":
                began = value
            elif name == "EXTINF":
                duration_s = float(value.partition(",")[0])
            elif name == "EXT-X-ENDLIST":
                self.ended = True
            elif name == "EXT-X-MAP":
                found = _URI.search(value)
                if found is None:
                    raise ValueError("no playlist of ours")
                header = found[1]


class Show:
    """The playlist of one stream, with its files."""

    def __init__(
        self, path: Path, window_s: float, segment_s: float, wall_s: Callable[[], float]
    ) -> None:
        self._path = path
        self._segment_s = segment_s
        self._window_s = window_s
        self._wall_s = wall_s
        self._left: list[Segment] = []
        self._own = re.compile(rf"\.?{re.escape(path.stem)}-(\d{{6,}})\.(m4s|mp4)(\.part)?")
        self._list = Playlist(window_s, segment_s)
        found = in_folder(path, self._files)
        try:
            before = Playlist(window_s, segment_s)
            before.read(path.read_text())
        except (OSError, ValueError):
            pass
        else:
            whole = all({one.name, one.header} <= found.keys() for one in before.segments)
            if whole and not before.ended:
                self._list = before
            else:
                self._list = self._behind(before)
        self._number = max(found.values(), default=0)
        self._tidy()
        self._header = ""
        self._breaks = bool(self._list.segments or self._list.first)
        self._file: File | None = None
        self._began_s = 0.0
        self._began_wall_s = 0.0
        self._last_s = 0.0
        self._packets = 0
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether what it needs was moved or deleted: the next recording begins a list anew."""
        if not self._lost:
            needed = self._path.with_name(self._header) if self._header else self._path.parent
            self._lost = not needed.exists() or (self._file is not None and self._file.astray())
        return self._lost

    def begin(self) -> Blocks:
        """A recording begins: its header comes first. Raises OSError."""
        if self.lost:
            found = in_folder(self._path, self._files)
            self._number = max(self._number, *found.values(), 0)
            self._list, self._left = self._behind(self._list), []
            self._tidy()
            self._lost = False
        self._header = ""
        in_folder(self._path, lambda: self._new_file("mp4"))
        return Blocks(self)

    def write(self, data: Any) -> int:
        """A block of the recording. Raises OSError."""
        if self._lost:
            return memoryview(data).nbytes
        if self._file is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def packet(self, at_s: float, key: bool) -> None:
        """A packet was written; before a key frame's, all blocks of those before it have been."""
        if self._lost:
            return
        try:
            self._packet(at_s, key)
        except GONE:
            self._lost = True

    def _packet(self, at_s: float, key: bool) -> None:
        if key and not self._header:
            self._header = self._whole()
            self._start(at_s)
        elif key and at_s - self._began_s >= self._segment_s - _EARLY_S:
            self._cut(at_s - self._began_s)
            self._start(at_s)
        self._last_s = max(self._last_s, at_s)
        self._packets += 1

    def finish(self) -> None:
        """The recording ends: what there is of a segment is the last one."""
        file = self._file
        try:
            if file is None:
                pass
            elif self.lost:
                file.close()
            elif file.error is not None or not self._packets or not self._header:
                file.close()
                Path(str(file.name)).unlink(missing_ok=True)
            else:
                length_s = self._last_s - self._began_s
                self._cut(length_s * self._packets / max(1, self._packets - 1) or self._segment_s)
        except GONE:
            self._lost = True
        self._file, self._breaks = None, True

    def end(self) -> None:
        """The stream has ended."""
        if self.lost:
            return
        self._list.ended = True
        self._publish()

    def _behind(self, before: Playlist) -> Playlist:
        """An empty list with the numbers that follow."""
        made = Playlist(self._window_s, self._segment_s)
        made.first = before.first + len(before.segments)
        made.breaks = before.breaks + sum(one.breaks for one in before.segments)
        return made

    def _start(self, at_s: float) -> None:
        self._began_s = self._last_s = at_s
        self._began_wall_s = self._wall_s()
        self._packets = 0
        self._new_file("m4s")

    def _new_file(self, suffix: str) -> None:
        self._number += 1
        name = f".{self._path.stem}-{self._number:06d}.{suffix}.part"
        self._file = File(self._path.with_name(name), "w")

    def _whole(self) -> str:
        """The file is complete, and gets its name."""
        assert self._file is not None
        self._file.close()
        if self._file.error is not None:
            raise self._file.error
        part = Path(str(self._file.name))
        name = part.name.removeprefix(".").removesuffix(".part")
        part.rename(part.with_name(name))
        self._file = None
        return name

    def _cut(self, duration_s: float) -> None:
        began = datetime.fromtimestamp(self._began_wall_s, UTC)
        date = began.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = self._whole()
        segment = Segment(name, duration_s, self._header, date, self._breaks)
        self._left += self._list.add(segment)
        self._breaks = False
        self._publish()
        self._expire()

    def _publish(self) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        part.write_text(self._list.text())
        os.replace(part, self._path)

    def _expire(self) -> None:
        """Delete what no player can be in the middle of any more."""
        total_s = sum(one.duration_s for one in self._left)
        while self._left and total_s - self._left[0].duration_s >= self._window_s:
            total_s -= self._left[0].duration_s
            gone = self._left.pop(0)
            names = {gone.name}
            if all(one.header != gone.header for one in (*self._left, *self._list.segments)):
                names.add(gone.header)
            for name in names - {self._header}:
                self._path.with_name(name).unlink(missing_ok=True)

    def _files(self) -> dict[str, int]:
        """Our files that are there, and their numbers."""
        with os.scandir(self._path.parent) as found:
            names = [one.name for one in found if one.is_file(follow_symlinks=False)]
        matches = [(name, self._own.fullmatch(name)) for name in names]
        return {name: int(match[1]) for name, match in matches if match is not None}

    def _tidy(self) -> None:
        """Delete what earlier processes left that nobody can know of."""
        known = {name for one in self._list.segments for name in (one.name, one.header)}
        for name in self._files().keys() - known:
            with suppress(OSError):
                self._path.with_name(name).unlink()


class Blocks(io.RawIOBase):
    """What the muxer writes to."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self.name = str(show._path)
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """A block. Raises OSError."""
        try:
            return self.show.write(data)
        except OSError as error:
            self.error = error
            raise

    def close(self) -> None:
        """The last segment ends."""
        if not self.closed:
            super().close()
            self.show.finish()


class Hls:
    """Playlists on the disk, one a stream."""

    container = "hls"
    eager = False

    def __init__(
        self,
        pattern: Pattern,
        window_s: float,
        segment_s: float,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._pattern = pattern
        self._window_s, self._segment_s, self._wall_s = window_s, segment_s, wall_s
        self._shows: dict[str, Show] = {}
        self._paths: dict[Path, str] = {}

    def open(self) -> None:
        """Nothing: the folder was tried."""

    def begin(self, frame: Frame) -> io.RawIOBase:
        """What takes the blocks of the recording."""
        path = self._pattern.path(Facts(frame.stream))
        other = self._paths.setdefault(path, frame.stream)
        if other != frame.stream:
            raise PreflightError(
                f"path '{self._pattern.text}': streams '{other}' and '{frame.stream}' cannot "
                "share a playlist; put {stream} into it"
            )
        try:
            show = self._shows.get(frame.stream)
            if show is None:
                show = Show(path, self._window_s, self._segment_s, self._wall_s)
                self._shows[frame.stream] = show
            return show.begin()
        except OSError as error:
            if error.errno in FULL:
                raise
            raise unwritable(path, error) from None

    def begun(self, recording: Output) -> None:
        """Nothing."""

    def admit(self, stream: str, file: io.RawIOBase) -> bool:
        """Always."""
        return True

    def lost(self, file: io.RawIOBase) -> bool:
        """Whether the segment, or its header, is at its path no more."""
        assert isinstance(file, Blocks)
        return file.show.lost

    def hook(self, file: io.RawIOBase) -> Hook | None:
        """Segments are cut at key frames."""
        assert isinstance(file, Blocks)
        return file.show.packet

    def ended(self, file: io.RawIOBase) -> None:
        """Nothing: the next one may go on."""

    def end_of_stream(self, stream: str) -> None:
        """Say so in the playlist."""
        show = self._shows.pop(stream, None)
        if show is not None:
            show.end()

    def make_room(self, error: OSError) -> bool:
        """There is nothing that could go."""
        return False

    def close(self) -> None:
        """Nothing: streams end."""
