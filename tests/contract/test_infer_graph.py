"""`preprocess: graph`: resizing and colour by the device, from the frame's own memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer
from ovpipe.testing import push, run_stage
from tests.support import models
from tests.support.data import need

SIZE = models.SIZE
LEVELS = 3
"""How far two conversions of the same picture may be apart, of 255."""


def soft(width: int, height: int, channels: int) -> np.ndarray[Any, Any]:
    """A picture without edges, so that what is measured is colour and place."""
    y, x = np.mgrid[:height, :width]
    planes = [
        127 + 90 * np.sin(x / width * 3 + c) * np.cos(y / height * 2 - c) for c in range(channels)
    ]
    return np.stack(planes, -1).astype(np.uint8)


def soft_i420(width: int, height: int) -> np.ndarray[Any, Any]:
    luma = soft(width, height, 1)[:, :, 0]
    chroma = [96 + soft(width // 2, height // 2, 2)[:, :, c] // 4 for c in (0, 1)]
    return np.concatenate([luma, *(c.reshape(-1, width) for c in chroma)])


IMAGES = {
    "i420": Image(soft_i420(160, 120), "i420"),
    "i420/bt709": Image(soft_i420(160, 120), "i420", "bt709"),
    "i420/full": Image(soft_i420(160, 120), "i420", "bt601", True),
    "bgr": Image(soft(160, 120, 3), "bgr"),
    "rgb": Image(soft(160, 120, 3), "rgb"),
    "gray": Image(soft(160, 120, 1)[:, :, 0], "gray"),
    "small": Image(soft(6, 4, 3), "bgr"),
    "crop": Image(soft(160, 120, 3)[10:90, 7:131], "bgr"),
}


@pytest.mark.parametrize("colour", ["bgr", "rgb", "gray"])
def test_both_ways_give_the_same_pixels(tmp_path: Path, colour: Any) -> None:
    pytest.importorskip("cv2")
    channels = 1 if colour == "gray" else 3
    options: Any = {
        "model": str(models.echo(tmp_path, channels=channels)),
        "colour": "" if colour == "gray" else colour,
        "cache": "off",
        "jobs": 2,
    }
    frames = [Frame(image=image) for image in IMAGES.values()]
    host = run_stage(Infer(**options), frames).results
    graph = run_stage(Infer(**options, preprocess="graph"), frames).results
    for name, here, there in zip(IMAGES, host, graph, strict=True):
        assert isinstance(here, Frame), (name, here)
        assert isinstance(there, Frame), (name, there)
        a, b = here.arrays["pixels"], there.arrays["pixels"]
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= LEVELS, name


def test_mean_and_scale_come_last(tmp_path: Path) -> None:
    pixels = np.full((40, 30, 3), (10, 20, 30), np.uint8)
    stage = Infer(
        model=str(models.echo(tmp_path)), mean=[1, 2, 3], scale=[2], cache="off", preprocess="graph"
    )
    (out,) = run_stage(stage, [Frame(image=Image(pixels))]).results
    assert isinstance(out, Frame)
    assert out.arrays["pixels"].reshape(3, -1).T.tolist() == [[4.5, 9, 13.5]] * SIZE * SIZE


def test_memory_that_may_not_be_written_goes_in(tmp_path: Path) -> None:
    pixels = np.full((SIZE, SIZE, 3), 7, np.uint8)
    pixels.setflags(write=False)
    stage = Infer(model=str(models.echo(tmp_path)), cache="off", preprocess="graph")
    (out,) = run_stage(stage, [Frame(image=Image(pixels))]).results
    assert isinstance(out, Frame)
    assert (out.arrays["pixels"] == 7).all()


def test_a_frame_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    stage = Infer(model=str(models.echo(tmp_path)), cache="off", preprocess="graph")
    stage.open()
    good = Frame(image=IMAGES["i420"])
    for bad in (Frame(), Frame(image=Image(np.zeros((0, 4, 3), np.uint8)))):
        error = next(push(stage, [bad]))
        assert isinstance(error, FrameError)
        assert error.reason == "infer_error"
        assert isinstance(next(push(stage, [good])), Frame)
    stage.close()


def test_what_the_graph_cannot_do(tmp_path: Path) -> None:
    for options, says in (
        ({"model": str(models.echo(tmp_path)), "resize": "letterbox"}, "letterbox"),
        ({"model": str(models.double(tmp_path))}, "preprocess are for pictures"),
    ):
        stage = Infer(**options, preprocess="graph", cache="off")  # type: ignore[arg-type]
        with pytest.raises(PreflightError, match=says):
            stage.open()


def test_cars_are_where_the_host_finds_them() -> None:
    """Frames with known cars; each box within a few pixels of the one by the usual way."""
    pytest.importorskip("av")
    from tests.support.serial import i420_frames

    video = need("videos/car-detection.mp4")
    name = "person-vehicle-bike-detection-2000"
    options: Any = {"model": str(need(f"models/omz/{name}/FP16/{name}.xml")), "jobs": 2}

    def frames() -> Iterator[Frame]:
        for seq, pixels in enumerate(i420_frames(video)):
            if seq > 345:
                return
            if seq % 10 == 0:
                yield Frame(image=Image(pixels, "i420"), seq=seq)

    host = run_stage(Infer(**options, keep={"score": 0.6}, cache="off"), frames()).results
    graph = run_stage(
        Infer(**options, keep={"score": 0.5}, cache="off", preprocess="graph"), frames()
    ).results
    boxes, worst = 0, 0.0
    for here, there in zip(host, graph, strict=True):
        assert isinstance(here, Frame)
        assert isinstance(there, Frame)
        for one_here in here.detections or ():
            apart = [
                np.abs(np.array(one_here.box) - np.array(d.box)).max()
                for d in there.detections or ()
            ]
            worst = max(worst, min(apart, default=999))
            boxes += 1
    assert boxes >= 15
    assert worst <= 4
