"""Suppression of overlaps, against the definition written with two loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.stages.infer.nms import nms


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def slow(boxes: list[list[float]], score: list[float], overlap: float) -> list[int]:
    stay: list[int] = []
    for i in sorted(range(len(score)), key=lambda i: (-score[i], i)):
        if all(iou(boxes[i], boxes[k]) <= overlap for k in stay):
            stay.append(i)
    return stay


box = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(0, 10)] * 2).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


@given(st.lists(st.tuples(box, st.integers(1, 5)), max_size=20), st.sampled_from([0.0, 0.3, 0.9]))
def test_as_defined(rows: list[tuple[list[float], int]], overlap: float) -> None:
    boxes, score = [b for b, _ in rows], [s / 5 for _, s in rows]
    stay = nms(np.float32(boxes).reshape(-1, 4), np.float32(score), overlap)
    assert stay.tolist() == slow(boxes, score, overlap)


def test_classes_do_not_compete() -> None:
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]])
    score = np.float32([0.5, 0.9, 0.8])
    assert nms(boxes, score, 0.5).tolist() == [1]
    assert nms(boxes, score, 0.5, np.int32([1, 0, 0])).tolist() == [1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_goes_and_drives_nobody_out(bad: float) -> None:
    boxes = np.float32([[0, 0, bad, bad], [1, 1, 3, 3], [1, 1, 3, 3]])
    assert nms(boxes, np.float32([0.9, 0.8, bad]), 0.5).tolist() == [1]
