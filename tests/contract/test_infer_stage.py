"""The infer stage on small models: what goes in, what comes out, and what fails one frame only."""

from __future__ import annotations

import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import FrameInfo, Infer
from ovpipe.stages.infer.stage import AHEAD
from ovpipe.testing import push, run_stage
from tests.support import models
from tests.support.processes import wait_for

SIZE = models.SIZE
BOX = (0, 1, 0.4, 0.25, 0.25, 0.75, 0.75)


def picture(brightness: float = 1.0, width: int = SIZE, height: int = SIZE, seq: int = 0) -> Frame:
    pixels = np.full((height, width, 3), round(brightness * 255), np.uint8)
    pixels.setflags(write=False)
    return Frame(image=Image(pixels), stream="cam", seq=seq, pts_ns=seq * 40, meta={"mine": 1})


def result(stage: Infer, frame: Frame) -> Frame:
    (out,) = run_stage(stage, [frame]).results
    assert isinstance(out, Frame), out
    return out


def failure(stage: Infer, frame: Frame) -> FrameError:
    (out,) = run_stage(stage, [frame]).results
    assert isinstance(out, FrameError)
    return out


@pytest.fixture
def my_decoders(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("my_decoders")
    monkeypatch.setitem(sys.modules, "my_decoders", module)
    return module


def test_the_frame_goes_on_by_reference(tmp_path: Path) -> None:
    frame = picture(seq=7)
    out = result(Infer(model=str(models.ssd(tmp_path, [BOX])), cache="off"), frame)
    assert out.image is not None
    assert np.shares_memory(out.image.data, frame.image.data)
    assert (out.stream, out.seq, out.pts_ns, out.meta) == ("cam", 7, 280, {"mine": 1})
    assert out.detections is not None
    assert [(d.class_id, d.box) for d in out.detections] == [(1, (4, 4, 12, 12))]


@pytest.mark.parametrize("jobs", [0, 1, 4])
def test_results_leave_in_order_and_belong_to_their_frame(tmp_path: Path, jobs: int) -> None:
    stage = Infer(model=str(models.ssd(tmp_path, [BOX])), jobs=jobs, cache="off")
    frames = [picture((seq % 100) / 255, seq=seq) for seq in range(300)]
    for seq, out in enumerate(run_stage(stage, frames).results):
        assert isinstance(out, Frame)
        assert out.seq == seq
        scores = [d.score for d in out.detections or ()]
        expected = 0.4 + (seq % 100) / 255
        assert scores == ([pytest.approx(expected, abs=1e-5)] if expected >= 0.5 else [])


@pytest.mark.parametrize(("hint", "ahead"), [("throughput", AHEAD), ("latency", 0)])
def test_capacity_is_the_jobs_and_what_is_held_ready(tmp_path: Path, hint: Any, ahead: int) -> None:
    stage = Infer(model=str(models.ssd(tmp_path, [BOX])), jobs=3, hint=hint, cache="off")
    stage.open()
    assert stage.capacity == 3 + ahead
    stage.close()
    stage.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"hint": "latency"}, {"preprocess": "graph"}, {"batch": {"size": 2, "wait": 0.001}}],
    ids=["ahead", "latency", "graph", "batch"],
)
def test_no_frame_is_held_once_it_has_ended(tmp_path: Path, options: Any) -> None:
    """Its memory is a slot that its producer waits for, and no garbage collector is to be."""
    stage = Infer(model=str(models.echo(tmp_path)), jobs=2, cache="off", **options)
    stage.open()
    gc.collect()
    gc.disable()
    try:
        for count in (1, 2, 3, 7):
            frames = [picture(seq=seq) for seq in range(count)]
            # Not the frames: what goes through the stage are others, of the same memory.
            alive = [weakref.ref(frame.image.data) for frame in frames if frame.image]
            outs = push(stage, (frames.pop(0) for _ in range(count)))
            assert [type(out) for out in outs] == [Frame] * count
            assert len(alive) == count
            wait_for(
                lambda alive=alive: not any(ref() is not None for ref in alive),
                "the frames' end",
                10,
            )
    finally:
        gc.enable()
        stage.close()


@pytest.mark.parametrize("way", ["shape", "run", "nan"])
def test_E05_nor_is_one_that_failed(tmp_path: Path, way: str) -> None:
    """Also where nobody looks for what only refers to itself: an error does, and keeps its frame."""
    one = np.ones(2, np.float32)
    arrays = {
        "shape": {"x": np.zeros(5, np.float32)},
        "run": {"a": one, "b": np.ones(3, np.float32)},
        "nan": {"x": np.full(4, np.nan, np.float32)},
    }[way]
    model = models.add(tmp_path) if way == "run" else models.double(tmp_path)
    stage = Infer(model=str(model), jobs=2, cache="off", feed="arrays")
    stage.open()
    gc.collect()
    gc.disable()
    try:
        frames = [Frame(arrays={k: a.copy() for k, a in arrays.items()}) for _ in range(7)]
        alive = [weakref.ref(array) for frame in frames for array in frame.arrays.values()]
        outs = push(stage, (frames.pop(0) for _ in range(7)))
        assert [isinstance(out, FrameError) for out in outs] == [True] * 7
        del outs
        wait_for(lambda: all(ref() is None for ref in alive), "the frames' end", 10)
    finally:
        gc.enable()
        stage.close()


def test_close_without_open() -> None:
    Infer(model="away.xml").close()


def test_done_is_called_once_for_good_and_bad(tmp_path: Path) -> None:
    stage = Infer(model=str(models.ssd(tmp_path, [BOX])), cache="off")
    stage.open()
    seen: list[list[int]] = []
    for frame in (picture(), Frame(arrays={"x": np.zeros(3)})):
        calls: list[int] = []
        seen.append(calls)
        ended = threading.Event()

        def done(calls: list[int] = calls, ended: threading.Event = ended) -> None:
            calls.append(1)
            ended.set()

        stage.submit(frame, done)
        assert ended.wait(60)
    stage.close()
    assert seen == [[1], [1]]


def test_labels_and_keep(tmp_path: Path) -> None:
    rows = [BOX, (0, 2, 0.9, 0, 0, 1, 1), (0, 0, 0.9, 0, 0, 1, 1)]
    model = str(models.ssd(tmp_path, rows, labels="cat dog big_bird"))
    keep: Any = {"classes": ["dog", 2], "score": 0.6}
    out = result(Infer(model=model, keep=keep, cache="off"), picture(0.5))
    assert [d.label for d in out.detections or ()] == ["dog", "big bird"]
    out = result(Infer(model=model, labels=["a", "b", "c"], cache="off"), picture(0.5))
    assert [d.label for d in out.detections or ()] == ["b", "c", "a"]


def test_classification(tmp_path: Path) -> None:
    model = str(models.classifier(tmp_path, [0, 1, 2]))
    out = result(Infer(model=model, labels=["cat", "dog", "cow"], cache="off"), picture())
    assert out.detections is None
    assert [c["label"] for c in out.meta["classes"]] == ["cow", "dog", "cat"]
    assert sum(c["score"] for c in out.meta["classes"]) == pytest.approx(1)
    assert out.meta["mine"] == 1


@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_pixels_arrive_as_wished(tmp_path: Path, colour: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    stage = Infer(
        model=str(models.echo(tmp_path)), colour=colour, mean=[1, 2, 3], scale=[2], cache="off"
    )
    got = result(stage, Frame(image=Image(pixels))).arrays["pixels"]
    own = pixels if colour == "bgr" else pixels[:, :, ::-1]
    expected = (own.astype(np.float32) - np.float32([1, 2, 3])) / np.float32(2)
    assert np.array_equal(got, expected.transpose(2, 0, 1)[None])


def test_gray_models_get_the_luma(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE * 3 // 2, SIZE), np.uint8)
    model = str(models.echo(tmp_path, channels=1))
    got = result(Infer(model=model, cache="off"), Frame(image=Image(pixels, "i420")))
    assert np.array_equal(got.arrays["pixels"][0, 0], pixels[:SIZE])


def test_letterbox_fills_the_rest_also_when_sizes_change(tmp_path: Path) -> None:
    stage = Infer(model=str(models.echo(tmp_path)), jobs=1, resize="letterbox", cache="off")
    stage.open()
    for width, height in ((32, 16), (16, 32), (32, 16), (16, 16), (64, 8)):
        (out,) = push(stage, [picture(1, width, height)])
        assert isinstance(out, Frame)
        expected = np.full((SIZE, SIZE), 114, np.float32)
        w, h = (min(SIZE, SIZE * width // height), min(SIZE, SIZE * height // width))
        left, top = (SIZE - w) // 2, (SIZE - h) // 2
        expected[top : top + h, left : left + w] = 255
        assert np.array_equal(out.arrays["pixels"][0, 0], expected), (width, height)
    stage.close()


def test_stretch_goes_straight_into_the_device_buffer(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    got = result(Infer(model=str(models.echo(tmp_path)), cache="off"), Frame(image=Image(pixels)))
    expected = cv2.resize(pixels, (SIZE, SIZE)).transpose(2, 0, 1)
    assert np.array_equal(got.arrays["pixels"][0], expected)


def test_outputs_outlive_the_slot(tmp_path: Path) -> None:
    stage = Infer(model=str(models.echo(tmp_path)), jobs=1, cache="off")
    outs = run_stage(stage, [picture(b / 255) for b in range(20)]).results
    for b, out in enumerate(outs):
        assert isinstance(out, Frame)
        assert (out.arrays["pixels"] == b).all()


def test_arrays_by_the_names_of_the_inputs(tmp_path: Path) -> None:
    a, b = np.float32([1, 2]), np.float32([10, 20])
    a.setflags(write=False)
    out = result(
        Infer(model=str(models.add(tmp_path)), cache="off"), Frame(arrays={"a": a, "b": b})
    )
    assert out.arrays["sum"].tolist() == [11, 22]
    assert out.arrays["a"] is a


def test_a_single_array_under_any_name(tmp_path: Path) -> None:
    x = np.float32([1, 2, 3, 4])
    out = result(Infer(model=str(models.double(tmp_path)), cache="off"), Frame(arrays={"any": x}))
    assert out.arrays["twice"].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros(4, np.uint8)},
        {"x": np.zeros(4, np.float64)},
        {"x": np.zeros(5, np.float32)},
        {"x": np.zeros((1, 4), np.float32)},
        {"y": np.zeros(4, np.float32), "z": np.zeros(4, np.float32)},
        {},
    ],
)
def test_E05_arrays_that_do_not_fit_fail_that_frame(tmp_path: Path, arrays: Any) -> None:
    stage = Infer(model=str(models.double(tmp_path)), cache="off")
    good = Frame(arrays={"x": np.ones(4, np.float32)})
    before, bad, after = run_stage(stage, [good, Frame(arrays=arrays), good]).results
    assert isinstance(before, Frame)
    assert isinstance(bad, FrameError)
    assert bad.reason == "infer_error"
    assert "x float32 [4]" in str(bad)
    assert isinstance(after, Frame)


def test_E05_a_frame_without_a_picture_fails_alone(tmp_path: Path) -> None:
    stage = Infer(model=str(models.ssd(tmp_path, [BOX])), cache="off")
    assert "feed: arrays" in str(failure(stage, Frame(arrays={"x": np.zeros(3)})))


def test_a_failing_inference_fails_that_frame_only(tmp_path: Path) -> None:
    stage = Infer(model=str(models.add(tmp_path)), jobs=2, cache="off")

    def frames() -> Iterator[Frame]:
        for i in range(40):
            other = 3 if i % 3 == 1 else 2
            yield Frame(arrays={"a": np.ones(2, np.float32), "b": np.ones(other, np.float32)})

    for i, out in enumerate(run_stage(stage, frames()).results):
        if i % 3 == 1:
            assert isinstance(out, FrameError)
            assert out.reason == "infer_error"
            assert "inference failed" in str(out)
        else:
            assert isinstance(out, Frame)
            assert out.arrays["sum"].tolist() == [2, 2]


def test_E04_boxes_with_nan_are_never_published(tmp_path: Path) -> None:
    nan, inf = np.nan, np.inf
    rows = [BOX, (0, 1, 0.9, nan, 0, 1, 1), (0, 1, nan, 0, 0, 1, 1), (0, 1, 0.9, 0, 0, inf, 1)]
    out = result(Infer(model=str(models.ssd(tmp_path, rows)), cache="off"), picture())
    assert len(out.detections or ()) == 1


@pytest.mark.parametrize("name", ["half_nan", "half_nan_frame"])
def test_E04_nan_of_the_users_own_decoder_is_not_published(tmp_path: Path, name: str) -> None:
    stage = Infer(
        model=str(models.echo(tmp_path)), decode=f"tests.support.decoders:{name}", cache="off"
    )
    out = result(stage, picture())
    assert [(d.class_id, d.box) for d in out.detections or ()] == [(1, (0, 0, 4, 4))]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_E04_numbers_that_are_none_go_in_and_no_box_comes_out(tmp_path: Path, bad: float) -> None:
    """Frames of floats, all bad or with one bad number: the device gets them as they are."""
    stage = Infer(model=str(models.ssd(tmp_path, [BOX])), feed="arrays", cache="off")
    data = np.full((1, 3, SIZE, SIZE), 255, np.float32)
    frames = [Frame(arrays={"data": data.copy()}, seq=seq) for seq in range(3)]
    frames[1].arrays["data"][...] = bad
    frames[2].arrays["data"][0, 0, 0, 0] = bad
    outs = run_stage(stage, frames).results
    for seq, out in enumerate(outs):
        if isinstance(out, FrameError):
            assert (seq > 0, out.reason) == (True, "nan_output")
            continue
        for found in out.detections or ():
            assert np.isfinite(found.box).all()
            assert np.isfinite(found.score)
        assert len(out.detections or ()) == (seq == 0 or (seq, bad) == (2, 0.0))


@pytest.mark.parametrize("decode", ["", "raw"])
def test_E04_an_output_that_is_all_nan_fails_the_frame(tmp_path: Path, decode: str) -> None:
    model = models.constant_picture_model(tmp_path, {"nothing": np.full((1, 1, 2, 7), np.nan)})
    error = failure(Infer(model=str(model), decode=decode, cache="off"), picture())
    assert error.reason == "nan_output"
    assert "'nothing'" in str(error)


@pytest.mark.parametrize("brightness", [0, 1])
def test_E04_black_and_white_frames_pass(tmp_path: Path, brightness: float) -> None:
    result(Infer(model=str(models.ssd(tmp_path, [BOX])), cache="off"), picture(brightness))


def test_a_decoder_of_the_users_own(tmp_path: Path, my_decoders: types.ModuleType) -> None:
    seen: list[FrameInfo] = []

    def decode(outputs: dict[str, Any], info: FrameInfo) -> Any:
        seen.append(info)
        boxes = np.float32([[0, 0, 8, 8], [0, 0, np.nan, 8]])
        return info.detections(boxes, np.float32([0.9, 0.9]), np.int32([1, 1]))

    my_decoders.__dict__["decode"] = decode
    model = str(models.echo(tmp_path))
    stage = Infer(model=model, decode="my_decoders:decode", labels=["a", "b"], cache="off")
    out = result(stage, picture(1, 32, 64))
    assert [(d.label, d.box) for d in out.detections or ()] == [("b", (0, 0, 16, 32))]
    info = seen[0]
    assert (info.width, info.height, info.input_width, info.input_height) == (32, 64, SIZE, SIZE)
    assert info.frame.stream == "cam"


@pytest.mark.parametrize(
    "answer",
    [
        lambda outputs, info: {"n": 3, "twice": outputs["pixels"] * 2},
        lambda outputs, info: info.frame.with_(meta={"n": 3}, arrays={"twice": outputs["pixels"]}),
    ],
)
def test_what_else_it_may_give(
    tmp_path: Path, my_decoders: types.ModuleType, answer: Callable[..., Any]
) -> None:
    my_decoders.__dict__["decode"] = answer
    stage = Infer(model=str(models.echo(tmp_path)), decode="my_decoders:decode", cache="off")
    out = result(stage, picture())
    assert out.meta == {"mine": 1, "n": 3}
    assert out.arrays["twice"].shape == (1, 3, SIZE, SIZE)


def test_it_may_give_nothing(tmp_path: Path, my_decoders: types.ModuleType) -> None:
    my_decoders.__dict__["decode"] = lambda outputs, info: None
    stage = Infer(model=str(models.echo(tmp_path)), decode="my_decoders:decode", cache="off")
    frame = picture()
    out = result(stage, frame)
    assert out.image is not None
    assert np.shares_memory(out.image.data, frame.image.data)
    assert (out.meta, out.detections, out.arrays) == (frame.meta, None, {})


def test_E08_a_decoder_that_raises_fails_that_frame_in_order(
    tmp_path: Path, my_decoders: types.ModuleType
) -> None:
    def decode(outputs: dict[str, Any], info: FrameInfo) -> Detections:
        if info.frame.seq % 4 == 2:
            raise ZeroDivisionError("oh")
        return Detections.of()

    my_decoders.__dict__["decode"] = decode
    stage = Infer(
        model=str(models.echo(tmp_path)), jobs=2, decode="my_decoders:decode", cache="off"
    )
    stage.open()
    for seq, out in enumerate(push(stage, (picture(seq=seq) for seq in range(20)))):
        if seq % 4 == 2:
            assert isinstance(out, FrameError)
            assert str(out) == "my_decoders:decode raised ZeroDivisionError: oh"
        else:
            assert isinstance(out, Frame)
            assert out.seq == seq
    stage.close()
