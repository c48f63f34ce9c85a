"""Decoder `embedding`: a vector that says who or what it is -> array `embedding`, of length 1.

[1, D] or [1, D, 1, 1]. Out: array `embedding`, float32 (D,), divided by its Euclidean norm, so
that the cosine of two of them is their dot product; all zeros stay zeros.

Nothing tells such a model from a classification by its shape: it is chosen by the user, or by
`model_type: embedding` in model_info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ovpipe.errors import FrameError
from ovpipe.stages.infer.classification import Classification
from ovpipe.stages.infer.decode import F32, Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts


@dataclass(frozen=True)
class Embedding:
    """FrameError where a number of the vector is not finite: it would be near to nothing."""

    fit: ClassVar[Fit] = Fit()

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output that is one vector."""
        return Classification.fits(facts)

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> dict[str, F32]:
        (output,) = outputs.values()
        vector = output.reshape(-1).astype(np.float64)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length):
            raise FrameError("the embedding is not finite", "nan_output")
        return {"embedding": (vector / length if length else vector).astype(np.float32)}
