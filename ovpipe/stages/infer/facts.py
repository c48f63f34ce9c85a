"""What a model shows of itself before it runs: the evidence for how it is fed and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class InputFact:
    """One input of a model: its name, dtype and shape; -1 is a dimension that may be anything."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class OutputFact:
    """One output of a model; -1 is a dimension that is known only at run time.

    op: type of the operation that makes it, as `DetectionOutput`.
    """

    name: str
    shape: tuple[int, ...]
    op: str = ""

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


@dataclass(frozen=True)
class Export:
    """What Ultralytics wrote of a model that it exported.

    task         detect, segment, pose, obb, classify, semantic; "" where it does not say
    names        class id -> name, one for each class
    final        its boxes are final: no overlaps are left to be suppressed
    keypoints    points of an object and numbers of a point, (0, 0) where it does not say
    """

    task: str
    names: Mapping[int, str]
    final: bool = False
    keypoints: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class ModelFacts:
    """The evidence.

    input_size    (width, height) of the one picture that it takes; (0, 0) where it takes none
    channels      of that picture: 3, 1, or 0
    layout        of that picture: NCHW or NHWC, or ""
    suffix        of the file: .xml, .onnx, .tflite
    info          `model_info` of its rt_info, as Model API and the converters write it
    export        what Ultralytics wrote of it, None for the models of others
    """

    outputs: tuple[OutputFact, ...]
    inputs: tuple[InputFact, ...] = ()
    input_size: tuple[int, int] = (0, 0)
    channels: int = 0
    layout: str = ""
    suffix: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    export: Export | None = None

    @property
    def classes(self) -> int:
        """How many classes the model says that it has; 0 where it does not."""
        if self.export is not None:
            return len(self.export.names)
        return len(self.info.get("labels", "").split())

    def __str__(self) -> str:
        return ", ".join(str(output) for output in self.outputs)
