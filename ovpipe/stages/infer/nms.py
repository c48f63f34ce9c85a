"""Non-maximum suppression: of boxes that overlap, the strongest stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nms(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    overlap: float,
    class_id: NDArray[np.int32] | None = None,
) -> NDArray[np.intp]:
    """Indices of the boxes that stay, the highest score first; equal scores in order of index.

    A box goes when its intersection over union with a stronger one that stays is above
    `overlap`. With `class_id`, only boxes of the same class compete. A box that is not finite
    neither stays nor drives another one out.
    """
    finite = np.isfinite(xyxy).all(axis=1) & np.isfinite(score)
    order = np.argsort(-score, kind="stable")
    order = order[finite[order]]
    boxes = xyxy[order].astype(np.float64)  # areas of absurd boxes do not overflow
    classes = None if class_id is None else class_id[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        later = slice(i + 1, None)
        low = np.maximum(boxes[i, :2], boxes[later, :2])
        high = np.minimum(boxes[i, 2:], boxes[later, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        # shared / union > overlap, without dividing by an empty union
        beaten = shared > overlap * (area[i] + area[later] - shared)
        if classes is not None:
            beaten &= classes[later] == classes[i]
        alive[later] &= ~beaten
    return order[alive]


def nms_turned(
    xywhr: NDArray[np.float32],
    score: NDArray[np.float32],
    overlap: float,
    class_id: NDArray[np.int32],
) -> NDArray[np.intp]:
    """The same, within each class, for boxes (n, 5): centre, size and angle in radians.

    The overlap is that of two Gaussian distributions of the boxes' form.
    Source: Llerena et al.: Gaussian Bounding Boxes and Probabilistic Intersection-over-Union.
    """
    finite = np.isfinite(xywhr).all(axis=1) & np.isfinite(score)
    order = np.argsort(-score, kind="stable")
    order = order[finite[order]]
    x, y, w, h, angle = xywhr[order].astype(np.float64).T
    classes = class_id[order]
    long, short = w * w / 12, h * h / 12
    cos, sin = np.cos(angle), np.sin(angle)
    a = long * cos * cos + short * sin * sin
    b = long * sin * sin + short * cos * cos
    c = (long - short) * cos * sin
    own = np.sqrt(np.maximum(a * b - c * c, 0))
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        j = slice(i + 1, None)
        dx, dy, sa, sb, sc = x[j] - x[i], y[j] - y[i], a[j] + a[i], b[j] + b[i], c[j] + c[i]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spread = sa * sb - sc * sc
            apart = (sa * dy * dy + sb * dx * dx - 2 * sc * dx * dy) / spread / 4
            apart += np.log(spread / (4 * own[j] * own[i])) / 2
            shared = 1 - np.sqrt(1 - np.exp(-np.maximum(apart, 0)))
            alive[j] &= ~((shared > overlap) & (classes[j] == classes[i]))
    return order[alive]
