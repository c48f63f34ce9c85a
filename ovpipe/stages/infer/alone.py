"""The infer stage in an application: no processes, no YAML.

    with ovpipe.stages.Infer(model="model.xml") as detect:
        found = detect(image)                      one, and wait for it
        for found in detect.map(images): ...       many, the device kept busy, in their order
        found = await detect.aio(image)            in an event loop, many at a time

An image is an ndarray (BGR, or gray where it has two dimensions), an ovpipe.Image, or a Frame.
What comes back are its Detections, or, where the model is no detector (or a Frame went in), the
Frame with what was found.

Law: each image ends once, in an answer or in its FrameError; `map` yields in the order of its
images, and stops what it has begun when its user does. Any thread may call; at most `capacity`
images are under way at a time, and more wait. The `with` block ends when all have.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import OvpipeError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.base import AsyncTransform, Result

Picture = NDArray[np.uint8] | Image


class Alone(AsyncTransform):
    """What an application may do with a stage that works on several frames at a time."""

    _room: Any = None
    _lock: Any = None

    def __enter__(self) -> Self:
        self.open()
        self._room = threading.BoundedSemaphore(self.capacity)
        self._lock = threading.Lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._room = None
        self.close()

    @overload
    def __call__(self, image: Frame) -> Frame: ...

    @overload
    def __call__(self, image: Picture) -> Any: ...

    def __call__(self, image: Picture | Frame) -> Any:
        """What is found in one image; waits for it. Raises FrameError where it fails."""
        return self._begin(image).wait()

    def map(self, images: Iterable[Picture | Frame]) -> Iterator[Any]:
        """What is found in each image, in their order, with as many under way as can be.

        Raises FrameError at an image that fails; that ends the iteration.
        """
        pending: deque[_Begun] = deque()
        try:
            for image in images:
                if len(pending) == self.capacity:
                    yield pending.popleft().wait()
                pending.append(self._begin(image))
            while pending:
                yield pending.popleft().wait()
        finally:
            for begun in pending:
                begun.ended.result()  # its image may be changed hereafter

    async def aio(self, image: Picture | Frame) -> Any:
        """The same as a call, awaited; the event loop goes on meanwhile."""
        import asyncio

        begun = await asyncio.to_thread(self._begin, image)
        await asyncio.wrap_future(begun.ended)
        return begun.wait()

    def _begin(self, image: Picture | Frame) -> _Begun:
        """Start one image, when there is room for it."""
        room = self._room
        if room is None:
            raise OvpipeError("the stage is not open: `with Infer(model=...) as detect: ...`")
        frame = image if isinstance(image, Frame) else Frame(image=_image(image))
        ended: Future[None] = Future()
        ended.set_running_or_notify_cancel()  # who stops waiting does not stop the device

        def done() -> None:
            room.release()
            ended.set_result(None)

        room.acquire()
        with self._lock:
            finish = self.submit(frame, done)
        return _Begun(ended, finish, self._lock, frame is image)


@dataclass(frozen=True)
class _Begun:
    """An image under way. The stage is used by one thread at a time: hence the lock."""

    ended: Future[None]
    finish: Callable[[], Result]
    lock: threading.Lock
    whole: bool

    def wait(self) -> Any:
        """Its answer; raises FrameError."""
        self.ended.result()
        with self.lock:
            frame = self.finish()
        assert isinstance(frame, Frame)
        return frame if self.whole or frame.detections is None else frame.detections


def _image(image: Picture) -> Image:
    if isinstance(image, Image):
        return image
    return Image(image, "gray" if image.ndim == 2 else "bgr")
