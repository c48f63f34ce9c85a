"""Recorder: one line for each frame, for somebody else to check.

Law: a line is written whole, by one call, before the frame is counted as delivered; so a worker
that is killed has written what it was given, but for the frame that it held.
"""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Any

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import Consumer
from ovpipe.testing.paint import check


class Recorder(Consumer):
    """Writes one line of JSON per frame and per end of stream.

    {"stream", "seq", "painted", "painter", "run", "ok", "pid", "t_ns"}: `painted` is the seq that
    the pixels carry, `painter` the number of their stream, `run` that of whoever painted them,
    `ok` whether they are whole. At the end of a stream: {"stream", "end": true, "pid", "t_ns"}.
    Times are monotonic.
    """

    path: Annotated[str, "the file; lines are added to it"]
    pause_s: Annotated[float, "what the work on a frame takes"] = 0.0

    _fd: int = -1

    def open(self) -> None:
        """Open the file for appending."""
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise PreflightError(f"{self.path}: {error.strerror}") from None

    def consume(self, frame: Frame) -> None:
        """Check and note one frame."""
        array = frame.image.data if frame.image else next(iter(frame.arrays.values()))
        painted = check(array)
        self._write(
            stream=frame.stream,
            seq=frame.seq,
            painted=painted.seq,
            painter=painted.stream,
            run=painted.run,
            ok=painted.ok,
        )
        if self.pause_s:
            time.sleep(self.pause_s)

    def end_of_stream(self, stream: str) -> None:
        """Note the end."""
        self._write(stream=stream, end=True)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, **values: Any) -> None:
        values.update(pid=os.getpid(), t_ns=time.monotonic_ns())
        os.write(self._fd, json.dumps(values).encode() + b"\n")
