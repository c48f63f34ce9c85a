"""Decoder `raw`: the output tensors themselves, as arrays of the frame, by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ovpipe.stages.infer.decode import Fit, FrameInfo, Outputs


@dataclass(frozen=True)
class Raw:
    """Takes any model."""

    fit: ClassVar[Fit] = Fit()

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Outputs:
        return outputs
