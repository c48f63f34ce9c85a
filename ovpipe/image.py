"""Image: an ndarray that knows how its pixels are to be read.

    format  array shape (all uint8)
    i420    (height * 3 / 2, width): Y plane, then U and V at half size; width, height even
    bgr     (height, width, 3)
    rgb     (height, width, 3)
    gray    (height, width)

Video is carried as I420: half the bytes of BGR and what decoders give. It is converted where
somebody asks for it, once per image. `matrix` and `full_range` say how YUV is to be turned
into RGB (ITU-R BT.601 or BT.709; limited 16..235 or full 0..255); the other formats carry them
along, for whoever makes YUV of them again.

Law: colours are within 3 of 255 of what swscale makes of the same picture; `write` fills the very
array that it was given, or raises; pixels that came in are never written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import MissingExtra

U8 = NDArray[np.uint8]
ImageFormat = Literal["i420", "bgr", "rgb", "gray"]
Matrix = Literal["bt601", "bt709"]
_FORMATS, _MATRICES = frozenset(get_args(ImageFormat)), frozenset(get_args(Matrix))


def pixel_shape(form: ImageFormat, width: int, height: int) -> tuple[int, ...]:
    """Shape of the array that holds such a picture. ValueError for odd sizes of I420."""
    if form == "i420":
        if width % 2 or height % 2:
            raise ValueError("format i420 takes even sizes only; bgr takes any")
        return height * 3 // 2, width
    return (height, width) if form == "gray" else (height, width, 3)


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels with their format. Raises ValueError where shape and format do not agree."""

    data: U8
    format: ImageFormat = "bgr"
    matrix: Matrix = "bt601"
    full_range: bool = False
    _cache: dict[str, U8] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shape, dtype = self.data.shape, self.data.dtype
        if self.format not in _FORMATS or self.matrix not in _MATRICES:
            raise ValueError(f"no such pixels: format {self.format!r}, matrix {self.matrix!r}")
        if self.format == "i420":
            ok = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
        elif self.format == "gray":
            ok = len(shape) == 2
        else:
            ok = len(shape) == 3 and shape[2] == 3
        if not ok or dtype != np.uint8:
            raise ValueError(f"not a {self.format} image: shape {shape}, dtype {dtype}")

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.data.shape[1])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        rows = int(self.data.shape[0])
        return rows * 2 // 3 if self.format == "i420" else rows

    def bgr(self) -> U8:
        """(height, width, 3) uint8; the image's own array where it is BGR already. Do not write."""
        return self._converted("bgr")

    def rgb(self) -> U8:
        """(height, width, 3) uint8; the image's own array where it is RGB already. Do not write."""
        return self._converted("rgb")

    def gray(self) -> U8:
        """(height, width) uint8, the luma."""
        if self.format == "i420":
            return self.data[: self.height]
        return self._converted("gray")

    def _converted(self, to: ImageFormat) -> U8:
        if self.format == to:
            return self.data
        if to not in self._cache:
            self._cache[to] = self.write(to, np.empty(self._shape(to), np.uint8))
        return self._cache[to]

    def _shape(self, to: ImageFormat) -> tuple[int, ...]:
        if to == "i420":
            raise ValueError(f"a {self.format} image is not converted to i420")
        return pixel_shape(to, self.width, self.height)

    def write(self, to: ImageFormat, out: U8) -> U8:
        """Convert to `bgr`, `rgb` or `gray` straight into `out` (a loaned array, say).

        Raises ValueError where `out` is not what the conversion gives: cv2 would write to an array
        of its own then, without a word.
        """
        shape = self.data.shape if to == self.format else self._shape(to)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.writeable:
            raise ValueError(
                f"cannot write {to} to an array of shape {out.shape}, dtype {out.dtype}, "
                f"writeable {out.flags.writeable}: it takes uint8 of shape {shape}"
            )
        if self.format == to:
            np.copyto(out, self.data)
            return out
        if self.format == "i420" and to == "gray":
            np.copyto(out, self.data[: self.height])
            return out
        if not out.flags.c_contiguous:  # of the other layouts, cv2 refuses some
            np.copyto(out, self.write(to, np.empty(shape, np.uint8)))
            return out
        try:
            import cv2
        except ImportError:
            raise MissingExtra("colour conversion", "cv2", "draw") from None
        if self.format == "i420":
            if self.matrix == "bt601" and not self.full_range:
                code = cv2.COLOR_YUV2BGR_I420 if to == "bgr" else cv2.COLOR_YUV2RGB_I420
                cv2.cvtColor(self.data, code, dst=out)
                return out
            h, w = self.height, self.width
            chroma = self.data[h:].reshape(2, h // 2, w // 2)
            large = (cv2.resize(c, (w, h), interpolation=cv2.INTER_NEAREST) for c in chroma)
            planes = cv2.merge([self.data[:h], *large])
            cv2.transform(planes, yuv_matrix(self.matrix, self.full_range, to), dst=out)
            return out
        code = cast(int, getattr(cv2, f"COLOR_{self.format.upper()}2{to.upper()}"))
        cv2.cvtColor(self.data, code, dst=out)
        return out


@lru_cache
def yuv_matrix(matrix: Matrix, full_range: bool, to: ImageFormat) -> NDArray[np.float32]:
    """The 3x4 affine map from YUV to RGB or BGR, from Kr and Kb of BT.601 / BT.709."""
    kr, kb = (0.299, 0.114) if matrix == "bt601" else (0.2126, 0.0722)
    kg = 1.0 - kr - kb
    y, c, low = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    rows = np.array(
        [
            [y, 0.0, 2 * (1 - kr) * c],
            [y, -2 * (1 - kb) * kb / kg * c, -2 * (1 - kr) * kr / kg * c],
            [y, 2 * (1 - kb) * c, 0.0],
        ]
    )
    affine = np.column_stack([rows, -rows @ np.array([low, 128.0, 128.0])]).astype(np.float32)
    affine = affine if to == "rgb" else np.ascontiguousarray(affine[::-1])
    affine.flags.writeable = False
    return affine
