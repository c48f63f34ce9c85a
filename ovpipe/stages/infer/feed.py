"""A frame into the model's input.

PictureFeed  image -> resize or letterbox, colour -> a uint8 buffer that the device reads in place
ArraysFeed   arrays of the frame -> as they are, after a check of shape and dtype

Law: a buffer is written only while no inference reads it. Each is taken before and given back
after its inference, there are as many as frames were ever under way at a time, and the device
gets the buffer itself, not a copy. OpenVINO converts whatever it gets without a word (uint8 to
float32, say); so what does not match is refused here, for that frame only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import FrameError, MissingExtra
from ovpipe.frame import Frame
from ovpipe.image import Image, yuv_matrix
from ovpipe.stages.infer.decode import Fit, FrameInfo
from ovpipe.stages.infer.facts import InputFact
from ovpipe.stages.infer.labels import Labels
from ovpipe.stages.infer.rows import Rows

U8 = NDArray[np.uint8]
Colour = Literal["bgr", "rgb", "gray"]


@dataclass(eq=False)
class Buffer:
    """Memory of one picture: `pixels` (height, width, channels) uint8; `inputs` for the device.

    inner: size of the picture that its padding surrounds, (0, 0) where there is none yet.
    """

    pixels: U8
    inputs: Any
    inner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Fed:
    """One frame, ready to be inferred. `pixels`: of which kind, where the graph must know."""

    inputs: Any
    info: FrameInfo
    buffer: Buffer | None = None
    pixels: str = ""


class PictureFeed:
    """Puts images into buffers of the model's size.

    `wrap` makes of a buffer (1, height, width, channels) what the device reads in place.
    planes_first: planes are made smaller before they are converted, which is less to convert.
    """

    def __init__(
        self,
        size: tuple[int, int],
        fit: Fit,
        colour: Colour,
        labels: Labels,
        wrap: Callable[[U8], Any],
        planes_first: bool = False,
    ) -> None:
        self.size = size
        self.planes_first = planes_first
        self.fit = fit
        self.colour: Colour = colour
        self.labels = labels
        self.wrap = wrap
        self._free: list[Buffer] = []
        self._rows = Rows()

    def take(self, frame: Frame) -> Fed:
        """The frame's picture in a buffer; FrameError where it has none."""
        if frame.image is None:
            raise no_image()
        image = frame.image
        if not image.width or not image.height:
            raise FrameError(f"the frame's image is empty: {image.width}x{image.height}")
        info, (width, height) = self._place(frame, image.width, image.height)
        if (image.width, image.height) == self.size:  # the device reads the frame itself
            source = _converted(image, self.colour)
            return Fed(self.wrap(source.reshape(1, *source.shape[:2], -1)), info)
        buffer = self._free.pop() if self._free else self._buffer()
        try:
            if (width, height) != self.size and buffer.inner != (width, height):
                buffer.pixels.fill(self.fit.pad)
                buffer.inner = (width, height)
            target = buffer.pixels[info.top : info.top + height, info.left : info.left + width]
            if self.planes_first and width * height < image.width * image.height:
                _shrink(image, self.colour, target)
            elif self.colour != "gray" and self._rows.suit(image, height):
                self._rows.shrink(image, self.colour, target, _cv2())
            else:
                _resize(_converted(image, self.colour), target)
        except BaseException:
            self._free.append(buffer)
            raise
        return Fed(buffer.inputs, info, buffer)

    def give_back(self, fed: Fed) -> None:
        """The inference is over: the buffer may be written again. From any thread."""
        if fed.buffer is not None:
            self._free.append(fed.buffer)

    def blank(self) -> Any:
        """Input for a warm-up."""
        return self._buffer().inputs

    def _buffer(self) -> Buffer:
        width, height = self.size
        memory = np.zeros((1, height, width, 1 if self.colour == "gray" else 3), np.uint8)
        pixels = memory[0, :, :, 0] if self.colour == "gray" else memory[0]
        return Buffer(pixels, self.wrap(memory))

    def _place(self, frame: Frame, width: int, height: int) -> tuple[FrameInfo, tuple[int, int]]:
        """Where the picture lies in the input, and its size there."""
        full = self.size
        inner = full
        if self.fit.letterbox:
            ratio = min(full[0] / width, full[1] / height)
            inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        left = (full[0] - inner[0]) // 2 if self.fit.centred else 0
        top = (full[1] - inner[1]) // 2 if self.fit.centred else 0
        scale = inner[0] / width, inner[1] / height
        return FrameInfo(frame, width, height, *full, *scale, left, top, self.labels), inner


class ArraysFeed:
    """Passes arrays by the names of the model's inputs; a single one under any name."""

    def __init__(self, inputs: tuple[InputFact, ...], size: tuple[int, int], labels: Labels):
        self.inputs = inputs
        self.size = size
        self.labels = labels

    def take(self, frame: Frame) -> Fed:
        """The frame's arrays; FrameError where they are not what the model takes."""
        arrays = frame.arrays
        if len(self.inputs) == 1 and len(arrays) == 1:
            arrays = {self.inputs[0].name: next(iter(arrays.values()))}
        given = {fact.name: _checked(fact, arrays.get(fact.name)) for fact in self.inputs}
        full = self.size if all(self.size) else (1, 1)
        size = (frame.image.width, frame.image.height) if frame.image else full
        scale = full[0] / size[0], full[1] / size[1]
        info = FrameInfo(frame, *size, *full, *scale, labels=self.labels)
        return Fed(given, info)

    def give_back(self, fed: Fed) -> None:
        """Nothing was lent."""

    def blank(self) -> Any:
        """Input for a warm-up; None where a shape is open."""
        if any(-1 in fact.shape for fact in self.inputs):
            return None
        return {fact.name: np.zeros(fact.shape, fact.dtype) for fact in self.inputs}


def no_image() -> FrameError:
    """A frame without a picture came to a model that takes one."""
    return FrameError(
        "the frame has no image and the model takes a picture: arrays go into a model with "
        "`feed: arrays`"
    )


def _checked(fact: InputFact, array: NDArray[Any] | None) -> NDArray[Any]:
    wanted = f"the model's input takes {fact}"
    if array is None:
        raise FrameError(f"{wanted}; the frame has no array of that name")
    shape = array.shape
    same = len(shape) == len(fact.shape) and all(
        want in (-1, have) for want, have in zip(fact.shape, shape, strict=False)
    )
    if not same or array.dtype != fact.dtype:
        raise FrameError(f"{wanted}, not {array.dtype} {list(shape)}")
    return array


def _converted(image: Image, colour: Colour) -> U8:
    if colour == "gray":
        return image.gray()
    return image.rgb() if colour == "rgb" else image.bgr()


def _shrink(image: Image, colour: Colour, target: U8) -> None:
    """`image` at the size of `target`: resized as it came, and what is left is converted.

    Both are linear, but for rounding, and each point of colour is read from the smaller planes.
    """
    size = target.shape[1], target.shape[0]
    if image.format == "i420" and colour != "gray":
        cv2 = _cv2()
        height, width = image.height, image.width
        chroma = image.data[height:].reshape(2, height // 2, width // 2)
        planes = cv2.merge([cv2.resize(p, size) for p in (image.data[:height], *chroma)])
        cv2.transform(planes, yuv_matrix(image.matrix, image.full_range, colour), dst=target)
    elif image.format in ("bgr", "rgb"):
        small = _cv2().resize(image.data, size)
        Image(small, image.format, image.matrix, image.full_range).write(colour, target)
    else:
        _resize(_converted(image, colour), target)


def _resize(source: U8, target: U8) -> None:
    """`source` at the size of `target`, written straight into it."""
    if source.shape == target.shape:
        np.copyto(target, source)
        return
    _cv2().resize(source, (target.shape[1], target.shape[0]), dst=target)


def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingExtra("resizing the picture for the model", "cv2", "draw") from None
    return cv2
