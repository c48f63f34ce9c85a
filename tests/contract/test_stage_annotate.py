"""The annotate stage: what is found is seen, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.frame import Frame, Image, ImageFormat
from ovpipe.stages.base import LocalContext

pytest.importorskip("cv2")

from ovpipe.stages.annotate import Annotate, colour_of

SHAPES = {"i420": (360, 320), "bgr": (240, 320, 3), "rgb": (240, 320, 3), "gray": (240, 320)}


class Loans(LocalContext):
    def __init__(self) -> None:
        super().__init__()
        self.loaned: list[Any] = []

    def loan(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.loaned.append(super().loan(shape, dtype))
        return self.loaned[-1]


def frame(found: Detections | None = None, form: ImageFormat = "bgr", **meta: Any) -> Frame:
    data = np.full(SHAPES[form], 128, np.uint8)
    data.setflags(write=False)
    return Frame(image=Image(data, form, "bt709", True), detections=found, meta=meta, stream="cam")


def draw(one: Frame, **options: Any) -> Any:
    stage = Annotate(**options)
    stage.bind(Loans())
    stage.open()
    out = stage.process(one)
    stage.close()
    return out.image.data if out.image else None


BOX = Detections.of([[100, 100, 200, 180]], [0.9], [3], {3: "car"})


@pytest.mark.parametrize("form", ["i420", "bgr", "rgb", "gray"])
def test_the_box_is_drawn_into_the_loan_and_the_source_is_left_alone(form: ImageFormat) -> None:
    context = Loans()
    stage = Annotate(labels=False, scores=False, thickness=1)
    stage.bind(context)
    stage.open()
    one = frame(BOX, form)
    out = stage.process(one)
    assert out.image is not None
    assert one.image is not None
    assert out.image.data is context.loaned[0]
    assert (out.image.format, out.image.matrix, out.image.full_range) == ("bgr", "bt709", True)
    assert out.detections is BOX
    assert out.stream == "cam"
    assert (one.image.data == 128).all()
    plain = one.image.bgr()
    changed = (out.image.data != plain).any(axis=2)
    expected = np.zeros_like(changed)
    expected[100:181, 100:201] = True
    expected[101:180, 101:200] = False
    assert np.array_equal(changed, expected)
    assert tuple(out.image.data[100, 100]) == colour_of(3)


@pytest.mark.parametrize("found", [None, Detections.of()])
@pytest.mark.parametrize("form", ["i420", "bgr"])
def test_nothing_found_goes_on_as_it_came(form: ImageFormat, found: Detections | None) -> None:
    stage = Annotate()
    stage.open()
    one = frame(found, form)
    assert stage.process(one) is one
    bare = Frame(arrays={"x": np.zeros(3)}, detections=BOX)
    assert stage.process(bare) is bare


def test_label_and_score_are_options() -> None:
    def inked(**options: Any) -> int:
        return int((draw(frame(BOX), **options) != 128).any(axis=2).sum())

    nothing = inked(labels=False, scores=False)
    assert nothing < inked(labels=False) < inked()
    assert nothing < inked(scores=False) < inked()
    assert inked(thickness=9) > inked(thickness=1)


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 40, 40],
        [300, 220, 400, 300],
        [0, 0, 319, 239],
        [-1e30, -1e30, 1e30, 1e30],
        [200, 180, 100, 100],
        [50, 50, 50, 50],
        [1000, 1000, 1100, 1100],
    ],
)
def test_boxes_anywhere(box: list[float]) -> None:
    found = Detections.of(
        [box], [0.5], [1], {1: "a very long label, longer than the picture is wide"}
    )
    assert draw(frame(found)).shape == (240, 320, 3)


def test_a_box_without_numbers_is_not_drawn() -> None:
    found = Detections.of([[np.nan, 0, 10, 10], [0, 0, np.inf, 10]], [0.5, 0.5], [1, 1])
    assert (draw(frame(found)) == 128).all()


def test_classes_of_a_classified_frame_are_written_in_the_corner() -> None:
    classes = [{"label": "cat", "class_id": 1, "score": 0.8}]
    out = draw(frame(classes=classes))
    assert (out[:10, :10] != 128).any()
    assert (out[120:] == 128).all()
    assert (draw(frame(BOX, classes="cat")) != 128).any()  # somebody's own metadata of that name


def test_small_and_large_pictures() -> None:
    for height, width in ((1, 1), (8, 8), (2160, 3840)):
        image = Image(np.zeros((height, width, 3), np.uint8))
        assert draw(Frame(image=image, detections=BOX)).shape == (height, width, 3)


def test_colours_are_stable_and_far_apart() -> None:
    colours = [colour_of(i) for i in range(20)]
    assert colours == [colour_of(i) for i in range(20)]
    assert len(set(colours)) == 20
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert colour_of(-1) != colour_of(0)
