"""Decoder `yolox`: the detectors YOLOX, exported without decoding (Megvii's ONNX files).

[1, A, 5 + C]: b0..b3, objectness, C class probabilities, for the A cells of all grids, the
strides 8, 16, 32 (and 64) one after the other, each row by row:

    cx = (col + b0) * s     cy = (row + b1) * s     w = exp(b2) * s     h = exp(b3) * s
    score = objectness * probability of the best class

in pixels of the input; then suppression of overlaps, per class. The picture is BGR 0..255; it
stands at the top left of the input, the rest is 114.
Source: Ge et al.: YOLOX: Exceeding YOLO Series in 2021, and the project's demo for ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ovpipe.detections import Detections
from ovpipe.stages.infer.decode import F32, Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.nms import nms

SCORE = 0.3
NMS = 0.45
STRIDES = ((8, 16, 32), (8, 16, 32, 64))


@dataclass(frozen=True)
class YoloX:
    """`score`: the least score of an object; `nms`: the overlap above which the weaker goes."""

    fit: ClassVar[Fit] = Fit(letterbox=True, pad=114)
    score: float = SCORE
    nms: float = NMS

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output [1, A, 5 + C] where A is the number of cells for the input's size."""
        if len(facts.outputs) != 1:
            return False
        shape = facts.outputs[0].shape
        return len(shape) == 3 and shape[2] > 5 and _strides(facts.input_size, shape[1]) is not None

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Detections:
        (output,) = outputs.values()
        rows = output.squeeze(0)
        # No score is above its objectness (probabilities are at most 1): most rows end here.
        cells = np.flatnonzero(rows[:, 4] >= np.float32(self.score))
        rows = rows[cells].astype(np.float32, copy=False)
        class_id = np.argmax(rows[:, 5:], axis=1).astype(np.int32)
        score = rows[:, 4] * rows[np.arange(len(rows)), class_id + 5]
        strong = score >= np.float32(self.score)
        cells, rows, class_id, score = cells[strong], rows[strong], class_id[strong], score[strong]
        grid = _grid((info.input_width, info.input_height), output.shape[1])[cells]
        corner, stride = grid[:, :2], grid[:, 2:]
        with np.errstate(over="ignore", invalid="ignore"):
            centre = (corner + rows[:, :2]) * stride
            half = np.exp(rows[:, 2:4]) * (stride / 2)
            boxes = np.concatenate([centre - half, centre + half], axis=1)
        stay = nms(boxes, score, self.nms, class_id)
        return info.detections(boxes[stay], score[stay], class_id[stay])


def _strides(size: tuple[int, int], cells: int) -> tuple[int, ...] | None:
    """The strides whose grids have so many cells together, None where no choice has."""
    width, height = size
    for strides in STRIDES:
        if cells == sum((width // s) * (height // s) for s in strides):
            return strides
    return None


@lru_cache(maxsize=8)
def _grid(size: tuple[int, int], cells: int) -> F32:
    """(A, 3): column, row and stride of each cell."""
    width, height = size
    parts = []
    for s in _strides(size, cells) or ():
        rows, columns = np.mgrid[: height // s, : width // s]
        parts.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, s)], axis=1))
    return np.concatenate(parts).astype(np.float32)
