"""Decoder `ultraface`: the light face detectors RFB and slim (Linzaer's ONNX files).

Two outputs, in any order: scores [1, N, 2], of no face and of a face, and boxes [1, N, 4]: x1,
y1, x2, y2 in 0..1 of the input. Then suppression of overlaps. The picture is RGB,
(pixel - 127) / 128, stretched to the input. N is the number of priors: 3, 2, 2 and 3 in each
cell of the grids with the strides 8, 16, 32 and 64.
Source: the project Ultra-Light-Fast-Generic-Face-Detector-1MB, its demo for ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ovpipe.detections import Detections
from ovpipe.stages.infer.decode import Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.nms import nms

SCORE = 0.7
NMS = 0.3
PRIORS = {8: 3, 16: 2, 32: 2, 64: 3}
LABELS = {0: "face"}


@dataclass(frozen=True)
class UltraFace:
    """`score`: the least score of a face; `nms`: the overlap above which the weaker goes."""

    fit: ClassVar[Fit] = Fit(colour="rgb", mean=(127.0,), scale=(128.0,))
    score: float = SCORE
    nms: float = NMS

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for two outputs [1, N, 2] and [1, N, 4]."""
        shapes = sorted((output.shape for output in facts.outputs), key=lambda shape: shape[-1:])
        if [len(shape) for shape in shapes] != [3, 3]:
            return False
        return [s[2] for s in shapes] == [2, 4] and shapes[0][:2] == shapes[1][:2]

    @classmethod
    def shows(cls, facts: ModelFacts) -> bool:
        """True where N is also the number of priors for the input's size."""
        width, height = facts.input_size
        cells = {s: -(-width // s) * -(-height // s) for s in PRIORS}
        priors = sum(cells[s] * n for s, n in PRIORS.items())
        return cls.fits(facts) and facts.outputs[0].shape[1] == priors > 0

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Detections:
        scores, boxes = sorted((o.squeeze(0) for o in outputs.values()), key=lambda o: o.shape[1])
        strong = np.flatnonzero(scores[:, 1] >= np.float32(self.score))
        score = scores[strong, 1].astype(np.float32, copy=False)
        size = np.array([info.input_width, info.input_height] * 2, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            xyxy = boxes[strong].astype(np.float32, copy=False) * size
        stay = nms(xyxy, score, self.nms)
        return info.detections(xyxy[stay], score[stay], np.zeros(len(stay), np.int32))
