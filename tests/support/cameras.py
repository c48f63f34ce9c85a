"""A consumer that writes down which frames of a clip came: `stream index` a line, at once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import ovpipe
from ovpipe.stages.video import Video


class Register(ovpipe.Consumer):
    """Appends to `path`."""

    path: str

    def open(self) -> None:
        self.file = open(self.path, "a", buffering=1)  # noqa: SIM115

    def consume(self, frame: ovpipe.Frame) -> None:
        from tests.support.clips import index

        assert frame.image is not None
        print(frame.stream, index(frame.image), file=self.file)

    def close(self) -> None:
        self.file.close()


class Numb(Video):
    """A camera of which one read never returns from native code, while there is no file `once`."""

    once: str

    def open(self) -> None:
        import ovpipe.stages.feed as feed

        super().open()
        decoded = feed.pictures

        def pictures(*given: Any, **named: Any) -> Iterator[Any]:
            for i, picture in enumerate(decoded(*given, **named)):
                if i == 10 and not os.path.exists(self.once):
                    open(self.once, "w").close()
                    ctypes.CDLL(None).sleep(3600)
                yield picture

        feed.pictures = pictures  # of this process alone


class Sizes(ovpipe.Consumer):
    """Writes down the size of each picture, `stream WxH` a line, and that its pixels fit it."""

    path: str

    def open(self) -> None:
        self.file = open(self.path, "a", buffering=1)  # noqa: SIM115

    def consume(self, frame: ovpipe.Frame) -> None:
        image = frame.image
        assert image is not None
        height, width = image.gray().shape
        assert (width, height) == (image.width, image.height)
        assert image.bgr().shape == (height, width, 3)
        print(frame.stream, f"{width}x{height}", file=self.file)

    def close(self) -> None:
        self.file.close()
