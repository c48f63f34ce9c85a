"""Runs an asynchronous stage in this process, as a worker does.

Law: never more than `capacity` frames are unfinished; results are taken in the order of
submission, each after its `done`; a frame that fails gives its FrameError in its place.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.base import AsyncTransform, Result

WATCHDOG_S = 60


def drive(stage: AsyncTransform, frames: Iterable[Frame]) -> Iterator[Frame | FrameError]:
    """Open, push all frames through, yield one result or error each, close."""
    stage.open()
    try:
        yield from feed(stage, frames)
    finally:
        stage.close()


def feed(stage: AsyncTransform, frames: Iterable[Frame]) -> Iterator[Frame | FrameError]:
    """The same for a stage that is open, and stays so."""
    under_way: deque[tuple[threading.Event, Callable[[], Result]]] = deque()
    for frame in frames:
        if len(under_way) == stage.capacity:
            yield _finish(*under_way.popleft())
        done = threading.Event()
        under_way.append((done, stage.submit(frame, done.set)))
    while under_way:
        yield _finish(*under_way.popleft())


def _finish(done: threading.Event, finish: Callable[[], Result]) -> Frame | FrameError:
    assert done.wait(WATCHDOG_S), "the stage did not say that the work on a frame has ended"
    try:
        result = finish()
    except FrameError as error:
        return error
    assert isinstance(result, Frame)
    return result


def one(stage: AsyncTransform, frame: Frame) -> Frame | FrameError:
    """One frame through a stage that is open."""
    (result,) = feed(stage, [frame])
    return result
