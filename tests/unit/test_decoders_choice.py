"""Which decoder, which labels, which preparation: evidence and wishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.detections import Detections
from ovpipe.errors import PreflightError
from ovpipe.stages.infer import choose
from ovpipe.stages.infer.decode import Fit
from ovpipe.stages.infer.facts import Export, InputFact, ModelFacts, OutputFact
from ovpipe.stages.infer.labels import Keep, read_labels
from ovpipe.stages.infer.picture import Plan, Wish, plan
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.yolo import Yolo
from ovpipe.stages.infer.yolo_layout import layout_of
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
        (facts((1, 4420, 2), (1, 4420, 4), input_size=(320, 240)), "ultraface"),
        (facts((1, 4420, 4), (1, 4420, 2), input_size=(320, 240)), "ultraface"),
        (facts((1, 4400, 2), (1, 4400, 4), input_size=(320, 240)), "raw"),
        (facts((1, 1, 17, 3)), "keypoints"),
        (facts((1, 1, 21, 3)), "raw"),
        (facts((1, 10, 1, 1)), "raw"),
        (facts((1, 21, 64, 64)), "raw"),
        (facts((1, 1, 64, 64)), "raw"),
        (facts((1, 2, 64, 64), info={"labels": "road sky"}), "segmentation"),
        (facts((1, 3, 64, 64), info={"model_type": "Segmentation"}), "segmentation"),
        (facts((1, 256), info={"model_type": "embedding"}), "embedding"),
    ],
)
def test_evidence(model: ModelFacts, kind: str) -> None:
    assert choose.kind_of("", model, {}) == kind


def export(task: str, names: int = 80, **more: Any) -> Export:
    return Export(task, dict.fromkeys(range(names), "x"), **more)


VGA = (640, 640)
V8, V5, END, PROTOS = (1, 84, 8400), (1, 25200, 85), (1, 300, 6), (1, 32, 160, 160)


@pytest.mark.parametrize(
    ("outputs", "model", "form"),
    [
        # by the shape alone: an anchor for each cell of the grids, or three
        ([V8], {}, "v8 detect 80"),
        ([(1, 84, 8401)], {}, ""),
        ([V5], {}, "v5 detect 80"),
        ([(1, 25201, 85)], {}, ""),
        ([(1, 56, 8400)], {}, ""),  # 52 classes, or one and 17 points
        ([END], {}, ""),
        ([(1, 116, 8400), PROTOS], {}, "v8 segment 80"),
        ([(1, 25200, 117), PROTOS], {}, "v5 segment 80"),
        ([V8, (1, 84, 8400)], {}, ""),
        ([V8], {"suffix": ".tflite"}, ""),
        # with model_info
        ([END], {"info": {"model_type": "YOLO"}}, "end detect 0"),
        ([END], {"info": {"model_type": "yolo_v10"}}, "end detect 0"),
        ([END], {"info": {"model_type": "SSD"}}, ""),
        ([(1, 300, 38), PROTOS], {"info": {"model_type": "YOLO"}}, "end segment 0"),
        ([(1, 300, 84)], {"info": {"model_type": "YOLO"}}, ""),  # RT-DETR
        ([(1, 56, 8400)], {"info": {"model_type": "YOLO", "labels": "person"}}, "v8 pose 1"),
        ([(1, 7, 8400)], {"info": {"model_type": "YOLO", "labels": "a b"}}, ""),
        ([(1, 7, 8400)], {"info": {"model_type": "yolo_v8_obb", "labels": "a b"}}, "v8 obb 2"),
        ([V8], {"info": {"labels": "a b"}}, ""),
        # with metadata.yaml
        ([V8], {"export": export("detect")}, "v8 detect 80"),
        ([V8], {"export": export("")}, "v8 detect 80"),
        ([V8], {"export": export("detect", 79)}, ""),
        ([V8], {"export": export("obb", 79)}, "v8 obb 79"),
        ([V5], {"export": export("")}, "v5 detect 80"),
        ([END], {"export": export("detect", final=True)}, "end detect 0"),
        ([(1, 300, 7)], {"export": export("obb", final=True)}, "end obb 0"),
        ([(1, 300, 7)], {"export": export("detect", final=True)}, ""),
        ([(1, 56, 8400)], {"export": export("pose", 1, keypoints=(17, 3))}, "v8 pose 1"),
        ([(1, 15, 8400)], {"export": export("pose", 1, keypoints=(5, 2))}, "v8 pose 1"),
        ([(1, 15, 8400)], {"export": export("pose", 1, keypoints=(17, 3))}, ""),
        ([(1, 300, 57)], {"export": export("pose", 1, final=True)}, "end pose 0"),
        ([(1, 37, 8400), PROTOS], {"export": export("segment", 1)}, "v8 segment 1"),
        ([(1, 37, 8400)], {"export": export("segment", 1)}, ""),
        ([V8], {"export": export("depth")}, ""),
    ],
)
def test_forms_of_ultralytics(
    outputs: list[tuple[int, ...]], model: dict[str, Any], form: str
) -> None:
    named = [OutputFact(f"output{i}", shape) for i, shape in enumerate(outputs)]
    for order in (named, named[::-1]):
        seen = facts(*order, **{"input_size": VGA, **model})
        layout = layout_of(seen)
        assert (f"{layout.version} {layout.task} {layout.classes}" if layout else "") == form
        assert (choose.kind_of("", seen, {}) == "yolo") == bool(form)
        if layout is not None:
            assert layout.boxes == "output0"
            assert layout.protos == ("output1" if len(outputs) == 2 else "")
            made = choose.make("yolo", seen, Keep(), None, "")
            assert made == Yolo(layout, 0.25, {"v8": 0.7, "v5": 0.45, "end": 1.0}[layout.version])


@pytest.mark.parametrize(
    ("shape", "task", "kind"),
    [
        ((1, 80), "classify", "classification"),
        ((1, 80), "detect", "raw"),
        ((1, 80, 64, 64), "semantic", "segmentation"),
        ((1, 64, 64), "semantic", "segmentation"),
        ((1, 80, 64, 64), "detect", "raw"),
    ],
)
def test_other_tasks_of_ultralytics(shape: tuple[int, ...], task: str, kind: str) -> None:
    info = {"model_type": "YOLO", "labels": " ".join(["x"] * 80)}
    assert choose.kind_of("", facts(shape, info=info, export=export(task)), {}) == kind


def test_the_user_may_say_that_it_is_yolo() -> None:
    assert choose.kind_of("yolo", facts(END), {}) == "yolo"
    with pytest.raises(PreflightError, match=r"metadata\.yaml"):
        choose.kind_of("yolo", facts((1, 300, 84)), {})


@pytest.mark.parametrize(
    ("decode", "shape"),
    [
        ("keypoints", (1, 10, 1, 1)),
        ("keypoints", (1, 10)),
        ("embedding", (1, 256, 1, 1)),
        ("segmentation", (1, 21, 64, 64)),
        ("segmentation", (1, 64, 64)),
    ],
)
def test_what_only_the_user_can_know(decode: str, shape: tuple[int, ...]) -> None:
    assert choose.kind_of(decode, facts(shape), {}) == decode
    assert choose.kind_of("", facts(shape), {}) == "raw"


@pytest.mark.parametrize(
    ("decode", "shape"),
    [
        ("ultraface", (1, 10)),
        ("keypoints", (1, 11)),
        ("embedding", (1, 2, 3)),
        ("segmentation", (1, 10)),
        ("segmentation", (1, 0, 4, 4)),
    ],
)
def test_what_the_user_cannot_want(decode: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(PreflightError, match=f"decode '{decode}' reads"):
        choose.kind_of(decode, facts(shape), {})


SHAPES = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 6, 7, 10, 17, 32, 84, 252]), max_size=5)


@given(
    st.lists(SHAPES, min_size=1, max_size=3),
    st.sampled_from(["", "detect", "segment", "pose", "obb", "classify", "semantic"]),
    st.integers(0, 4),
    st.sampled_from(["", "YOLO", "yolo_v8_pose", "segmentation", "classification", "embedding"]),
)
def test_any_shapes_find_a_decoder(
    shapes: list[list[int]], task: str, names: int, model_type: str
) -> None:
    said = export(task, names, keypoints=(names, 3)) if names else None
    model = facts(*map(tuple, shapes), info={"model_type": model_type}, export=said)
    for seen in (model, choose.trusted(model)):
        assert choose.make(choose.kind_of("", seen, {}), seen, Keep(), None, "").fit is not None


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
    assert choose.labels_of("ultraface", facts(), {}) == {0: "face"}
    names = Export("detect", {0: "a_b", 1: "c d"})
    assert choose.labels_of("yolo", facts(info={"labels": "x"}, export=names), {}) == names.names


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


def test_pictures_as_the_decoder_knows_them() -> None:
    known = Fit(colour="rgb", mean=(127.0,), scale=(128.0,))
    assert plan(wish(), PICTURE, known) == Plan(known, "rgb", [127], [128])
    written = plan(wish(colour="bgr", mean=[1], scale=[2]), PICTURE, known)
    assert written == Plan(known, "bgr", [1], [2])
    own = facts((1, 10), channels=3, info={"mean_values": "3", "reverse_input_channels": "NO"})
    assert plan(wish(), own, known) == Plan(known, "rgb", [3], [128])
    embedded = facts((1, 10), channels=3, info={"embedded_processing": "True"})
    made = plan(wish(), embedded, known)
    assert (made.colour, made.mean, made.scale) == ("bgr", [], [])


def test_whatever_ultralytics_exports_takes_rgb_in_0_to_1() -> None:
    model = facts((1, 80), channels=3, export=export("classify"))
    made = plan(wish(), model, Fit())
    assert (made.colour, made.mean, made.scale) == ("rgb", [], [255])
    own = {"reverse_input_channels": "True", "scale_values": "255.0"}
    assert plan(wish(), replace(model, info=own), Fit()).scale == [255]


@pytest.mark.parametrize(
    ("said", "fit"),
    [
        ({"resize_type": "standard"}, Fit(pad=7)),
        ({"resize_type": "fit_to_window"}, Fit(True, 0)),
        ({"resize_type": "fit_to_window_letterbox", "pad_value": "114"}, Fit(True, 114, True)),
        ({"resize_type": "fit_to_window_letterbox", "pad_value": "9999999999"}, Fit(True, 0, True)),
        ({"resize_type": "fit_to_window_letterbox", "pad_value": "x"}, Fit(True, 0, True)),
        ({"resize_type": "crop"}, Fit(True, 7)),
        ({"resize_type": "standard", "embedded_processing": "YES"}, Fit(True, 7)),
    ],
)
def test_resize_as_the_model_says(said: dict[str, str], fit: Fit) -> None:
    model = facts((1, 10), channels=3, info=said)
    assert plan(wish(), model, Fit(letterbox=True, pad=7)).fit == fit


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
