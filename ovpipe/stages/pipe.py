"""Pipe: frames that any command writes to its standard output, as raw pixels.

    command: [ffmpeg, -i, clip.mp4, -f, rawvideo, -pix_fmt, bgr24, -]

Law: the pixels are read straight into shared memory, and a frame leaves only when it is whole; what
is left of one where the command ends is counted as `decode_error`. The command is a list of words
and never seen by a shell. It does not outlive the stage, whatever ends that. A live one that
ends, or falls silent, is started anew as a camera is connected anew (`ovpipe.stages.watch`); the
end of one that is not live is the end of the stream, and its failure that of the stage.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Len
from numpy.typing import NDArray

from ovpipe.errors import OvpipeError, PreflightError
from ovpipe.frame import Frame, Image, ImageFormat
from ovpipe.image import pixel_shape
from ovpipe.options import Duration, Size
from ovpipe.stages.base import Producer
from ovpipe.stages.camera import Timing
from ovpipe.stages.child import launched
from ovpipe.stages.feed import Disconnected
from ovpipe.stages.media import check_size
from ovpipe.stages.watch import Watch

_NS = 10**9
_TICK_S = 0.1
_FIRST_FRAME_S = 10.0
_PIPE_BYTES = 1 << 20
_GRACE_S = 0.5


class Pipe(Producer):
    """Raw frames from the standard output of a command."""

    command: Annotated[
        list[str], Len(1), "program and arguments, a list; it writes raw frames and nothing else"
    ]
    size: Annotated[Size, "width and height of its frames"]
    format: Annotated[ImageFormat, "their pixels: i420 (yuv420p), bgr (bgr24), rgb, gray"] = "bgr"
    fps: Annotated[float, Ge(0), "their rate, if it is known; 0: it is not"] = 0.0
    live: Annotated[bool, "frames come by the clock, and it is started anew when it ends"] = True
    timeout: Annotated[Duration, Gt(0), "silence after which a live one is started anew"] = 5.0

    _shape: tuple[int, ...] = ()

    @property
    def frame_bytes(self) -> int:
        """Of its one picture."""
        return int(np.prod(self._shape))

    def open(self) -> None:
        """Look whether there is such a program, and are such pictures."""
        check_size("size", *self.size)
        try:
            self._shape = pixel_shape(self.format, *self.size)
        except ValueError as error:
            raise PreflightError(f"size {self.size[0]}x{self.size[1]}: {error}") from None
        if shutil.which(self.command[0]) is None:
            raise PreflightError(f"command: there is no program '{self.command[0]}' to be run")

    def frames(self) -> Iterator[Frame]:
        """Whole frames, in the order in which they were written."""
        first_ns = None
        meta = {"fps": self.fps} if self.fps else {}
        for seq, (data, captured_ns) in enumerate(self._live() if self.live else self._once()):
            first_ns = captured_ns if first_ns is None else first_ns
            if self.live:
                pts_ns = captured_ns - first_ns
                yield Frame(image=Image(data, self.format), pts_ns=pts_ns,
                            captured_ns=captured_ns, meta=meta)  # fmt: skip
            else:  # numbered from its start: a successor leaves out what was there before
                at_ns = round(seq * _NS / self.fps) if self.fps else None
                yield Frame(image=Image(data, self.format), pts_ns=at_ns, seq=seq, meta=meta)
            del data  # or the slot stays loaned while the next frame is waited for

    def _start(self) -> _Command:
        return _Command(self.command, lambda: self.loan(self._shape, np.uint8))

    def _live(self) -> Iterator[tuple[NDArray[Any], int]]:
        shown = Path(self.command[0]).name  # its arguments may hold a password
        timing = Timing(self.timeout, self.timeout + _FIRST_FRAME_S)
        yield from Watch(self.context, shown, self._start, timing).frames()

    def _once(self) -> Iterator[tuple[NDArray[Any], int]]:
        command = self._start()
        try:
            while not self.context.stopping:
                item = command.read(_TICK_S)
                if item is None:
                    self.context.waiting()
                else:
                    yield item
                    del item
        except Disconnected as error:
            if command.errors:
                self.context.count_failed("decode_error", command.errors)
            if command.code != 0:
                raise OvpipeError(f"{Path(self.command[0]).name}: {error}") from None
        finally:
            command.close()


class _Command:
    """A running command: a connection as `Watch` wants it. One thread only.

    `code`: its exit code (negative: the signal), None until it has ended.
    """

    def __init__(self, words: list[str], loan: Callable[[], NDArray[Any]]) -> None:
        self.errors = 0
        self.code: int | None = None
        self._loan = loan
        self._data: NDArray[Any] | None = None
        self._filled = 0
        self._began_ns = 0
        self._process = subprocess.Popen(
            launched(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        with suppress(OSError):  # more than the system allows
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def read(self, timeout_s: float) -> tuple[NDArray[Any], int] | None:
        """The next whole frame and when it began to come; None after a time of silence.

        Raises Disconnected when the command has ended.
        """
        if self._data is None:
            self._data = self._loan()
            self._filled = 0
        flat = self._data.reshape(-1)
        while self._filled < flat.size:
            if not self._poll.poll(timeout_s * 1000):
                return None
            count = os.readv(self._fd, [flat[self._filled :].data])
            if not count:
                del flat
                raise self._ended()
            if not self._filled:
                self._began_ns = time.monotonic_ns()
            self._filled += count
        data, self._data = self._data, None
        return data, self._began_ns

    def _ended(self) -> Disconnected:
        self._data = None
        self.errors += self._filled > 0
        self._filled = 0
        try:
            self.code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return Disconnected("the command closed its output and goes on")
        if self.code < 0:
            return Disconnected(f"the command was killed ({signal.Signals(-self.code).name})")
        return Disconnected(f"the command ended with exit code {self.code}")

    def close(self, wait: bool = True) -> None:
        """Ask it to end; kill it, and what it started, if it does not at once."""
        self._data = None
        assert self._process.stdout is not None
        self._process.stdout.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
