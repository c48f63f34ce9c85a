"""The decoders of boxes, each against its formula written down once more, one box at a time."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ovpipe.frame import Frame
from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.yolox import YoloX
from ovpipe.stages.infer.yunet import YuNet

SIZE = 64


def whole(size: int = SIZE) -> FrameInfo:
    """A frame of the model's own size."""
    return FrameInfo(Frame(), size, size, size, size, 1.0, 1.0)


def letterboxed() -> FrameInfo:
    """A frame of 128x64 at the left of an input of 64x64, 16 pixels down."""
    return FrameInfo(Frame(), 128, 64, 64, 64, 0.5, 0.5, left=0, top=16)


def ssd_output(*rows: tuple[float, ...]) -> dict[str, NDArray[Any]]:
    return {"detection_out": np.float32(rows).reshape(1, 1, -1, 7)}


def test_ssd_reads_rows_up_to_the_end_mark() -> None:
    output = ssd_output(
        (0, 2, 0.9, 0.25, 0.5, 0.5, 0.75),
        (0, 1, 0.4, 0.0, 0.0, 0.5, 0.5),
        (-1, 0, 0, 0, 0, 0, 0),
        (0, 1, 0.9, 0.0, 0.0, 0.5, 0.5),
    )
    found = list(Ssd(0.5)(output, whole()))
    assert [(d.class_id, d.box) for d in found] == [(2, (16, 32, 32, 48))]


def test_ssd_first_row_may_end_the_list() -> None:
    assert len(Ssd()(ssd_output((-1, 0, 1, 0, 0, 1, 1)), whole())) == 0


def test_ssd_threshold_is_the_least_score() -> None:
    row = (0, 1, 0.5, 0.0, 0.0, 0.5, 0.5)
    assert len(Ssd(0.5)(ssd_output(row), whole())) == 1
    assert len(Ssd(0.51)(ssd_output(row), whole())) == 0


def test_boxes_are_clipped_to_the_frame_and_dropped_outside() -> None:
    output = ssd_output(
        (0, 1, 0.9, -0.5, 0.5, 1.5, 2.0),
        (0, 1, 0.9, 1.1, 0.0, 1.5, 0.5),
        (0, 1, 0.9, 0.5, 0.5, 0.5, 0.5),
    )
    assert [d.box for d in Ssd()(output, whole())] == [(0, 32, 64, 64)]


def test_boxes_go_back_through_the_letterbox() -> None:
    output = ssd_output((0, 1, 0.9, 0.25, 0.5, 0.5, 0.75))
    assert [d.box for d in Ssd()(output, letterboxed())] == [(32, 32, 64, 64)]


def yunet_outputs() -> dict[str, NDArray[Any]]:
    outputs: dict[str, NDArray[Any]] = {}
    for s in (8, 16, 32):
        cells = (SIZE // s) ** 2
        for part, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{part}_{s}"] = np.zeros((1, cells, width), np.float32)
    return outputs


def test_yunet_follows_its_formula() -> None:
    outputs = yunet_outputs()
    s, column, row, b = 16, 2, 1, (0.25, 0.5, math.log(1.5), math.log(0.5))
    cell = row * (SIZE // s) + column
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.9, 0.8
    outputs["bbox_16"][0, cell] = b
    (found,) = YuNet()(outputs, whole())
    cx, cy, w, h = (column + b[0]) * s, (row + b[1]) * s, 1.5 * s, 0.5 * s
    assert found.score == pytest.approx(math.sqrt(0.9 * 0.8))
    assert found.box == pytest.approx((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))


def test_yunet_suppresses_the_weaker_of_two_strides() -> None:
    outputs = yunet_outputs()
    for s, score in ((8, 0.7), (16, 0.9)):
        cell = (32 // s) * (SIZE // s) + 32 // s
        outputs[f"cls_{s}"][0, cell] = outputs[f"obj_{s}"][0, cell] = score
        outputs[f"bbox_{s}"][0, cell] = (0, 0, math.log(16 / s), math.log(16 / s))
    (found,) = YuNet()(outputs, whole())
    assert found.score == pytest.approx(0.9)
    assert found.box == pytest.approx((24, 24, 40, 40))


def yolox_cells(*rows: tuple[int, tuple[float, ...]]) -> dict[str, NDArray[Any]]:
    """Output for an input of 64x64: 64 + 16 + 4 cells, three classes."""
    output = np.zeros((1, 84, 8), np.float32)
    for cell, values in rows:
        output[0, cell] = values
    return {"output": output}


def test_yolox_follows_its_formula() -> None:
    # The second grid starts at cell 64 and has 4 columns: cell 64 + 1 * 4 + 2.
    output = yolox_cells((70, (0.5, 0.25, math.log(1.5), 0.0, 0.9, 0.1, 0.2, 0.8)))
    (found,) = YoloX()(output, whole())
    cx, cy, w, h = (2 + 0.5) * 16, (1 + 0.25) * 16, 24, 16
    assert (found.class_id, found.score) == (2, pytest.approx(0.72))
    assert found.box == pytest.approx((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))


def test_yolox_suppresses_within_a_class_only() -> None:
    box = (0.5, 0.5, math.log(2), math.log(2), 0.9)
    output = yolox_cells((9, (*box, 0.9, 0, 0)), (10, (-0.5, *box[1:], 0.8, 0, 0)))
    assert [d.class_id for d in YoloX()(output, whole())] == [0]
    output = yolox_cells((9, (*box, 0.9, 0, 0)), (10, (-0.5, *box[1:], 0, 0.8, 0)))
    assert [d.class_id for d in YoloX()(output, whole())] == [0, 1]


def test_yolox_objectness_alone_is_no_score() -> None:
    assert len(YoloX(0.3)(yolox_cells((0, (0, 0, 0, 0, 0.9, 0.3, 0, 0))), whole())) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_warns_nobody_and_never_crashes(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = [(c, (bad, 0, bad, 0, 0.9, 0.9, bad, 0)) for c in range(0, 84, 5)]
        YoloX()(yolox_cells(*rows), whole())
        outputs = {name: np.full_like(v, bad) for name, v in yunet_outputs().items()}
        YuNet()(outputs, whole())
        Ssd()(ssd_output((0, 1, 0.9, bad, 0, 1, bad), (0, bad, bad, 0, 0, 1, 1)), whole())


def test_decoders_do_not_write_into_the_outputs() -> None:
    outputs = yunet_outputs()
    for array in outputs.values():
        array.setflags(write=False)
    YuNet()(outputs, whole())
