"""The newer decoders within the stage, on small models in the shapes of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer
from ovpipe.stages.infer.facts import Export
from ovpipe.stages.infer.model import read
from ovpipe.testing import run_stage
from tests.support import models

SIZE, A = 64, 84
NAMES = {0: "person", 1: "traffic light", 2: "a_b"}
# A frame of 128x64 lies 16 pixels down in the input, at half its size: the box of 24..40 and
# 26..34 there is 48..80 and 20..36 in the frame.
BOX, CORNERS, SOURCE = (32, 30, 16, 8), (24, 26, 40, 34), (48, 20, 80, 36)


def picture(value: int = 100) -> Frame:
    return Frame(image=Image(np.full((64, 128, 3), value, np.uint8)), meta={"mine": 1})


def result(path: Path, **options: Any) -> Frame:
    pytest.importorskip("cv2")
    (out,) = run_stage(Infer(model=str(path), cache="off", jobs=1, **options), [picture()]).results
    assert isinstance(out, Frame), out
    return out


def rows(shape: tuple[int, ...], row: tuple[float, ...]) -> np.ndarray[Any, Any]:
    """Zeros but for one row, in [1, A, n] or [1, n, A]."""
    made = np.zeros(shape, np.float32)
    (made[0] if shape[2] == len(row) else made[0].T)[5] = row
    return made


def found(frame: Frame) -> list[tuple[str, float, tuple[float, ...]]]:
    return [(d.label, round(d.score, 4), d.box) for d in frame.detections or ()]


@pytest.mark.parametrize(
    ("output", "more"),
    [
        (rows((1, 7, A), (*BOX, 0.1, 0.9, 0.2)), {}),
        (rows((1, 3 * A, 8), (*BOX, 0.9, 0, 1, 0)), {}),
        (rows((1, 300, 6), (*CORNERS, 0.9, 1)), {"end2end": True}),
        (rows((1, 300, 6), (*CORNERS, 0.9, 1)), {"args": {"nms": True}}),
    ],
    ids=["v8", "v5", "end2end", "nms"],
)
def test_detectors_of_ultralytics(tmp_path: Path, output: Any, more: dict[str, Any]) -> None:
    path = models.ultralytics(tmp_path, {"output0": output}, SIZE, NAMES, **more)
    assert found(result(path)) == [("traffic light", 0.9, SOURCE)]
    assert found(result(path, keep={"classes": ["traffic light"]})) != []
    assert found(result(path, keep={"classes": ["person"]})) == []
    assert found(result(path, keep={"score": 0.95})) == []


def test_without_metadata_the_model_info_will_do(tmp_path: Path) -> None:
    out = {"output0": rows((1, 7, A), (*BOX, 0.1, 0.9, 0.2))}
    path = models.ultralytics(tmp_path, out, SIZE, NAMES)
    (tmp_path / "metadata.yaml").unlink()
    assert found(result(path)) == [("traffic light", 0.9, SOURCE)]


def test_pose(tmp_path: Path) -> None:
    out = {"output0": rows((1, 11, A), (*BOX, 0.9, 24, 26, 0.5, 40, 34, 0.25))}
    path = models.ultralytics(tmp_path, out, SIZE, {0: "person"}, task="pose", kpt_shape=[2, 3])
    frame = result(path)
    assert found(frame) == [("person", 0.9, SOURCE)]
    np.testing.assert_allclose(frame.arrays["keypoints"], [[[48, 20, 0.5], [80, 36, 0.25]]])
    assert result(path, keep={"score": 0.95}).arrays["keypoints"].shape == (0, 2, 3)


def test_segments(tmp_path: Path) -> None:
    out = {
        "output0": rows((1, 37, A), (*BOX, 0.9, 1, *[0] * 31)),
        "output1": np.ones((1, 32, 16, 16), np.float32),
    }
    path = models.ultralytics(tmp_path, out, SIZE, {0: "person"}, task="segment")
    frame = result(path)
    assert found(frame) == [("person", 0.9, SOURCE)]
    expected = np.zeros((1, 16, 16), np.uint8)
    expected[0, 7:9, 6:10] = 1
    assert np.array_equal(frame.arrays["masks"], expected)
    assert frame.meta == {"mine": 1, "mask_area": [0, 4, 16, 12]}


def test_turned_boxes(tmp_path: Path) -> None:
    out = {"output0": rows((1, 6, A), (*BOX, 0.9, 0))}
    path = models.ultralytics(tmp_path, out, SIZE, {0: "ship"}, task="obb")
    frame = result(path)
    assert found(frame) == [("ship", 0.9, SOURCE)]
    assert frame.arrays["corners"].shape == (1, 4, 2)


def test_classifiers_of_ultralytics(tmp_path: Path) -> None:
    out = {"output0": np.float32([[0.1, 0.7, 0.2]])}
    path = models.ultralytics(tmp_path, out, SIZE, NAMES, task="classify")
    assert result(path).meta["classes"][0]["label"] == "traffic light"


def pixel(folder: Path, **options: Any) -> list[float]:
    """What of a pixel (10, 100, 200) in BGR arrives in the model, times 255."""
    stage = Infer(model=str(models.echo(folder)), decode="raw", cache="off", **options)
    pixels = np.full((models.SIZE, models.SIZE, 3), (10, 100, 200), np.uint8)
    (out,) = run_stage(stage, [Frame(image=Image(pixels))]).results
    assert isinstance(out, Frame)
    return (out.arrays["pixels"][0, :, 0, 0] * 255).tolist()


def test_the_picture_is_rgb_in_0_to_1(tmp_path: Path) -> None:
    names = "stride: 32\ntask: semantic\nnames:\n  0: a\n  1: b\n  2: c\n"
    (tmp_path / "metadata.yaml").write_text(names)
    assert pixel(tmp_path) == pytest.approx([200, 100, 10], abs=1e-3)
    assert pixel(tmp_path, colour="bgr", scale=[51]) == pytest.approx([50, 500, 1000], abs=1e-2)


@pytest.mark.parametrize("task", ["detect", "classify", "semantic", "pose", ""])
def test_metadata_of_another_model_is_no_evidence(tmp_path: Path, task: str) -> None:
    """Neither for the picture, nor for the decoder, nor for the labels."""
    said = f"stride: 32\ntask: {task}\nnames:\n  0: a\n  1: b\n"
    (tmp_path / "metadata.yaml").write_text(said)
    assert pixel(tmp_path) == pytest.approx([10 * 255, 100 * 255, 200 * 255], abs=1e-1)
    path = models.constant_picture_model(tmp_path, {"out": np.zeros((1, 9, 7))})
    assert list(result(path).arrays) == ["out"]
    out = result(models.ssd(tmp_path, [(0, 1, 0.9, 0, 0, 1, 1)]))
    assert [d.label for d in out.detections or ()] == ["1"]


def test_metadata_in_an_onnx_file(tmp_path: Path) -> None:
    said = {"stride": "32", "task": "semantic", "names": "{0: 'a', 1: 'b c', 2: 'd'}"}
    path = models.onnx_relu(tmp_path, (1, 3, 8, 8), said)
    names = {0: "a", 1: "b c", 2: "d"}
    assert read(str(path), {}).facts.export == Export("semantic", names)
    assert result(path).arrays["mask"].shape == (8, 8)


def test_ultraface(tmp_path: Path) -> None:
    # For 64x64: 8*8*3 + 4*4*2 + 2*2*2 + 1*3 priors
    scores, boxes = np.zeros((1, 235, 2)), np.zeros((1, 235, 4))
    scores[0, 9], boxes[0, 9] = (0.1, 0.9), (0.25, 0.25, 0.5, 0.75)
    path = models.constant_picture_model(tmp_path, {"scores": scores, "boxes": boxes}, SIZE)
    assert found(result(path)) == [("face", 0.9, (32, 16, 64, 48))]


def test_keypoints(tmp_path: Path) -> None:
    points = np.full((1, 1, 17, 3), 0.25)
    path = models.constant_picture_model(tmp_path, {"out": points}, SIZE)
    # 16, 16 of the input, whose upper half is the frame
    np.testing.assert_allclose(result(path).arrays["keypoints"], [[[32, 32, 0.25]] * 17])


def test_semantic_segmentation(tmp_path: Path) -> None:
    scores = np.zeros((1, 3, 8, 8))
    scores[0, 2, :4] = 1
    path = models.constant_picture_model(tmp_path, {"out": scores}, SIZE)
    frame = result(path, labels=["road", "car", "sky"])
    assert frame.arrays["mask"].tolist() == [[2] * 8] * 4 + [[0] * 8] * 4
    assert [s["label"] for s in frame.meta["segments"]] == ["road", "sky"]


def test_embedding(tmp_path: Path) -> None:
    path = models.constant_picture_model(tmp_path, {"out": np.float32([[3, 4]])}, SIZE)
    np.testing.assert_allclose(result(path, decode="embedding").arrays["embedding"], [0.6, 0.8])
    path = models.constant_picture_model(tmp_path, {"out": np.float32([[3, np.nan]])}, SIZE)
    stage = Infer(model=str(path), decode="embedding", cache="off")
    (out,) = run_stage(stage, [picture()]).results
    assert isinstance(out, FrameError)
    assert out.reason == "nan_output"


def test_a_form_that_does_not_agree_with_its_metadata_is_refused(tmp_path: Path) -> None:
    out = {"output0": np.zeros((1, 9, A), np.float32)}
    path = models.ultralytics(tmp_path, out, SIZE, NAMES)
    with pytest.raises(PreflightError, match="an export of Ultralytics"):
        Infer(model=str(path), decode="yolo", cache="off").open()
    assert list(result(path).arrays) == ["output0"]
