"""What Ultralytics writes beside a model: read where it has its form, ignored where it has not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from ovpipe.stages.infer import choose, ultralytics
from ovpipe.stages.infer.facts import Export, ModelFacts, OutputFact

METADATA = {
    "description": "Ultralytics YOLO11n-pose model trained on /usr/src/ultralytics/ultralytics/cfg/datasets/coco-pose.yaml, and a name that is folded",
    "author": "Ultralytics",
    "date": "2025-01-02T03:04:05.678901",
    "version": "8.3.99",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "stride": 32,
    "task": "pose",
    "batch": 1,
    "imgsz": [640, 640],
    "names": {0: "person", 1: "it's: a #1", 2: "no", 3: "1", 4: "büs", 5: 'say "hi"', 6: "a b"},
    "args": {"batch": 1, "half": False, "nms": False},
    "kpt_shape": [17, 3],
    "kpt_names": {0: ["nose", "left_eye"]},
    "channels": 3,
    "end2end": False,
}


def written(folder: Path, metadata: object, name: str = "metadata.yaml") -> Path:
    """The model's path; its metadata as the exporter writes it."""
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    (folder / name).write_text(text, "utf-8")
    return folder / "best.xml"


def test_metadata_as_it_is_written(tmp_path: Path) -> None:
    found = ultralytics.beside(written(tmp_path, METADATA))
    assert found == Export("pose", METADATA["names"], False, (17, 3))


@pytest.mark.parametrize(
    ("change", "final"),
    [({"end2end": True}, True), ({"args": {"nms": True}}, True), ({"args": {"half": True}}, False)],
)
def test_final_boxes(tmp_path: Path, change: dict[str, object], final: bool) -> None:
    found = ultralytics.beside(written(tmp_path, METADATA | change))
    assert found is not None
    assert found.final is final


@pytest.mark.parametrize("names", [["person", "car"], {0: "person", 1: "car"}])
def test_yolov5_names_its_file_after_the_model(tmp_path: Path, names: object) -> None:
    model = written(tmp_path, {"stride": 32, "names": names}, "best.yaml")
    assert ultralytics.beside(model) == Export("", {0: "person", 1: "car"})


def test_metadata_of_an_onnx_file() -> None:
    said = {
        "names": "{0: 'person', 1: \"it's\"}",
        "stride": "32",
        "task": "detect",
        "end2end": "False",
        "args": "{'batch': 1, 'nms': True}",
        "kpt_shape": "[5, 2]",
    }
    assert ultralytics.export(said) == Export("detect", {0: "person", 1: "it's"}, True, (5, 2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 100,
        "names:\n",
        "names: 5\nstride: 32\n",
        "names: {\nstride: 32\n",
        "names: " + "[" * 100_000 + "\nstride: 32\n",
        "names: {1: {2: 3}, x: 4}\nstride: 32\n",
        "names:\n  a: b\nstride: 32\n",
        "names:\n  - &a [*a]\nsome: thing\n",
        "stride: 32\ntask: detect\n",
        "- a\n- b\n",
        "a: b\n" * 300_000,
    ],
)
def test_what_has_not_that_form_is_no_evidence(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.yaml").write_text(text)
    assert ultralytics.beside(tmp_path / "best.xml") is None


def test_odd_values_of_the_rest_do_no_harm(tmp_path: Path) -> None:
    text = "stride: 32\nnames:\n  0: a\ntask:\n- x\nargs: [1\nkpt_shape: {1}\nend2end:\n"
    (tmp_path / "metadata.yaml").write_text(text)
    found = ultralytics.beside(tmp_path / "best.xml")
    assert found is not None
    assert (found.names, found.final, found.keypoints) == ({0: "a"}, False, (0, 0))
    facts = ModelFacts((OutputFact("out", (1, 5, 84)),), input_size=(64, 64), export=found)
    assert choose.kind_of("", facts, {}) == "raw"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.yaml")
    (tmp_path / "best.yaml").mkdir()
    assert ultralytics.beside(tmp_path / "best.xml") is None
    assert ultralytics.beside(tmp_path / "away" / "best.xml") is None


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_bytes(b"stride: 32\nnames:\n  0: caf\xe9\n")
    found = ultralytics.beside(tmp_path / "best.xml")
    assert found is not None
    assert found.names == {0: "caf\ufffd"}
