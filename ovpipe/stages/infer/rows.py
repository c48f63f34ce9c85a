"""A picture made much smaller: only the rows that resizing reads are converted.

cv2's linear resizing makes each row of two rows of the picture, however far the next two are. The
others need no colours.

Law: what comes out is, bit by bit, what resizing the whole converted picture gives.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovpipe.image import Image

U8 = NDArray[np.uint8]
_WORTH = 3
"""One row in so many is read, or fewer: else gathering them costs more than it saves."""


class Rows:
    """Turns I420 into small pictures. One thread only."""

    def __init__(self) -> None:
        self._memory: U8 = np.empty(0, np.uint8)

    def suit(self, image: Image, height: int) -> bool:
        """True where few rows are read to make `height` of them."""
        if image.format != "i420" or height * _WORTH > image.height:
            return False
        return 2 * len(_pairs(image.height, height)) * _WORTH <= image.height

    def shrink(self, image: Image, to: Literal["bgr", "rgb"], target: U8, cv2: Any) -> None:
        """`image` in colours `to`, at the size of `target`."""
        height, width = image.height, image.width
        pairs = _pairs(height, target.shape[0])
        count = len(pairs)
        few = np.empty((3 * count, width), np.uint8)
        luma = image.data[:height].reshape(height // 2, 2 * width)
        luma.take(pairs, 0, out=few[: 2 * count].reshape(count, -1), mode="clip")
        chroma = image.data[height:].reshape(2, height // 2, width // 2)
        chroma.take(pairs, 1, out=few[2 * count :].reshape(2, count, -1), mode="clip")
        colours = np.empty((2 * count, width, 3), np.uint8)
        Image(few, "i420", image.matrix, image.full_range).write(to, colours)
        whole = self._whole(height, width)
        whole.reshape(height // 2, -1)[pairs] = colours.reshape(count, -1)
        cv2.resize(whole, (target.shape[1], target.shape[0]), dst=target)

    def _whole(self, height: int, width: int) -> U8:
        """Room for the picture. Of memory that nobody writes to, none is taken."""
        size = height * width * 3
        if len(self._memory) < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(height, width, 3)


@lru_cache(64)
def _pairs(height: int, rows: int) -> NDArray[np.intp]:
    """Of `height` rows, two by two as they share their colour, those that `rows` are made of."""
    first = np.floor((np.arange(rows) + 0.5) * height / rows - 0.5).astype(np.intp)
    read = np.concatenate([first, first + 1]).clip(0, height - 1)
    return np.unique(read // 2)
