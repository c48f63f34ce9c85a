"""Decoder `yunet`: the face detector YuNet (OpenCV Zoo, face_detection_yunet_2023mar).

For each stride s in 8, 16, 32, and each cell (col, row) of that grid:

    score = sqrt(cls * obj)
    cx = (col + b0) * s     cy = (row + b1) * s     w = exp(b2) * s     h = exp(b3) * s

in pixels of the input; then suppression of overlaps. The picture is BGR 0..255; it stands at
the top left of the input, the rest is black.
Source: Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector (2023); the formulas as in
OpenCV's cv::FaceDetectorYN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.stages.infer.decode import F32, Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.nms import nms

SCORE = 0.6
NMS = 0.3
STRIDES = (8, 16, 32)
LABELS = {0: "face"}


@dataclass(frozen=True)
class YuNet:
    """`score`: the least score of a face; `nms`: the overlap above which the weaker goes."""

    fit: ClassVar[Fit] = Fit(letterbox=True, pad=0)
    score: float = SCORE
    nms: float = NMS

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for the twelve outputs cls, obj, bbox, kps of each stride."""
        names = {f"{part}_{s}" for part in ("cls", "obj", "bbox", "kps") for s in STRIDES}
        return names <= {output.name for output in facts.outputs}

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Detections:
        parts = [self._stride(outputs, s, info.input_width // s) for s in STRIDES]
        boxes = np.concatenate([box for box, _ in parts])
        score = np.concatenate([score for _, score in parts])
        stay = nms(boxes, score, self.nms)
        return info.detections(boxes[stay], score[stay], np.zeros(len(stay), np.int32))

    def _stride(self, outputs: Outputs, s: int, columns: int) -> tuple[F32, F32]:
        """Boxes (n, 4) in input pixels and scores of the cells of one stride that may be faces."""
        cls, obj, bbox = (outputs[f"{part}_{s}"].squeeze(0) for part in ("cls", "obj", "bbox"))
        score: F32 = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        cells: NDArray[np.intp] = np.flatnonzero(score >= np.float32(self.score))
        corner = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            centre = (corner + bbox[cells, :2]) * np.float32(s)
            half = np.exp(bbox[cells, 2:]) * np.float32(s / 2)
            return np.concatenate([centre - half, centre + half], axis=1), score[cells]
