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
from typing import Any, Protocol

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

    letterbox: keep the proportions and fill the rest with `pad`; else stretch.
    centred: the picture stands in the middle of the input, not at its top left.
    """

    letterbox: bool = False
    pad: int = 114
    centred: bool = False


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

    def to_source(self, xyxy: F32) -> F32:
        """Boxes (n, 4) in input pixels -> in pixels of the source frame, clipped to it."""
        start = np.array([self.left, self.top] * 2, np.float32)
        per_pixel = np.array([1 / self.scale_x, 1 / self.scale_y] * 2, np.float32)
        end = np.array([self.width, self.height] * 2, np.float32)
        with np.errstate(over="ignore"):
            clipped: F32 = np.clip((xyxy - start) * per_pixel, np.float32(0), end)
        return clipped

    def detections(self, xyxy: ArrayLike, score: ArrayLike, class_id: ArrayLike) -> Detections:
        """Detections from boxes in input pixels.

        Those that are not finite, and those with no area in the frame, are left out.
        """
        found = Detections.of(xyxy, score, class_id, self.labels)
        found = found[np.isfinite(found.xyxy).all(axis=1)]
        boxes = self.to_source(found.xyxy)
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(found, xyxy=boxes)[seen]


class Decoder(Protocol):
    """`fit` is how the model wants its picture, where the user does not say."""

    @property
    def fit(self) -> Fit: ...

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Decoded: ...
