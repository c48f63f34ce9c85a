"""Real videos, real models, known answers; skipped, loudly, where the data is not there.

The bounds are those of the data's description. One frame, 73 of the car clip, is an exception
by the model itself: it gives a second box, of the upper part of the same car, to anybody who asks
it (the serial loop too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer
from ovpipe.testing import push, run_stage
from tests.support.data import need

CAR = "videos/car-detection.mp4"
CAR_MODEL = (
    "models/omz/person-vehicle-bike-detection-2000/FP16/person-vehicle-bike-detection-2000.xml"
)
CAR_LABELS = ["vehicle", "person", "bike"]
FACES = "models/omz/face-detection-retail-0004/{0}/face-detection-retail-0004.xml"


def frames(
    video: Path, wanted: Callable[[int], bool] = lambda seq: True, last: int = 1 << 30
) -> Iterator[Frame]:
    pytest.importorskip("av")
    from tests.support.serial import i420_frames

    for seq, pixels in enumerate(i420_frames(video)):
        if seq > last:
            return
        if wanted(seq):
            yield Frame(image=Image(pixels, "i420"), stream="clip", seq=seq)


def found(stage: Infer, source: Iterator[Frame]) -> dict[int, Detections]:
    """seq -> detections; no frame may fail."""
    pytest.importorskip("cv2")
    result = {}
    stage.open()
    try:
        for out in push(stage, source):
            assert isinstance(out, Frame), out
            assert out.detections is not None
            result[out.seq] = out.detections
    finally:
        stage.close()
    return result


@pytest.fixture(scope="module")
def cars() -> dict[int, Detections]:
    video, model = need(CAR), need(CAR_MODEL)
    stage = Infer(model=str(model), labels=CAR_LABELS, jobs=2, keep={"score": 0.5}, cache="off")
    return found(stage, frames(video))


@pytest.mark.parametrize(
    ("first", "last", "allowed"),
    [(64, 98, {1}), (200, 214, {2, 3}), (326, 338, {1}), (112, 178, {0}), (242, 310, {0})],
)
def test_cars_are_counted(
    cars: dict[int, Detections], first: int, last: int, allowed: set[int]
) -> None:
    counted = {seq: len(cars[seq]) for seq in range(first, last + 1) if seq != 73}
    assert set(counted.values()) <= allowed, counted
    assert {d.label for seq in counted for d in cars[seq]} <= {"vehicle"}


def test_the_second_box_of_frame_73_lies_on_the_same_car(cars: dict[int, Detections]) -> None:
    (x1, _, x2, y2), (u1, _, u2, v2) = (d.box for d in sorted(cars[73], key=lambda d: -d.score))
    assert x1 < u1 < u2 < x2
    assert v2 < y2


def test_cars_stand_where_they_are(cars: dict[int, Detections]) -> None:
    boxes = sorted(d.box for d in cars[210])
    expected = [(66, 109, 246, 429), (314, 101, 472, 368)]
    assert np.abs(np.array(boxes) - np.array(expected)).max() <= 3


def test_parallel_is_exactly_serial(cars: dict[int, Detections]) -> None:
    """Bit for bit, frame by frame, against a plain loop over OpenVINO."""
    pytest.importorskip("av")
    from tests.support.serial import SerialSsd, i420_frames

    serial = SerialSsd(need(CAR_MODEL), 0.5, {"PERFORMANCE_HINT": "LATENCY"})
    seen = 0
    for seq, pixels in enumerate(i420_frames(need(CAR))):
        assert [(*d.box, d.score, d.class_id) for d in cars[seq]] == serial(pixels), seq
        seen += 1
    assert seen == len(cars) == 377


BOTTLES = [
    (3, 0, 200),
    (2, 220, 320),
    (3, 360, 500),
    (1, 540, 650),
    (2, 700, 810),
    (3, 850, 940),
    (2, 970, 1030),
    (3, 1060, 1180),
]


def test_bottles_are_counted() -> None:
    """Every fifth frame of the ranges; all of them hold."""
    names = need("models/yolox/coco_classes.txt")
    stage = Infer(
        model=str(need("models/yolox/yolox_nano.onnx")),
        labels=str(names),
        keep={"classes": ["bottle"], "score": 0.3},
        jobs=2,
        cache="off",
    )

    def wanted(seq: int) -> bool:
        return seq % 5 == 0 and any(first <= seq <= last for _, first, last in BOTTLES)

    bottles = found(stage, frames(need("videos/bottle-detection.mp4"), wanted))
    for count, first, last in BOTTLES:
        seen = {seq: len(found) for seq, found in bottles.items() if first <= seq <= last}
        assert len(seen) >= (last - first) // 5
        assert set(seen.values()) == {count}, seen
    boxes = sorted(d.box for d in bottles[0])
    expected = [(57, 109, 123, 316), (286, 109, 344, 315), (509, 106, 571, 318)]
    assert np.abs(np.array(boxes) - np.array(expected)).max() <= 3


def test_one_face_in_each_of_120_frames() -> None:
    model = need("models/yunet/face_detection_yunet_2023mar.onnx")
    stage = Infer(model=str(model), jobs=2, cache="off")
    faces = found(stage, frames(need("videos/carphone_pristine.mp4")))
    assert [len(faces[seq]) for seq in range(120)] == [1] * 120
    assert [d.label for d in faces[0]] == ["face"]
    assert np.abs(faces[0].xyxy[0] - np.array([66, 35, 111, 99])).max() <= 1


@pytest.mark.parametrize("precision", ["FP32", "FP16", "FP16-INT8"])
def test_the_same_face_in_each_precision(precision: str) -> None:
    stage = Infer(model=str(need(FACES.format(precision))), cache="off")
    faces = found(stage, frames(need("videos/carphone_pristine.mp4"), last=0))
    assert np.abs(faces[0].xyxy - np.array([[66.2, 33.4, 109.3, 97.6]])).max() <= 0.8


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("coral_cat_720p.jpg", "Egyptian cat"),
        ("coral_parrot.jpg", "macaw"),
        ("coffee.png", "espresso"),
    ],
)
def test_what_a_quantised_tflite_sees(image: str, label: str) -> None:
    cv2 = pytest.importorskip("cv2")
    stage = Infer(
        model=str(need("models/coral/mobilenet_v2_1.0_224_quant.tflite")),
        labels=str(need("models/coral/imagenet_labels.txt")),
        cache="off",
    )
    (out,) = run_stage(
        stage, [Frame(image=Image(cv2.imread(str(need(f"images/{image}")))))]
    ).results
    assert isinstance(out, Frame)
    assert out.meta["classes"][0]["label"] == label
    assert out.meta["classes"][0]["score"] > 0.8


def test_two_outputs_without_a_decoder_go_out_raw() -> None:
    model = need(
        "models/omz/vehicle-attributes-recognition-barrier-0039/FP32/"
        "vehicle-attributes-recognition-barrier-0039.xml"
    )
    x1, y1, x2, y2 = 314, 101, 472, 368

    def crop(frame: Frame) -> Frame:
        assert frame.image is not None
        return Frame(image=Image(frame.image.bgr()[y1:y2, x1:x2]), seq=frame.seq)

    source = map(crop, frames(need(CAR), lambda seq: seq == 210, last=210))
    (out,) = run_stage(Infer(model=str(model), cache="off"), source).results
    assert isinstance(out, Frame)
    shapes: dict[str, Any] = {name: array.shape for name, array in out.arrays.items()}
    assert shapes == {"type": (1, 4, 1, 1), "color": (1, 7, 1, 1)}
    assert int(out.arrays["type"].argmax()) == 0
