"""Selective: what consumers have in common that use only some of the frames.

Law: what scores too little, or is not among the labels, is nothing: it neither makes a frame one
in which something was found, nor is it passed on. The rate is per stream, and by capture time.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from annotated_types import Ge, Le

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.options import Duration
from ovpipe.stages.base import Consumer

_NS = 10**9


class Selective(Consumer):
    """A consumer with the options that say which frames it wants, and what of them."""

    found: Annotated[bool, "only frames in which something was found"] = False
    labels: Annotated[list[str], "only these are something; none: all are"] = field(
        default_factory=list
    )
    score: Annotated[float, Ge(0), Le(1), "what scores less is nothing"] = 0.0
    every: Annotated[Duration, Ge(0), "of each stream, one frame in so long at most"] = 0.0

    _last_ns: Any = None

    def select(self, frame: Frame, found: bool) -> Detections | None:
        """What of a frame counts, None where the frame is not wanted.

        `found`: only frames in which something was found are.
        """
        something = frame.detections if frame.detections is not None else Detections.of()
        if len(something):
            something = something[[self._wanted(d.label, d.score) for d in something]]
        if (found and not len(something)) or not self._due(frame):
            return None
        return something

    def _wanted(self, label: str, score: float) -> bool:
        return score >= self.score and (not self.labels or label in self.labels)

    def _due(self, frame: Frame) -> bool:
        if self._last_ns is None:
            self._last_ns = {}
        last = self._last_ns.get(frame.stream)
        if last is not None and 0 <= frame.captured_ns - last < self.every * _NS:
            return False
        self._last_ns[frame.stream] = frame.captured_ns
        return True
