"""Decoder `ssd`: OpenVINO's DetectionOutput, as the detectors of Open Model Zoo have it.

[1, 1, N, 7], one row per object: image_id, label, confidence, x_min, y_min, x_max, y_max; the
coordinates in 0..1 of the model's input; a row with image_id < 0 ends the list.
Source: OpenVINO operation specification, DetectionOutput-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ovpipe.detections import Detections
from ovpipe.stages.infer.decode import Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts

SCORE = 0.5


@dataclass(frozen=True)
class Ssd:
    """`score`: the least confidence of an object."""

    fit: ClassVar[Fit] = Fit()
    score: float = SCORE

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output of shape [1, 1, N, 7]."""
        if len(facts.outputs) != 1:
            return False
        shape = facts.outputs[0].shape
        return len(shape) == 4 and shape[3] == 7 and shape[0] in (1, -1) and shape[1] in (1, -1)

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Detections:
        (output,) = outputs.values()
        rows = output.reshape(-1, 7)
        end = rows[:, 0] < 0
        if end.any():
            rows = rows[: int(np.argmax(end))]
        rows = rows[rows[:, 2] >= np.float32(self.score)].astype(np.float32, copy=False)
        rows = rows[np.isfinite(rows).all(axis=1)]
        size = np.array([info.input_width, info.input_height] * 2, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers, not ours to judge
            return info.detections(rows[:, 3:] * size, rows[:, 2], rows[:, 1].astype(np.int32))
