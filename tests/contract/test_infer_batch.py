"""`batch`: frames of any streams are inferred as one, and each gets its own answer, once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer
from ovpipe.stages.infer.batch import Batches
from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.feed import Fed
from ovpipe.stages.infer.runner import Then
from ovpipe.testing import push, run_stage
from tests.support import models
from tests.support.data import need

SIZE = models.SIZE
LONG_S = 3600.0
"""A wait that a test would not survive: what leaves, leaves for another reason."""


def picture(value: int, stream: str = "cam", seq: int = 0) -> Frame:
    pixels = np.full((SIZE, SIZE, 3), value, np.uint8)
    return Frame(image=Image(pixels), stream=stream, seq=seq)


def echo(folder: Path, **options: Any) -> Infer:
    return Infer(**{"model": str(models.echo(folder)), "cache": "off", "jobs": 2, **options})


@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize("wait", [0.0, 0.005])
def test_each_frame_gets_its_own_answer_in_order(tmp_path: Path, size: int, wait: float) -> None:
    stage = echo(tmp_path, batch={"size": size, "wait": wait})
    frames = [picture(seq % 256, f"cam{seq % 3}", seq) for seq in range(150)]
    outs = list(run_stage(stage, frames).results)
    assert len(outs) == 150
    for seq, out in enumerate(outs):
        assert isinstance(out, Frame)
        assert (out.stream, out.seq) == (f"cam{seq % 3}", seq)
        assert out.arrays["pixels"].shape == (1, 3, SIZE, SIZE)
        assert (out.arrays["pixels"] == seq % 256).all()


def test_capacity_is_what_the_batches_take(tmp_path: Path) -> None:
    stage = echo(tmp_path, batch={"size": 5, "wait": 0.01}, jobs=3)
    stage.open()
    assert stage.capacity == 15
    stage.close()
    stage.close()


def test_a_full_batch_waits_for_nobody(tmp_path: Path) -> None:
    stage = echo(tmp_path, batch={"size": 4, "wait": LONG_S})
    for out in run_stage(stage, [picture(i) for i in range(8)]).results:
        assert isinstance(out, Frame)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_what_is_left_leaves_after_the_wait(tmp_path: Path, count: int) -> None:
    stage = echo(tmp_path, batch={"size": 4, "wait": 0.001})
    outs = list(run_stage(stage, [picture(i) for i in range(count)]).results)
    assert [out.arrays["pixels"][0, 0, 0, 0] for out in outs if isinstance(out, Frame)] == [
        *range(count)
    ]


def test_close_lets_go_what_waits(tmp_path: Path) -> None:
    stage = echo(tmp_path, batch={"size": 4, "wait": LONG_S})
    stage.open()
    ended: list[int] = []
    finish = [stage.submit(picture(i), lambda i=i: ended.append(i)) for i in range(3)]  # type: ignore[misc]
    stage.close()
    assert sorted(ended) == [0, 1, 2]
    for i, end in enumerate(finish):
        out = end()
        assert isinstance(out, Frame)
        assert (out.arrays["pixels"] == i).all()


def test_a_frame_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    stage = echo(tmp_path, batch={"size": 4, "wait": 0.01})
    frames = [Frame(seq=i) if i % 3 == 1 else picture(i, seq=i) for i in range(30)]
    for i, out in enumerate(run_stage(stage, frames).results):
        if i % 3 == 1:
            assert isinstance(out, FrameError)
        else:
            assert isinstance(out, Frame)
            assert (out.arrays["pixels"] == i).all()


def test_E04_one_frame_all_nan_fails_alone(tmp_path: Path) -> None:
    rows = np.full((1, 4), 1, np.float32)
    stage = Infer(model=str(models.rows(tmp_path)), cache="off", batch={"size": 4, "wait": 0.01})
    frames = [Frame(arrays={"x": rows * (np.nan if i % 5 == 2 else i)}) for i in range(20)]
    for i, out in enumerate(run_stage(stage, frames).results):
        if i % 5 == 2:
            assert isinstance(out, FrameError)
            assert out.reason == "nan_output"
        else:
            assert isinstance(out, Frame)
            assert out.arrays["twice"].tolist() == [[2 * i] * 4]


def test_E05_arrays_of_the_wrong_shape_fail_alone(tmp_path: Path) -> None:
    stage = Infer(model=str(models.rows(tmp_path)), cache="off", batch={"size": 4, "wait": 0.01})
    shapes = [(1, 4), (1, 5), (1, 4), (4,), (2, 4), (1, 4)]
    frames = [Frame(arrays={"x": np.ones(shape, np.float32)}) for shape in shapes]
    outs = list(run_stage(stage, frames).results)
    assert [isinstance(out, Frame) for out in outs] == [shape == (1, 4) for shape in shapes]


def test_the_models_own_batch(tmp_path: Path) -> None:
    model = str(models.rows(tmp_path, batch=6))
    stage = Infer(model=model, cache="off", jobs=2, batch={"wait": 0.01})
    stage.open()
    assert stage.capacity == 12
    outs = list(
        push(stage, [Frame(arrays={"x": np.full((1, 4), i, np.float32)}) for i in range(9)])
    )
    assert [out.arrays["twice"][0, 0] for out in outs if isinstance(out, Frame)] == [
        2 * i for i in range(9)
    ]
    stage.close()


def test_models_that_cannot_be_batched(tmp_path: Path) -> None:
    for path, batch, says in (
        (models.rows(tmp_path), {"wait": 0.01}, "no batch of its own"),
        (models.double(tmp_path), {"size": 4}, "no first dimension"),
        (models.folded(tmp_path), {"size": 4}, "cannot be told apart"),
    ):
        stage = Infer(model=str(path), cache="off", batch=batch)  # type: ignore[arg-type]
        with pytest.raises(PreflightError, match=says):
            stage.open()
        stage.close()
    stage = echo(tmp_path, batch={"size": 4}, preprocess="graph")
    with pytest.raises(PreflightError, match="cannot be one batch"):
        stage.open()


class FakePool:
    """A pool whose device is free when the test says so, and that ends what it starts at once."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.free = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.started: list[int] = []

    def __len__(self) -> int:
        return self.jobs

    def wait_idle(self) -> None:
        self.asked.release()
        assert self.free.acquire(timeout=60)

    def start(self, fed: Fed, then: Then) -> None:
        array = fed.inputs[0] if isinstance(fed.inputs, dict) else fed.inputs
        self.started.append(len(array))
        then({"x": array.copy()}, None)

    def close(self) -> None:
        pass


def gather(size: int, wait_s: float) -> tuple[Batches, FakePool, FakePool]:
    many, one_by_one = FakePool(), FakePool()
    row = np.zeros((1, 1), np.float32)
    split = {"x": lambda out, i: out[i : i + 1]}
    made = Batches(many, one_by_one, size, wait_s, [row], split, lambda array: array)  # type: ignore[arg-type]
    return made, many, one_by_one


def put(batches: Batches, stream: str, seq: int, ended: list[tuple[str, int]]) -> None:
    frame = Frame(stream=stream, seq=seq)
    info = FrameInfo(frame, 1, 1, 1, 1, 1, 1)
    value = np.full((1, 1), seq, np.float32)

    def then(outputs: dict[str, Any], error: BaseException | None) -> None:
        assert outputs["x"].tolist() == [[seq]]
        ended.append((stream, seq))

    batches.start(Fed(value, info), then)


def test_streams_take_turns() -> None:
    batches, many, _ = gather(4, LONG_S)
    ended: list[tuple[str, int]] = []
    for seq in range(6):
        put(batches, "loud", seq, ended)
    put(batches, "soft", 0, ended)
    put(batches, "other", 0, ended)
    for _ in range(2):
        many.free.release()
    batches.close()
    assert ended == [
        ("loud", 0), ("soft", 0), ("other", 0), ("loud", 1),
        ("loud", 2), ("loud", 3), ("loud", 4), ("loud", 5),
    ]  # fmt: skip
    assert many.started == [4, 4]


def test_a_batch_grows_while_the_device_is_busy() -> None:
    batches, many, one_by_one = gather(4, 0.0)
    ended: list[tuple[str, int]] = []
    put(batches, "a", 0, ended)
    assert many.asked.acquire(timeout=60)  # its wait is over, and the device is not free
    for seq in (1, 2, 3):
        put(batches, "a", seq, ended)
    many.free.release()
    batches.close()
    assert (many.started, one_by_one.started) == ([4], [])


@pytest.mark.parametrize(
    ("count", "many_starts", "single_starts"), [(1, [], [1]), (2, [], [1, 1]), (3, [4], [])]
)
def test_a_small_rest_goes_one_by_one(
    count: int, many_starts: list[int], single_starts: list[int]
) -> None:
    batches, many, one_by_one = gather(4, LONG_S)
    ended: list[tuple[str, int]] = []
    for seq in range(count):
        put(batches, "a", seq, ended)
    many.free.release()
    batches.close()
    assert (many.started, one_by_one.started) == (many_starts, single_starts)
    assert ended == [("a", seq) for seq in range(count)]


def test_a_device_that_raises_fails_each_frame_of_the_batch() -> None:
    batches, many, _ = gather(2, LONG_S)

    def start(fed: Fed, then: Then) -> None:
        raise RuntimeError("no")

    many.start = start  # type: ignore[method-assign]
    errors: list[BaseException | None] = []
    info = FrameInfo(Frame(stream="a"), 1, 1, 1, 1, 1, 1)
    for _ in range(2):
        fed = Fed(np.zeros((1, 1), np.float32), info)
        batches.start(fed, lambda outputs, error: errors.append(error))
    many.free.release()
    batches.close()
    assert [str(e) for e in errors] == ["no", "no"]


@pytest.mark.parametrize("size", [2, 4])
def test_faces_are_found_as_without_a_batch(size: int) -> None:
    """A DetectionOutput lists the objects of all frames of a batch together."""
    pytest.importorskip("av")
    from tests.support.serial import i420_frames

    model = str(need("models/omz/face-detection-retail-0004/FP32/face-detection-retail-0004.xml"))
    clips = {
        name: [*i420_frames(need(f"videos/{name}"))][:24]
        for name in ("carphone_pristine.mp4", "bikes.mp4")
    }

    def frames() -> Iterator[Frame]:
        for seq in range(24):
            for name, pixels in clips.items():
                yield Frame(image=Image(pixels[seq], "i420"), stream=name, seq=seq)

    alone = run_stage(Infer(model=model, cache="off"), frames()).results
    gathered = run_stage(
        Infer(model=model, cache="off", jobs=2, batch={"size": size, "wait": 0.01}), frames()
    ).results
    found: Counter[str] = Counter()
    for a, b in zip(alone, gathered, strict=True):
        assert isinstance(a, Frame)
        assert isinstance(b, Frame)
        assert a.detections is not None
        assert b.detections is not None
        assert (a.stream, a.seq) == (b.stream, b.seq)
        assert len(a.detections) == len(b.detections)
        assert np.abs(a.detections.xyxy - b.detections.xyxy).max(initial=0) < 0.1
        found[a.stream] += len(a.detections)
    assert found["carphone_pristine.mp4"] == 24


def test_one_frame_at_a_time_is_not_held_for_ever(tmp_path: Path) -> None:
    stage = echo(tmp_path, batch={"size": 4, "wait": 0.001})
    stage.open()
    for i in range(10):
        assert isinstance(next(push(stage, [picture(i)])), Frame)
    stage.close()
