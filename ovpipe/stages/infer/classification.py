"""Decoder `classification`: one score per class -> the five best, in the frame's metadata.

[1, C] or [1, C, 1, 1]. Scores that are no probabilities yet go through softmax; uint8 ones (a
quantised model's) are parts of 255. Out: meta["classes"], the best first, each
{"label", "class_id", "score"}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.stages.infer.decode import Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.labels import Keep

TOP = 5
IMAGENET = (1000, 1001)
ALL = Keep()


@dataclass(frozen=True)
class Classification:
    """`keep` picks among the classes before the best are taken."""

    fit: ClassVar[Fit] = Fit()
    keep: Keep = ALL

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output with one number per class."""
        if len(facts.outputs) != 1:
            return False
        shape = facts.outputs[0].shape
        return len(shape) in (2, 4) and shape[1] > 1 and all(d in (1, -1) for d in _others(shape))

    @classmethod
    def shows(cls, facts: ModelFacts, labels: int) -> bool:
        """True where these numbers are surely classes: a vector alone may be anything."""
        if facts.export is not None or not cls.fits(facts):  # an export says what it is for
            return False
        output = facts.outputs[0]
        return output.op == "Softmax" or output.shape[1] in (
            labels,
            facts.classes,
            *IMAGENET,
        )

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> dict[str, Any]:
        (output,) = outputs.values()
        score = probabilities(output.reshape(-1))
        best = np.argsort(-score, kind="stable").tolist()
        wanted = [i for i in best if self.keep.wants(i, float(score[i]))][:TOP]
        name = info.labels.get
        return {
            "classes": [
                {"label": name(i, str(i)), "class_id": i, "score": float(score[i])} for i in wanted
            ]
        }


def probabilities(raw: NDArray[Any]) -> NDArray[np.float32]:
    """Scores as parts of 1: as they are, by 1/255, or through softmax. NaN counts as nothing."""
    if raw.dtype == np.uint8:
        return raw.astype(np.float32) / np.float32(255)
    most = float(np.finfo(np.float32).max)
    score = np.nan_to_num(raw.astype(np.float64), nan=-most, posinf=most, neginf=-most)
    if np.min(score) < 0 or abs(np.sum(score) - 1) > 0.01:
        raised = np.exp(score - np.max(score))
        score = raised / raised.sum()
    return score.astype(np.float32)


def _others(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] + shape[2:]
