"""Pace: frames at their times, as a camera would give them.

Law: no frame comes before its time, counted from the first one, and none is left out. A source
that was kept from its times catches up, but for what it is more than a second late: from there on
it keeps the times anew. While it waits it says so, and a wish to stop ends the wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import Context

_NS = 10**9
_TICK_S = 0.1


def wait_until(due_ns: int, context: Context) -> bool:
    """Wait for that time of the monotonic clock; False where the stage is to stop first."""
    while not context.stopping:
        left_ns = due_ns - time.monotonic_ns()
        if left_ns <= 0:
            return True
        context.waiting()
        time.sleep(min(left_ns / _NS, _TICK_S))
    return False


def paced(frames: Iterator[Frame], context: Context, fps: float) -> Iterator[Frame]:
    """The frames when they are due; `fps`: of those that have no times, 0: at once."""
    last: tuple[int, int | None] | None = None  # when the last one was due, and its time
    for frame in frames:
        now = due = time.monotonic_ns()
        if last is not None:
            before, pts_ns = last
            if frame.pts_ns is not None and pts_ns is not None:
                due = before + frame.pts_ns - pts_ns
            elif fps:
                due = before + round(_NS / fps)
            due = max(due, now - _NS)
        last = due, frame.pts_ns
        wait_until(due, context)
        if frame.captured_ns == UNSET:
            frame = frame.stamped(frame.stream, frame.seq, time.monotonic_ns())
        yield frame
        del frame  # or the slot stays loaned while the next one is made
