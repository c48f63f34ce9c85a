"""Decoder `keypoints`: the points of one body or face -> array `keypoints`.

    [1, 1, K, 3]                     y, x, score: MoveNet, one person
    [1, 2K] or [1, 2K, 1, 1]         x, y for each point: landmarks of a face (only where the
                                     user says so: any vector looks like this); each score is 1

in 0..1 of the input. Out: array `keypoints`, float32 (1, K, 3): x, y in pixels of the source
frame, clipped to it, and the score; a point that is not finite has the score 0 and lies at
0, 0. MoveNet keeps the proportions of its picture: black fills the rest.
Source: TensorFlow Hub, MoveNet SinglePose; Open Model Zoo, landmarks-regression-retail-0009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovpipe.stages.infer.decode import F32, Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts

BODY = Fit(letterbox=True, pad=0)
PARTS = 17


@dataclass(frozen=True)
class Keypoints:
    """`fit`: how the model wants its picture, as `of` finds it."""

    fit: Fit = BODY

    @classmethod
    def of(cls, facts: ModelFacts) -> Keypoints:
        """Bodies in a letterbox; crops of faces are stretched, as Open Model Zoo trains."""
        return cls(BODY if _is_body(facts.outputs[0].shape) else Fit())

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output [1, 1, K, 3], or one with an even number of values."""
        if len(facts.outputs) != 1:
            return False
        shape = facts.outputs[0].shape
        if _is_body(shape):
            return True
        flat = len(shape) in (2, 4) and shape[:1] + shape[2:] in ((1,), (1, 1, 1))
        return flat and shape[1] > 0 and shape[1] % 2 == 0

    @staticmethod
    def shows(facts: ModelFacts) -> bool:
        """True for MoveNet's shape, with its 17 parts of a body."""
        return [output.shape for output in facts.outputs] == [(1, 1, PARTS, 3)]

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> dict[str, F32]:
        (output,) = outputs.values()
        if _is_body(output.shape):
            points = output.reshape(1, -1, 3).astype(np.float32)[..., [1, 0, 2]]
        else:
            xy = output.reshape(1, -1, 2).astype(np.float32)
            points = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=2)
        size = np.array([info.input_width, info.input_height], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            points[..., :2] = info.to_source(points[..., :2] * size)
        return {"keypoints": only_finite(points)}


def only_finite(points: F32) -> F32:
    """Points (..., 3); those with a number that is not finite become 0, 0, 0."""
    points[~np.isfinite(points).all(axis=-1)] = 0
    return points


def _is_body(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == 3
