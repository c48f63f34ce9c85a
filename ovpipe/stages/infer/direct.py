"""A frame's own pixels into the device: `preprocess: graph`.

Nothing is resized or converted here: the device reads the frame's memory, at its own size, and
the graph does the rest. What the graph has no words for is converted first, on this side: I420
of full range, and a gray picture for a model that takes colour.

Law: the frame's memory is never written, and is held by what is in `Fed.inputs` until the
inference has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.feed import U8, Colour, Fed, no_image
from ovpipe.stages.infer.labels import Labels

BLANK = (64, 64)


class DirectFeed:
    """Wraps images; `size` (width, height) is what the graph resizes them to.

    `wrap` makes of an array (1, height, width, channels) what the device reads in place.
    """

    def __init__(
        self, size: tuple[int, int], colour: Colour, labels: Labels, wrap: Callable[[U8], Any]
    ) -> None:
        self.size = size
        self.colour: Colour = colour
        self.labels = labels
        self.wrap = wrap

    def take(self, frame: Frame) -> Fed:
        """The frame's pixels as they are; FrameError where it has none."""
        if frame.image is None:
            raise no_image()
        pixels, array = self._pixels(frame.image)
        width, height = frame.image.width, frame.image.height
        if 0 in (width, height):
            raise FrameError(f"the frame's image is empty: {width}x{height}")
        scale = self.size[0] / width, self.size[1] / height
        info = FrameInfo(frame, width, height, *self.size, *scale, labels=self.labels)
        return Fed(self.wrap(array.reshape(1, *array.shape[:2], -1)), info, pixels=pixels)

    def give_back(self, fed: Fed) -> None:
        """Nothing was lent."""

    def blank(self, pixels: str) -> Any:
        """Input of that kind for a warm-up."""
        width, height = BLANK
        if pixels.startswith("i420"):
            shape = (1, height * 3 // 2, width, 1)
        else:
            shape = (1, height, width, 1 if pixels == "gray" else 3)
        return self.wrap(np.zeros(shape, np.uint8))

    @property
    def usual(self) -> str:
        """The kind that video has."""
        return "gray" if self.colour == "gray" else "i420"

    def _pixels(self, image: Image) -> tuple[str, U8]:
        """What the graph is told that it gets, and that."""
        if self.colour == "gray":
            return "gray", image.gray()
        if image.format == "i420" and not image.full_range:
            return "i420" if image.matrix == "bt601" else f"i420/{image.matrix}", image.data
        if image.format in ("bgr", "rgb"):
            return image.format, image.data
        return "bgr", image.bgr()
