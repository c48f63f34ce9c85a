"""Which decoder, which labels, which preparation: evidence and wishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import PreflightError
from ovpipe.stages.infer import choose
from ovpipe.stages.infer.decode import Fit
from ovpipe.stages.infer.facts import InputFact, ModelFacts, OutputFact
from ovpipe.stages.infer.labels import Keep, read_labels
from ovpipe.stages.infer.picture import Plan, Wish, plan
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.yolox import YoloX

YUNET = tuple(
    OutputFact(f"{part}_{s}", (1, (64 // s) ** 2, width))
    for part, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    for s in (8, 16, 32)
)


def facts(*outputs: tuple[int, ...] | OutputFact, **more: Any) -> ModelFacts:
    made = (o if isinstance(o, OutputFact) else OutputFact("out", o) for o in outputs)
    return ModelFacts(tuple(made), **{"input_size": (64, 64), **more})


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (facts((1, 1, 200, 7)), "ssd"),
        (facts((1, 1, -1, 7)), "ssd"),
        (facts(*YUNET), "yunet"),
        (facts((1, 84, 8)), "yolox"),
        (facts((1, 85, 8)), "yolox"),
        (facts((1, 86, 8)), "raw"),
        (facts((1, 8400, 85), input_size=(640, 640)), "yolox"),
        (facts((1, 25200, 85), input_size=(640, 640)), "yolo"),
        (facts(OutputFact("prob", (1, 10), "Softmax")), "classification"),
        (facts((1, 1000)), "classification"),
        (facts((1, 1001, 1, 1)), "classification"),
        (facts((1, 256, 1, 1)), "raw"),
        (facts((1, 10)), "raw"),
        (facts((1, 10), info={"model_type": "Classification"}), "classification"),
        (facts((1, 25200, 85), info={"model_type": "yolo_v5"}), "raw"),
        (facts((1, 5), (1, 7)), "raw"),
        (facts(()), "raw"),
    ],
)
def test_evidence(model: ModelFacts, kind: str) -> None:
    assert choose.kind_of("", model, {}) == kind


def test_as_many_labels_as_numbers_are_evidence() -> None:
    assert choose.kind_of("", facts((1, 10)), dict.fromkeys(range(10), "x")) == "classification"


@pytest.mark.parametrize(
    ("decode", "says"),
    [("yollo", "did you mean 'yolo'"), ("ssd", r"reads one output \[1, 1, N, 7\]"), ("q", "raw")],
)
def test_a_wrong_choice_is_refused(decode: str, says: str) -> None:
    with pytest.raises(PreflightError, match=says):
        choose.kind_of(decode, facts((1, 10)), {})


def test_thresholds_of_the_user_before_the_model_before_the_decoder() -> None:
    own = facts((1, 84, 8), info={"confidence_threshold": "0.4", "iou_threshold": "odd"})
    assert choose.make("yolox", own, Keep(), None, "") == YoloX(0.4, 0.45)
    assert choose.make("yolox", own, Keep(score=0.7), 0.2, "") == YoloX(0.7, 0.2)
    assert choose.make("ssd", facts((1, 1, 1, 7)), Keep(), None, "") == Ssd(0.5)


def test_labels_of_the_user_before_the_model_before_the_decoder() -> None:
    own = facts(info={"labels": "traffic_light car"})
    assert choose.labels_of("ssd", own, {}) == {0: "traffic light", 1: "car"}
    assert choose.labels_of("ssd", own, {3: "bus"}) == {3: "bus"}
    assert choose.labels_of("yunet", facts(), {}) == {0: "face"}


def test_labels_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("person\ntraffic light\n\nbüs\n", "utf-8")
    assert read_labels(str(file)) == {0: "person", 1: "traffic light", 2: "", 3: "büs"}
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PreflightError, match="UTF-8"):
        read_labels(str(file))
    with pytest.raises(PreflightError, match="No such file"):
        read_labels(str(tmp_path / "away.txt"))


def test_keep_by_name_id_and_score() -> None:
    keep = Keep.read({"classes": ["dog", 7], "score": 0.5}, {0: "cat", 1: "dog"})
    found = Detections.of([[0, 0, 1, 1]] * 4, [0.9, 0.9, 0.4, 0.5], [0, 1, 1, 7])
    assert [(d.class_id, d.score) for d in keep.apply(found)] == [(1, pytest.approx(0.9)), (7, 0.5)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keep_never_passes_what_is_not_finite(bad: float) -> None:
    boxes = [[0, 0, 1, 1], [0, bad, 1, 1], [0, 0, 1, 1]]
    assert len(Keep().apply(Detections.of(boxes, [0.5, 0.5, bad], [0, 0, 0]))) == 1


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"classes": ["persom"]}, "did you mean 'person'"),
        ({"classes": "person"}, "list"),
        ({"score": "high"}, "number"),
        ({"clases": []}, "unknown"),
    ],
)
def test_keep_refuses_what_it_does_not_know(written: dict[str, Any], says: str) -> None:
    with pytest.raises(PreflightError, match=says):
        Keep.read(written, {0: "person"})


F32 = np.dtype(np.float32)
PICTURE = facts((1, 10), inputs=(InputFact("x", F32, (1, 3, 64, 64)),), channels=3)
VECTOR = facts((1, 10), inputs=(InputFact("x", F32, (1, 4)),), input_size=(0, 0))


def wish(**given: Any) -> Wish:
    return Wish(**{"feed": "", "resize": "", "colour": "", "mean": [], "scale": [], **given})


def test_pictures_by_evidence() -> None:
    assert plan(wish(), PICTURE, Fit()) == Plan(Fit(), "bgr", [], [])
    assert plan(wish(), VECTOR, Fit()) is None
    assert plan(wish(feed="arrays"), PICTURE, Fit()) is None
    info = {"reverse_input_channels": "YES", "mean_values": "1 2 3", "scale_values": "4"}
    own = facts((1, 10), channels=3, info=info)
    assert plan(wish(), own, Fit()) == Plan(Fit(), "rgb", [1, 2, 3], [4])
    embedded = facts((1, 10), channels=3, info={**info, "embedded_processing": "True"})
    assert plan(wish(), embedded, Fit()) == Plan(Fit(), "bgr", [], [])
    assert plan(wish(), facts((1, 10), channels=3, suffix=".tflite"), Fit()).colour == "rgb"
    assert plan(wish(), facts((1, 10), channels=1), Fit()).colour == "gray"


def test_resize_as_wished() -> None:
    of_decoder = Fit(letterbox=True, pad=0)
    assert plan(wish(resize="letterbox"), PICTURE, of_decoder).fit == of_decoder
    assert plan(wish(resize="stretch"), PICTURE, of_decoder).fit == Fit(letterbox=False)
    assert plan(wish(resize="letterbox"), PICTURE, Fit()).fit == Fit(letterbox=True, centred=True)


@pytest.mark.parametrize(
    ("given", "model", "says"),
    [
        ({"mean": [1, 2]}, PICTURE, "2 numbers"),
        ({"scale": [0]}, PICTURE, "divided by 0"),
        ({"scale": [2]}, VECTOR, r"as they are: x float32 \[1, 4\]"),
        ({"feed": "image"}, VECTOR, "not one picture"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], model: ModelFacts, says: str) -> None:
    with pytest.raises(PreflightError, match=says):
        plan(wish(**given), model, Fit())
