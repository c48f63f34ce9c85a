"""Sweep: frames that only what refers to itself keeps, where the stage waits for frames.

An error that is kept with its traceback, a frame in a closure that knows itself: Python frees
these when much has been made since. Who waits for frames makes nothing, and the frames may not
come for want of the very slots that are kept so.

Law: swept is only while views of frames are alive, and twice between two frames at most: soon
for what is young, and later for all. A wait that something else than a frame has ended, as the end
of an inference, is no reason to: a sweep takes as long as a few frames.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

_SOON_MS = 50
_AFTER_NS = (_SOON_MS * 10**6, 10 * _SOON_MS * 10**6)
"""How long no frame has come, at each sweep."""


class Sweep:
    """Of one worker. `keeps`: whether views of frames are alive, as far as is quickly told."""

    def __init__(self, keeps: Callable[[], bool]) -> None:
        self._keeps = keeps
        self._done = 0  # since a frame last came
        self._came_ns = 0

    def patience_ms(self, timeout_ms: int) -> int:
        """How long to wait for a frame, where one would wait that long."""
        return min(timeout_ms, _SOON_MS) if not self._done and self._keeps() else timeout_ms

    def waited(self, came: bool, now_ns: int) -> None:
        """A wait is over, and something came or not. now_ns: monotonic clock."""
        if came:
            self._done, self._came_ns = 0, now_ns
        elif (
            self._done < len(_AFTER_NS)
            and now_ns - self._came_ns >= _AFTER_NS[self._done]
            and self._keeps()
        ):
            self._done += 1
            gc.collect(self._done)

    def end(self) -> None:
        """No more frames will come."""
        if self._keeps():
            gc.collect()
