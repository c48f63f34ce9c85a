"""Decoder `yolo`: each form of output against boxes worked out by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.labels import Keep
from ovpipe.stages.infer.nms import nms_turned
from ovpipe.stages.infer.yolo import Yolo
from ovpipe.stages.infer.yolo_layout import Layout

A = 84  # cells of an input of 64x64
V8 = Layout("v8", "detect", "out", classes=3)
V5 = Layout("v5", "detect", "out", classes=3)
END = Layout("end", "detect", "out")


def whole() -> FrameInfo:
    """A frame of the model's own size, 64x64."""
    return FrameInfo(Frame(), 64, 64, 64, 64, 1.0, 1.0)


def centred() -> FrameInfo:
    """A frame of 128x64 in the middle of an input of 64x64: 16 pixels above and below it."""
    return FrameInfo(Frame(meta={"mine": 1}), 128, 64, 64, 64, 0.5, 0.5, left=0, top=16)


def output(shape: tuple[int, ...], rows: dict[int, tuple[float, ...]]) -> dict[str, NDArray[Any]]:
    """`rows` at their places of [1, A, n]; turned round where the shape is [1, n, A]."""
    first = next(iter(rows.values()))
    made = np.zeros(shape, np.float32)
    target = made[0] if shape[2] == len(first) else made[0].T
    for place, row in rows.items():
        target[place] = row
    return {"out": made}


def v8(*rows: tuple[float, ...]) -> dict[str, NDArray[Any]]:
    return output((1, len(rows[0]), A), dict(zip(range(7, A, 11), rows, strict=False)))


def seen(found: Any) -> list[tuple[int, float, tuple[float, ...]]]:
    assert isinstance(found, Detections)
    return [(d.class_id, round(d.score, 4), d.box) for d in found]


def test_v8() -> None:
    out = v8((32, 30, 16, 8, 0.1, 0.2, 0.9), (10, 10, 4, 4, 0.24, 0.1, 0.1))
    assert seen(Yolo(V8)(out, whole())) == [(2, 0.9, (24, 26, 40, 34))]


def test_v8_through_a_centred_letterbox() -> None:
    # In the input x 24..40, y 26..34; the frame begins at y 16 and is twice as large.
    out = v8((32, 30, 16, 8, 0.1, 0.2, 0.9))
    assert seen(Yolo(V8)(out, centred())) == [(2, 0.9, (48, 20, 80, 36))]


def test_what_lies_in_the_padding_is_left_out_and_the_rest_clipped() -> None:
    out = v8((32, 8, 8, 8, 0.9, 0, 0), (60, 20, 16, 16, 0, 0.9, 0))
    assert seen(Yolo(V8)(out, centred())) == [(1, 0.9, (104, 0, 128, 24))]


def test_v5_multiplies_by_the_objectness() -> None:
    rows = {
        0: (32.0, 30, 16, 8, 0.8, 0.1, 0.5, 0.2),
        250: (10, 10, 8, 8, 0.5, 0.4, 0.4, 0.4),  # 0.2: too weak
        251: (10, 10, 8, 8, 0.1, 1.0, 0, 0),
    }
    out = output((1, 3 * A, 8), rows)
    assert seen(Yolo(V5)(out, whole())) == [(1, 0.4, (24, 26, 40, 34))]


def test_end_takes_the_rows_as_they_are() -> None:
    # Two that overlap wholly: the model has suppressed what it wanted to.
    rows = {0: (8.0, 8, 24, 24, 0.9, 2), 1: (8, 8, 24, 24, 0.8, 2), 2: (8, 8, 24, 24, 0.1, 1)}
    out = output((1, 300, 6), rows)
    found = seen(Yolo(END)(out, whole()))
    assert found == [(2, 0.9, (8, 8, 24, 24)), (2, 0.8, (8, 8, 24, 24))]


def test_overlaps_go_within_a_class() -> None:
    box, other = (20, 20, 10, 10), (21, 20, 10, 10)  # intersection 90, union 110: 0.818
    same = v8((*box, 0.9, 0, 0), (*other, 0.8, 0, 0))
    assert len(Yolo(V8, nms=0.7)(same, whole())) == 1
    assert len(Yolo(V8, nms=0.9)(same, whole())) == 2
    assert len(Yolo(V8, nms=0.7)(v8((*box, 0.9, 0, 0), (*other, 0, 0.8, 0)), whole())) == 2


def test_only_what_is_kept_is_computed() -> None:
    out = v8((20, 20, 10, 10, 0.9, 0, 0), (20, 20, 10, 10, 0, 0.8, 0))
    found = Yolo(V8, keep=Keep(frozenset({1})))(out, whole())
    assert seen(found) == [(1, 0.8, (15, 15, 25, 25))]


def test_nothing_found() -> None:
    assert seen(Yolo(V8)({"out": np.zeros((1, 7, A), np.float32)}, whole())) == []
    assert seen(Yolo(V5)({"out": np.zeros((1, 252, 8), np.float32)}, whole())) == []
    assert seen(Yolo(END)({"out": np.zeros((1, 0, 6), np.float32)}, whole())) == []


@pytest.mark.parametrize("version", ["v8", "v5", "end"])
def test_pose(version: Any) -> None:
    # The second of the points is not finite; the third lies in the padding, 8 above the frame.
    points = (20, 20, 0.5, math.nan, 30, 0.6, 40, 8, 0.7)
    layout = Layout(version, "pose", "out", classes=1, keypoints=(3, 3))
    if version == "v8":
        out = v8((32, 30, 16, 8, 0.9, *points))
    elif version == "v5":
        out = output((1, 252, 15), {3: (32, 30, 16, 8, 0.9, 1, *points)})
    else:
        out = output((1, 300, 15), {3: (24, 26, 40, 34, 0.9, 0, *points)})
    frame = Yolo(layout)(out, centred())
    assert isinstance(frame, Frame)
    assert seen(frame.detections) == [(0, 0.9, (48, 20, 80, 36))]
    expected = [[[40, 8, 0.5], [0, 0, 0], [80, 0, 0.7]]]
    np.testing.assert_allclose(frame.arrays["keypoints"], expected, atol=1e-5)
    assert frame.arrays["keypoints"].dtype == np.float32
    assert frame.meta == {"mine": 1}


def test_points_without_a_score_have_1() -> None:
    layout = Layout("v8", "pose", "out", classes=1, keypoints=(2, 2))
    frame = Yolo(layout)(v8((32, 30, 16, 8, 0.9, 20, 20, 40, 40)), whole())
    assert isinstance(frame, Frame)
    assert frame.arrays["keypoints"].tolist() == [[[20, 20, 1], [40, 40, 1]]]


def test_arrays_have_a_row_for_each_detection() -> None:
    """Also when rows are dropped: outside, not wanted, suppressed."""
    rows = [
        (32, 4, 8, 6, 0.95, 0, 1, 1),  # in the padding
        (32, 30, 16, 8, 0.9, 0, 20, 20),
        (33, 30, 16, 8, 0.8, 0, 21, 20),  # suppressed
        (20, 30, 8, 8, 0, 0.7, 22, 20),  # not wanted
        (50, 40, 8, 8, 0.6, 0, 40, 20),
    ]
    layout = Layout("v8", "pose", "out", classes=2, keypoints=(1, 2))
    frame = Yolo(layout, keep=Keep(frozenset({0})))(v8(*rows), centred())
    assert isinstance(frame, Frame)
    assert [s for _, s, _ in seen(frame.detections)] == [0.9, 0.6]
    assert frame.arrays["keypoints"][:, 0, 0].tolist() == [40, 80]


def test_masks_are_cropped_to_their_boxes() -> None:
    # Prototypes of 16x16 for an input of 64x64: the first is on in the left half of the map.
    protos = np.full((1, 2, 16, 16), -1.0, np.float32)
    protos[0, 0, :, :8] = 1
    layout = Layout("v8", "segment", "out", "protos", classes=1)
    # x 16..48, y 20..44 -> columns 4..11, rows 5..10
    out = v8((32, 32, 32, 24, 0.9, 1, 0), (32, 32, 8, 8, 0.8, -1, 0)) | {"protos": protos}
    frame = Yolo(layout)(out, centred())
    assert isinstance(frame, Frame)
    assert len(frame.detections or ()) == 2
    masks = frame.arrays["masks"]
    assert (masks.shape, masks.dtype) == ((2, 16, 16), np.uint8)
    first, second = np.zeros((2, 16, 16), np.uint8)
    first[5:11, 4:8] = 1
    second[7:9, 8:9] = 1  # x 28..36 -> columns 7, 8, of which 8 is on the right
    assert np.array_equal(masks, [first, second])
    assert frame.meta["mask_area"] == [0, 4, 16, 12]


def test_no_object_no_mask() -> None:
    layout = Layout("v8", "segment", "out", "protos", classes=1)
    out = {"out": np.zeros((1, 7, A), np.float32), "protos": np.zeros((1, 2, 16, 16), np.float32)}
    frame = Yolo(layout)(out, whole())
    assert isinstance(frame, Frame)
    assert frame.arrays["masks"].shape == (0, 16, 16)


@pytest.mark.parametrize("version", ["v8", "end"])
def test_turned_boxes(version: Any) -> None:
    box, angle = (32, 32, 16, 4), math.pi / 2  # stands upright
    layout = Layout(version, "obb", "out", classes=1)
    if version == "v8":
        out = v8((*box, 0.9, angle), (33, 32, 16, 4, 0.8, angle), (32, 32, 16, 4, 0.7, 0))
    else:
        out = output((1, 300, 7), {0: (*box, 0.9, 0, angle), 1: (*box, 0.7, 0, 0)})
    frame = Yolo(layout, nms=0.5)(out, centred())
    assert isinstance(frame, Frame)
    assert frame.detections is not None
    assert [round(d.score, 2) for d in frame.detections] == [0.9, 0.7]  # one crosses the other
    np.testing.assert_allclose(frame.detections.xyxy[0], (60, 16, 68, 48), atol=1e-4)
    corners = frame.arrays["corners"]
    assert (corners.shape, corners.dtype) == ((2, 4, 2), np.float32)
    expected = {(60, 16), (68, 16), (68, 48), (60, 48)}
    assert {tuple(np.round(c).tolist()) for c in corners[0]} == expected


def test_overlap_of_turned_boxes() -> None:
    boxes = np.float32(
        [[0, 0, 8, 2, 0], [0, 0, 8, 2, math.pi], [0, 0, 8, 2, math.pi / 2], [9, 9, 0, 0, 0]]
    )
    score = np.float32([0.9, 0.8, 0.7, 0.6])
    same = np.zeros(4, np.int32)
    assert nms_turned(boxes, score, 0.5, same).tolist() == [0, 2, 3]
    assert nms_turned(boxes, score, 0.5, np.arange(4, dtype=np.int32)).tolist() == [0, 1, 2, 3]
    boxes[0] = np.nan
    assert nms_turned(boxes, score, 0.5, same).tolist() == [1, 2, 3]


LAYOUTS = [
    (V8, (1, 7, A)),
    (V5, (1, 252, 8)),
    (END, (1, 9, 6)),
    (Layout("v8", "pose", "out", classes=1, keypoints=(1, 2)), (1, 7, A)),
    (Layout("v8", "obb", "out", classes=2), (1, 7, A)),
    (Layout("end", "obb", "out"), (1, 9, 7)),
    (Layout("v8", "segment", "out", "protos", classes=1), (1, 7, A)),
]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS, ids=lambda v: getattr(v, "task", ""))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_what_is_not_finite_warns_nobody_and_never_leaves(
    layout: Layout, shape: tuple[int, ...], bad: float
) -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        made = random.uniform(0, 64, shape).astype(np.float32)
        made[random.random(shape) < 0.2] = bad
        made.setflags(write=False)
        protos = np.full((1, 2, 16, 16), bad, np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Yolo(layout)({"out": made, "protos": protos}, centred())
        if isinstance(found, Frame):
            for array in found.arrays.values():
                assert np.isfinite(array).all()
            found = found.detections
        assert isinstance(found, Detections)
        assert np.isfinite(found.score).all()
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= (128, 64, 128, 64)).all()
        assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
