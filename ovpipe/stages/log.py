"""Log: a line about each frame, or each so many, through the logger `ovpipe.<stage>`.

Law: logging that the application has set up is used as it is. Where nobody has set anything up,
the lines go to standard error for as long as this stage is open.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from ovpipe.errors import PreflightError
from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import Consumer

FIELDS = ("stream", "seq", "pts", "age_ms", "width", "height", "objects", "meta")


class Log(Consumer):
    """Says on standard error what comes."""

    one_process: ClassVar[bool] = True

    every: Annotated[int, Ge(1), "say one frame of so many, in each stream"] = 1
    format: Annotated[str, "a line; fields: " + ", ".join(FIELDS)] = (
        "{stream} {seq} at {pts:.3f} s, {width}x{height}, {age_ms:.0f} ms old: {objects}"
    )

    _logger: Any = None
    _handler: Any = None
    _seen: Any = None

    def open(self) -> None:
        """PreflightError where the format is none, or names what a frame has not."""
        self._seen = Counter()
        try:
            self.format.format(**_fields(Frame(stream="cam")))
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise PreflightError(
                f"format {self.format!r} does not work ({error}); fields: {', '.join(FIELDS)}"
            ) from None
        self._logger = logging.getLogger(f"ovpipe.{self.context.stage}")
        if not self._logger.hasHandlers():
            self._handler = logging.StreamHandler(sys.stderr)
            self._logger.addHandler(self._handler)
            self._logger.setLevel(logging.INFO)

    def close(self) -> None:
        """Take back the handler that was put there."""
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._logger.setLevel(logging.NOTSET)
            self._handler = None

    def consume(self, frame: Frame) -> None:
        """Say the frame, if it is its turn."""
        if self._seen[frame.stream] % self.every == 0:
            self._logger.info("%s", self.format.format(**_fields(frame)))
        self._seen[frame.stream] += 1


def _fields(frame: Frame) -> dict[str, Any]:
    """What a line may speak of; numbers are NaN or 0 where unknown, so that any format holds."""
    found = Counter(d.label for d in frame.detections) if frame.detections is not None else {}
    known = frame.captured_ns != UNSET
    return {
        "stream": frame.stream,
        "seq": frame.seq,
        "pts": float("nan") if frame.pts_ns is None else frame.pts_ns / 1e9,
        "age_ms": (time.monotonic_ns() - frame.captured_ns) / 1e6 if known else float("nan"),
        "width": frame.image.width if frame.image else 0,
        "height": frame.image.height if frame.image else 0,
        "objects": ", ".join(f"{n} {label}" for label, n in sorted(found.items())) or "nothing",
        "meta": dict(frame.meta),
    }
