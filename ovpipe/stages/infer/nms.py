"""Non-maximum suppression: of boxes that overlap, the strongest stays.

Law: indices of the boxes that stay come out, the highest score first, equal scores in order of
index. A box goes when its overlap with a stronger one that stays is above `overlap`; where
classes are given, only boxes of the same class compete. A box that is not finite neither stays
nor drives another one out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
CELLS = 1 << 14  # pairs that are compared at a time: they stay in the cache


def nms(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    overlap: float,
    class_id: NDArray[np.int32] | None = None,
) -> Indices:
    """For upright boxes (n, 4); the overlap is the intersection over the union."""
    order = _order(xyxy, score)
    boxes = xyxy[order].astype(np.float64)  # areas of absurd boxes do not overflow
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    area = (x2 - x1) * (y2 - y1)

    def beats(i: Indices, j: Indices) -> NDArray[np.bool_]:
        wide = np.minimum(x2[i, None], x2[j]) - np.maximum(x1[i, None], x1[j])
        high = np.minimum(y2[i, None], y2[j]) - np.maximum(y1[i, None], y1[j])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        # shared / union > overlap, without dividing by an empty union
        above: NDArray[np.bool_] = shared > overlap * (area[i, None] + area[j] - shared)
        return above

    return _greedy(order, beats, class_id)


def nms_turned(
    xywhr: NDArray[np.float32],
    score: NDArray[np.float32],
    overlap: float,
    class_id: NDArray[np.int32] | None = None,
) -> Indices:
    """For turned boxes (n, 5): centre, size, and angle in radians.

    The overlap is that of two Gaussian distributions of the boxes' form.
    Source: Llerena et al.: Gaussian Bounding Boxes and Probabilistic Intersection-over-Union.
    """
    order = _order(xywhr, score)
    x, y, w, h, angle = xywhr[order].astype(np.float64).T
    cos, sin = np.cos(angle), np.sin(angle)
    long, short = w * w / 12, h * h / 12
    a = long * cos * cos + short * sin * sin
    b = long * sin * sin + short * cos * cos
    c = (long - short) * cos * sin
    own = np.sqrt(np.maximum(a * b - c * c, 0))

    def beats(i: Indices, j: Indices) -> NDArray[np.bool_]:
        dx, dy = x[i, None] - x[j], y[i, None] - y[j]
        sa, sb, sc = a[i, None] + a[j], b[i, None] + b[j], c[i, None] + c[j]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spread = sa * sb - sc * sc
            apart = (sa * dy * dy + sb * dx * dx - 2 * sc * dx * dy) / spread / 4
            apart += np.log(spread / (4 * own[i, None] * own[j])) / 2
            above: NDArray[np.bool_] = 1 - np.sqrt(1 - np.exp(-np.maximum(apart, 0))) > overlap
        return above

    return _greedy(order, beats, class_id)


def _order(boxes: NDArray[np.float32], score: NDArray[np.float32]) -> Indices:
    """Indices of the boxes that are finite, the strongest first."""
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(score)
    order = np.argsort(-score, kind="stable")
    return order[finite[order]]


def _greedy(
    order: Indices,
    beats: Callable[[Indices, Indices], NDArray[np.bool_]],
    class_id: NDArray[np.int32] | None,
) -> Indices:
    """`beats` says of places in `order`, (i) and (j), which of j goes when i stays, (i, j)."""
    classes = None if class_id is None else class_id[order]
    stay: list[int] = []
    left = np.arange(len(order))
    while len(left):
        head = left[: max(1, CELLS // len(left))]
        beaten = beats(head, left)
        if classes is not None:
            beaten &= classes[head, None] == classes[left]
        gone = np.zeros(len(left), bool)
        for place, row in enumerate(beaten):
            if not gone[place]:
                stay.append(head[place])
                gone |= row
        left = left[len(head) :][~gone[len(head) :]]
    return order[np.array(stay, np.intp)]
