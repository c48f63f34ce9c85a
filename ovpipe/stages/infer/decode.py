"""Decoders: a model's output tensors -> what was seen, in pixels of the source frame.

A decoder is a value that is called with one frame's outputs. It holds thresholds and nothing
else: no decoder remembers a frame. It gives

    Detections   objects; those that are not finite or not wanted never leave the stage
    a mapping    ndarrays go out as arrays of the frame, anything else as metadata
    a Frame      sent on as it is
    None         the frame goes on unchanged

Law: boxes lie within the source frame. What lies partly outside is clipped to it, what has no
area inside is left out, so that a crop by any published box is a picture.

Which decoder fits is decided by evidence, most reliable first: what the user wrote, what the
model says of itself (`model_info` in its rt_info), names and shapes of its outputs; else `raw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.stages.infer.labels import Labels

Outputs = Mapping[str, NDArray[Any]]
Decoded = Detections | Mapping[str, Any] | Frame | None
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """How a picture is put into the model's input.

    letterbox      keep the proportions and fill the rest with `pad`; else stretch
    centred        the picture stands in the middle of the input, not at its top left
    colour         what the model was trained on, "" where the decoder does not know
    mean, scale    subtracted from the pixels, then they are divided by it; () for neither
    """

    letterbox: bool = False
    pad: int = 114
    centred: bool = False
    colour: Literal["", "bgr", "rgb"] = ""
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class FrameInfo:
    """One frame's way into the model, for the way back: all a decoder has to know.

    frame                        the frame as it came in
    width, height                of the source frame, in pixels
    input_width, input_height    of the model's input, in pixels
    scale_x, scale_y             input pixels per source pixel
    left, top                    input pixels beside and above the picture (letterbox)
    labels                       class id -> name
    """

    frame: Frame
    width: int
    height: int
    input_width: int
    input_height: int
    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0
    labels: Labels = field(default_factory=dict)

    def to_source(self, xy: F32) -> F32:
        """Points (..., 2) or boxes (..., 4) in input pixels -> in the source frame, clipped."""
        pairs = xy.reshape(*xy.shape[:-1], xy.shape[-1] // 2, 2)
        start = np.array([self.left, self.top], np.float32)
        per_pixel = np.array([1 / self.scale_x, 1 / self.scale_y], np.float32)
        end = np.array([self.width, self.height], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            clipped: F32 = np.clip((pairs - start) * per_pixel, np.float32(0), end)
        return clipped.reshape(xy.shape)

    def place(self, xyxy: F32) -> tuple[F32, NDArray[np.bool_]]:
        """Boxes (n, 4) in input pixels -> in the source frame, and which of them (n,) are kept.

        Those that are not finite, and those with no area in the frame, are not.
        """
        boxes = self.to_source(xyxy)
        kept = np.isfinite(xyxy).all(axis=1)
        kept &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return boxes, kept

    def detections(self, xyxy: ArrayLike, score: ArrayLike, class_id: ArrayLike) -> Detections:
        """Detections from boxes in input pixels.

        Those that are not finite, and those with no area in the frame, are left out.
        """
        found = Detections.of(xyxy, score, class_id, self.labels)
        boxes, kept = self.place(found.xyxy)
        return replace(found, xyxy=boxes)[kept]

    def area(self, width: int, height: int) -> list[float]:
        """Where the source frame lies in a map that shows the whole input: [x1, y1, x2, y2].

        In pixels of a map of that size; without a letterbox it is all of the map.
        """
        x, y = width / self.input_width, height / self.input_height
        right = self.left + self.width * self.scale_x
        bottom = self.top + self.height * self.scale_y
        return [self.left * x, self.top * y, right * x, bottom * y]


class Decoder(Protocol):
    """`fit` is how the model wants its picture, where the user does not say."""

    @property
    def fit(self) -> Fit: ...

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Decoded: ...
