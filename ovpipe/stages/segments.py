"""Segments: the files that a stream is recorded in, one after the other.

Law: a file that exists is not touched, unless `overwrite` says so, and then only what was there
before the run: where a name is taken, also because the wall clock went back, the next free one is
used. Names come from the wall clock, and nothing else does: when a file ends is counted in the
times of the video.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ovpipe.frame import Frame
from ovpipe.stages.naming import Facts, Pattern
from ovpipe.stages.paths import FULL, in_folder, unwritable
from ovpipe.stages.recording import File, Hook, Output
from ovpipe.stages.retention import Keep, Keeper, matching

# With less, no block of a file would fit, which shows only when the encoder gives the first one.
_LEAST_FREE_BYTES = 2**16
_NS = 10**9
_OLDEST_FRAME_S = 3600.0


class Target(Protocol):
    """Where recordings go. Raises OSError where the disk is full, FrameError where nobody is."""

    container: str
    eager: bool
    """Whether a recording is begun before there is anything to write."""

    def open(self) -> None:
        """PreflightError for what cannot be written to."""

    def begin(self, frame: Frame) -> io.RawIOBase:
        """What the recording that begins with this frame is written to."""

    def begun(self, recording: Output) -> None:
        """The recording is made, and nothing written yet."""

    def admit(self, stream: str, file: io.RawIOBase) -> bool:
        """Before each frame: False where the recording is over; FrameError: not this one."""

    def lost(self, file: io.RawIOBase) -> bool:
        """Whether what is being written was moved or deleted: another one is to begin."""

    def hook(self, file: io.RawIOBase) -> Hook | None:
        """What wants to know of each packet written to it."""

    def ended(self, file: io.RawIOBase) -> None:
        """A recording is finished, or was given up; its file is closed."""

    def end_of_stream(self, stream: str) -> None:
        """No more recordings of this stream."""

    def make_room(self, error: OSError) -> bool:
        """The disk is full; True where it is worth another try."""

    def close(self) -> None:
        """No more recordings."""


class Files:
    """Files on the disk."""

    eager = False

    def __init__(
        self,
        stage: str,
        pattern: Pattern,
        container: str,
        overwrite: bool = False,
        keep: Keep | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.container = container
        self._pattern = pattern
        self._overwrite = overwrite
        self._wall_s = wall_s
        self._keeper = Keeper(stage, pattern, keep, wall_s) if keep else None
        self._lock = self._keeper.lock if self._keeper else threading.RLock()
        self._counts: dict[str, int] = {}
        self._first = 0
        self._written: set[Path] = set()
        self._largest = 0

    def open(self) -> None:
        """Go on with the numbers that there are; delete what is too much already."""
        if "n" in self._pattern.fields and not self._overwrite:
            numbers = (self._pattern.number(path) for path in matching(self._pattern))
            self._first = max(numbers, default=0)
        if self._keeper is not None:
            self._keeper.start()

    def begin(self, frame: Frame) -> io.RawIOBase:
        """A new file for what begins with this frame."""
        if self._keeper is not None:
            self._keeper.apply()
        facts = Facts(
            frame.stream, self._time_s(frame), self._counts.get(frame.stream, self._first) + 1,
            frame.seq, _label(frame),
        )  # fmt: skip
        with self._lock:
            path, facts = self._free(facts)
            try:
                file = in_folder(path, lambda: self._file(path))
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise unwritable(path, error) from None
            if self._keeper is not None:
                self._keeper.begun(path)
        self._counts[frame.stream] = facts.n
        if self._overwrite:
            self._written.add(path)
        return file

    def begun(self, recording: Output) -> None:
        """Nothing."""

    def admit(self, stream: str, file: io.RawIOBase) -> bool:
        """Always."""
        return True

    def lost(self, file: io.RawIOBase) -> bool:
        """Whether the file is at its path no more."""
        assert isinstance(file, File)
        return file.astray()

    def hook(self, file: io.RawIOBase) -> Hook | None:
        """Nothing."""
        return None

    def ended(self, file: io.RawIOBase) -> None:
        """A file is whole, or as much of it as there was room for."""
        assert isinstance(file, File)
        path = Path(str(file.name))
        if self._keeper is not None:
            self._keeper.ended(path)
        if path.exists():
            self._largest = max(self._largest, path.stat().st_size)
        else:
            self._written.discard(path)

    def end_of_stream(self, stream: str) -> None:
        """Nothing."""

    def make_room(self, error: OSError) -> bool:
        """Delete the oldest, where something says how much may stay."""
        if self._keeper is None or error.errno == errno.EFBIG:  # one file's limit, not the disk's
            return False
        return self._keeper.make_room(max(self._largest, 2 * _LEAST_FREE_BYTES))

    def close(self) -> None:
        """End the retention."""
        if self._keeper is not None:
            self._keeper.close()

    def _file(self, path: Path) -> File:
        if shutil.disk_usage(path.parent).free < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return File(path, "w" if self._overwrite else "x", self.make_room)

    def _free(self, facts: Facts) -> tuple[Path, Facts]:
        """The first of the possible paths that is not taken."""
        wanted = path = self._pattern.path(facts)
        number = 1
        while path in self._written or (os.path.lexists(path) and not self._overwrite):
            number += 1
            if "n" in self._pattern.fields:
                facts = replace(facts, n=facts.n + 1)
                path = self._pattern.path(facts)
            else:
                path = wanted.with_stem(f"{wanted.stem}-{number}")
        return path, facts

    def _time_s(self, frame: Frame) -> float:
        """When the frame was captured, by the wall clock as it is now."""
        age_s = (time.monotonic_ns() - frame.captured_ns) / _NS
        return self._wall_s() - (age_s if 0 <= age_s < _OLDEST_FRAME_S else 0.0)


def _label(frame: Frame) -> str:
    found = max(frame.detections or (), key=lambda one: one.score, default=None)
    return found.label if found is not None else "none"
