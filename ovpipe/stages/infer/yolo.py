"""Decoder `yolo`: the models that Ultralytics exports; their forms stand in yolo_layout.

The picture is RGB in 0..1, in the middle of the input, the rest is 114. Boxes are in pixels of
the input. Out, besides the detections, one row for each of them, in the same order:

    segment   array `masks`, uint8 (n, h, w): 1 on the object, 0 off it and outside of its box, at
              the resolution of the model's prototypes (a quarter of the input's, usually); the
              frame's picture lies at meta["mask_area"], as decoder `segmentation` has it
    pose      array `keypoints`, float32 (n, K, 3): x, y in pixels of the source frame, clipped
              to it, and how sure the model is of it (1 where it does not say); 0, 0, 0 where a
              number is not finite
    obb       array `corners`, float32 (n, 4, 2): those of the turned box in pixels of the source
              frame, not clipped; its detection is the upright box around them

Source: Ultralytics, exporter and predictors; Bolya et al.: YOLACT (2019) for the prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.stages.infer.decode import F32, Fit, FrameInfo, Outputs
from ovpipe.stages.infer.keypoints import only_finite
from ovpipe.stages.infer.labels import Keep
from ovpipe.stages.infer.nms import nms, nms_turned
from ovpipe.stages.infer.yolo_layout import Layout

SCORE = 0.25
NMS = {"v8": 0.7, "v5": 0.45, "end": 1.0}
ALL = Keep()


@dataclass(frozen=True, eq=False)
class _Found:
    """Rows that are strong enough: box (n, 4) as the model has it, score, class_id, extra."""

    box: F32
    score: F32
    class_id: NDArray[np.int32]
    extra: F32

    def __getitem__(self, which: Any) -> _Found:
        return _Found(self.box[which], self.score[which], self.class_id[which], self.extra[which])


@dataclass(frozen=True)
class Yolo:
    """`score`, `nms`: least score of an object, overlap above which the weaker goes.

    keep: what is wanted; nothing is computed for the rest.
    """

    fit: ClassVar[Fit] = Fit(letterbox=True, pad=114, centred=True, colour="rgb", scale=(255.0,))
    layout: Layout
    score: float = SCORE
    nms: float = NMS["v8"]
    keep: Keep = ALL

    def __call__(self, outputs: Outputs, info: FrameInfo, /) -> Detections | Frame:
        found = self._strong(outputs[self.layout.boxes].squeeze(0))
        if self.keep.classes is not None:
            found = found[np.isin(found.class_id, list(self.keep.classes))]
        if self.layout.task == "obb":
            return self._turned(found, info)
        boxes = found.box if self.layout.version == "end" else _corners(found.box)
        if self.layout.version != "end":
            stay = nms(boxes, found.score, self.nms, found.class_id)
            found, boxes = found[stay], boxes[stay]
        placed, kept = info.place(boxes)
        found, boxes = found[kept], boxes[kept]
        seen = Detections(placed[kept], found.score, found.class_id, info.labels)
        if self.layout.task == "pose":
            return info.frame.with_(
                detections=seen, arrays={"keypoints": self._points(found, info)}
            )
        if self.layout.task == "segment":
            protos = outputs[self.layout.protos].squeeze(0)
            arrays = {"masks": _masks(found.extra, protos, boxes, info)}
            area = info.area(protos.shape[2], protos.shape[1])
            return info.frame.with_(detections=seen, arrays=arrays, meta={"mask_area": area})
        return seen

    def _strong(self, output: NDArray[Any]) -> _Found:
        """The rows with at least `score`: found first, so that the rest is never looked at."""
        least = np.float32(self.score)
        if self.layout.version == "v8":
            end = 4 + self.layout.classes
            strong = np.flatnonzero(output[4:end].max(axis=0) >= least)
            rows = output[:, strong].T.astype(np.float32, copy=False)
            class_id = np.argmax(rows[:, 4:end], axis=1)
            score, extra = rows[np.arange(len(rows)), 4 + class_id], rows[:, end:]
        elif self.layout.version == "v5":
            end = 5 + self.layout.classes
            # No score is above its objectness: most rows end here.
            rows = output[output[:, 4] >= least].astype(np.float32, copy=False)
            class_id = np.argmax(rows[:, 5:end], axis=1)
            with np.errstate(over="ignore", invalid="ignore"):
                score = rows[:, 4] * rows[np.arange(len(rows)), 5 + class_id]
            extra = rows[:, end:]
        else:
            rows = output[output[:, 4] >= least].astype(np.float32, copy=False)
            rows = rows[np.abs(rows[:, 5]) < 1e6]  # no class is NaN
            class_id, score, extra = rows[:, 5].astype(np.intp), rows[:, 4], rows[:, 6:]
        found = _Found(rows[:, :4], score, class_id.astype(np.int32), extra)
        return found[(score >= least) & np.isfinite(score)]

    def _points(self, found: _Found, info: FrameInfo) -> F32:
        points, numbers = self.layout.keypoints
        given = found.extra.reshape(-1, points, numbers)
        result = np.ones((len(given), points, 3), np.float32)
        result[..., :numbers] = given
        result[..., :2] = info.to_source(given[..., :2])
        result[~np.isfinite(given).all(axis=-1)] = 0
        return only_finite(result)

    def _turned(self, found: _Found, info: FrameInfo) -> Frame:
        boxes = np.concatenate([found.box, found.extra[:, :1]], axis=1)
        if self.layout.version != "end":
            stay = nms_turned(boxes, found.score, self.nms, found.class_id)
            found, boxes = found[stay], boxes[stay]
        with np.errstate(over="ignore", invalid="ignore"):
            cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
            along = np.stack([cos, sin], axis=1) * boxes[:, 2:3] / 2
            across = np.stack([-sin, cos], axis=1) * boxes[:, 3:4] / 2
            sides = (along + across, along - across, -along - across, across - along)
            corners = boxes[:, None, :2] + np.stack(sides, axis=1)
            placed, kept = info.place(
                np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
            )
        found = found[kept]
        seen = Detections(placed[kept], found.score, found.class_id, info.labels)
        start = np.array([info.left, info.top], np.float32)
        scale = np.array([info.scale_x, info.scale_y], np.float32)
        return info.frame.with_(
            detections=seen, arrays={"corners": (corners[kept] - start) / scale}
        )


def _corners(xywh: F32) -> F32:
    with np.errstate(over="ignore", invalid="ignore"):
        half = xywh[:, 2:] / 2
        return np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half], axis=1)


def _masks(weights: F32, protos: NDArray[Any], boxes: F32, info: FrameInfo) -> NDArray[np.uint8]:
    """(n, h, w) of 0 and 1. Only the pixels in each box are computed: objects are small."""
    _, height, width = protos.shape
    masks = np.zeros((len(boxes), height, width), np.uint8)
    per_input = np.array([width / info.input_width, height / info.input_height] * 2)
    limits = np.array([width, height] * 2)
    cells = np.clip(np.ceil(boxes * per_input), 0, limits).astype(np.intp).tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        for mask, weight, (x1, y1, x2, y2) in zip(masks, weights, cells, strict=True):
            part = protos[:, y1:y2, x1:x2]
            # sigmoid(x) > 0.5 where x > 0
            mask[y1:y2, x1:x2] = np.tensordot(weight, part, axes=1) > 0
    return masks
