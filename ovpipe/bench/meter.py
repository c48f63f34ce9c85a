"""Stages that a measured variant has in place of others: Null, and Meter at its end."""

from __future__ import annotations

import json
import math
import time
from array import array
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from ovpipe.frame import Frame
from ovpipe.stages.base import Consumer

_MOST = 1_000_000


class Null(Consumer):
    """Takes frames, and does nothing with them."""

    def consume(self, frame: Frame) -> None:
        """Nothing."""


class Meter(Consumer):
    """Notes how old frames are when they come; writes it to a file at the end."""

    report: Annotated[str, "the file, as JSON"]
    warm: Annotated[float, Ge(0), "seconds from the first frame on that do not count"] = 0.0

    _since_ns: int = 0
    _first_ns: int = 0
    _last_ns: int = 0
    _ages_us: array[int]

    def open(self) -> None:
        """Nothing has come yet."""
        self._ages_us = array("L")

    def consume(self, frame: Frame) -> None:
        """One frame."""
        now = time.monotonic_ns()
        self._since_ns = self._since_ns or now + int(self.warm * 1e9)
        if now < self._since_ns or len(self._ages_us) >= _MOST:
            return
        self._first_ns = self._first_ns or now
        self._last_ns = now
        self._ages_us.append(max(0, now - frame.captured_ns) // 1000)

    def close(self) -> None:
        """Write the report."""
        ages = sorted(self._ages_us)
        said = {
            "frames": len(ages),
            "seconds": (self._last_ns - self._first_ns) / 1e9,
            **{f"p{p}_ms": percentile(ages, p) / 1e3 for p in (50, 90, 99)},
            "max_ms": (ages[-1] if ages else 0) / 1e3,
        }
        Path(self.report).write_text(json.dumps(said))


def percentile(ordered: array[int] | list[int], percent: float) -> int:
    """The least of sorted values that so many percent are not above; 0 where there are none."""
    if not ordered:
        return 0
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(0, rank - 1)]
