"""Decoder `segmentation`: what each pixel shows -> array `mask`, and the classes in it.

    [1, C, H, W]                  a score for each class: the best wins, the first of equals
    [1, 1, H, W] or [1, H, W]     the class ids themselves

Out: array `mask`, uint8 (uint16 for more than 256 classes), (H, W): the class id of each pixel
of the model's output, 0 where the scores are no numbers. The frame's picture lies at
meta["mask_area"], [x1, y1, x2, y2] in pixels of the mask (without a letterbox that is all of
it): mask[y, x] shows the frame at
((x + 0.5 - x1) * width / (x2 - x1), (y + 0.5 - y1) * height / (y2 - y1)).
meta["segments"]: the classes in the mask by their id, each {"label", "class_id", "share"};
`share` is its part of the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.stages.infer.decode import Fit, FrameInfo, Outputs
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.labels import Keep

ALL = Keep()
BLOCK = 1 << 15  # pixels: the scores of one class in a block stay in the cache
Mask = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Segmentation:
    """`keep` picks the classes that meta["segments"] names; the mask has all of them.

    wide: ids that the model gives may be above 255, and the mask is uint16.
    """

    fit: ClassVar[Fit] = Fit()
    keep: Keep = ALL
    wide: bool = False

    @staticmethod
    def fits(facts: ModelFacts) -> bool:
        """True for one output of one of the shapes above."""
        if len(facts.outputs) != 1:
            return False
        shape = facts.outputs[0].shape
        if len(shape) not in (3, 4) or shape[0] not in (1, -1):
            return False
        return 0 not in shape and all(d > 1 or d == -1 for d in shape[-2:])

    @classmethod
    def shows(cls, facts: ModelFacts, labels: int) -> bool:
        """True where the channels are surely classes: as many as names, of [1, C, H, W]."""
        if facts.export is not None or not cls.fits(facts):  # an export says what it is for
            return False
        shape = facts.outputs[0].shape
        return len(shape) == 4 and shape[1] > 1 and shape[1] in (labels, facts.classes)

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> dict[str, Any]:
        (output,) = outputs.values()
        ids = output.ndim == 3 or output.shape[1] == 1
        mask = _ids(output, self.wide) if ids else best(output.squeeze(0))
        height, width = mask.shape
        counts = np.bincount(mask.reshape(-1))
        shares = {int(i): int(counts[i]) / mask.size for i in np.flatnonzero(counts)}
        return {
            "mask": mask,
            "mask_area": info.area(width, height),
            "segments": [
                {"label": info.labels.get(i, str(i)), "class_id": i, "share": share}
                for i, share in shares.items()
                if self.keep.wants(i, np.inf)
            ],
        }


def best(scores: NDArray[Any]) -> Mask:
    """Scores (C, H, W) -> ids (H, W) of the highest; five times as fast as argmax over axis 0."""
    classes, height, width = scores.shape
    flat = scores.reshape(classes, -1)
    mask = np.zeros(height * width, np.uint8 if classes <= 256 else np.uint16)
    for start in range(0, mask.size, BLOCK):
        part, ids = flat[:, start : start + BLOCK], mask[start : start + BLOCK]
        highest = part.max(axis=0)
        for i in range(classes - 1, -1, -1):  # the first of equals is written last
            won = part[i] == highest
            ids *= ~won
            ids += won.astype(ids.dtype) * ids.dtype.type(i)
    return mask.reshape(height, width)


def _ids(output: NDArray[Any], wide: bool) -> Mask:
    ids = output.reshape(output.shape[-2:])
    if ids.dtype.kind == "f":
        ids = np.nan_to_num(ids, nan=0.0, posinf=0.0, neginf=0.0)
    dtype = np.uint16 if wide else np.uint8
    mask: Mask = np.clip(ids, 0, np.iinfo(dtype).max).astype(dtype, copy=False)
    return mask
