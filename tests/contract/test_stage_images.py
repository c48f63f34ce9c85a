"""The images stage: files that an independent reader reads back, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image

cv2 = pytest.importorskip("cv2")

from ovpipe.stages.images import Images  # noqa: E402

LABELS = {0: "cat", 1: "../dog"}
RAMP = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)


def frame(seq: int = 0, boxes: Any = (), scores: Any = (), ids: Any = (), **parts: Any) -> Frame:
    found = Detections.of(list(boxes), list(scores), list(ids), LABELS) if len(boxes) else None
    header = {"stream": "cam/gate", "seq": seq, "captured_ns": seq * 40_000_000, **parts}
    return Frame(image=Image(RAMP), detections=found, **header)


def run(path: Path, frames: list[Frame], **options: Any) -> None:
    stage = Images(path=str(path), **options)
    stage.open()
    for each in frames:
        stage.consume(each)
    stage.close()


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_snapshots_are_the_pixels(tmp_path: Path) -> None:
    run(tmp_path / "{stream}" / "{seq}.png", [frame(0), frame(7)])
    assert names(tmp_path) == ["cam_gate/00000000.png", "cam_gate/00000007.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "cam_gate/00000007.png")), RAMP)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_quality_is_heeded(tmp_path: Path, suffix: str) -> None:
    run(tmp_path / f"low.{suffix}", [frame()], quality=5)
    run(tmp_path / f"high.{suffix}", [frame()], quality=95)
    low, high = tmp_path / f"low.{suffix}", tmp_path / f"high.{suffix}"
    assert low.stat().st_size < high.stat().st_size
    assert cv2.imread(str(high)).shape == RAMP.shape


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_nothing_is_said_on_standard_error(tmp_path: Path, suffix: str, capfd: Any) -> None:
    run(tmp_path / f"a.{suffix}", [frame()])
    assert capfd.readouterr().err == ""


def test_gray_stays_gray(tmp_path: Path) -> None:
    gray = Image(RAMP[:, :, 0].copy(), "gray")
    run(tmp_path / "a.png", [Frame(image=gray, stream="a", seq=0)])
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read, RAMP[:, :, 0])


def test_crops_are_what_lies_within_the_picture(tmp_path: Path) -> None:
    boxes = [[10, 5, 20, 15], [-5, -5, 4.2, 4], [60, 40, 100, 100], [70, 5, 90, 9],
             [np.nan, 0, 5, 5]]  # fmt: skip
    crops = frame(3, boxes, [0.9] * 5, [0, 1, 0, 0, 0])
    run(tmp_path / "{seq}-{n}-{label}.png", [crops], crops=True)
    assert names(tmp_path) == ["00000003-0-cat.png", "00000003-1-_dog.png", "00000003-2-cat.png"]
    for name, part in zip(names(tmp_path), (RAMP[5:15, 10:20], RAMP[:4, :5], RAMP[40:, 60:]),
                          strict=True):  # fmt: skip
        assert np.array_equal(cv2.imread(str(tmp_path / name)), part)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"found": True}, [1, 2, 3]),
        ({"found": True, "labels": ["cat"]}, [1, 3]),
        ({"found": True, "score": 0.5}, [1, 2]),
        ({"every": 0.08}, [0, 2]),
        ({"every": 0.08, "found": True}, [1, 3]),
    ],
)
def test_only_what_is_wanted(tmp_path: Path, options: dict[str, Any], kept: list[int]) -> None:
    box = [[1, 1, 5, 5]]
    frames = [frame(0), frame(1, box, [0.9], [0]), frame(2, box, [0.9], [1]),
              frame(3, box, [0.2], [0])]  # fmt: skip
    run(tmp_path / "{seq}.png", frames, **options)
    assert names(tmp_path) == [f"{seq:08d}.png" for seq in kept]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"path": "a/{seq}.gif"}, "the ending says the format"),
        ({"path": "a/{sequence}.png"}, "there is no {sequence}"),
        ({"path": "a/{label}.png"}, "is for `crops: true` only"),
        ({"path": "a/{seq}.png", "crops": True}, "add {n}"),
        ({"path": "/proc/nowhere/{seq}.png"}, "cannot write to"),
    ],
)
def test_bad_patterns_are_told_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PreflightError, match=text):
        Images(**options).open()


def test_a_full_disk_fails_the_frame_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F01."""
    stage = Images(path=str(tmp_path / "{seq}.png"))
    stage.open()
    stage.consume(frame(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(FrameError) as error:
            stage.consume(frame(1))
    assert error.value.reason == "disk_full"
    stage.consume(frame(2))
    assert names(tmp_path) == ["00000000.png", "00000002.png"]
