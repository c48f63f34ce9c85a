"""The join stage: what its frames hold, and what becomes of those that nobody joins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.join import Join, merge

PICTURE = np.zeros((4, 6, 3), np.uint8)


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def join(streams: tuple[str, ...] = ("cam",), **options: Any) -> tuple[Join, Clock]:
    stage, clock = Join(**options), Clock()
    stage._now = clock
    stage.bind(LocalContext("join", inputs={"detect": streams, "pose": streams}))
    stage.open()
    return stage, clock


def frame(source: str, seq: int, **parts: Any) -> Frame:
    header = {"stream": "cam", "captured_ns": 1000 + seq, "pts_ns": seq * 40_000_000}
    return Frame(seq=seq, source=source, **{**header, **parts})


def seqs(result: Any) -> list[int]:
    return [f.seq for f in result]


def test_a_set_leaves_when_its_last_frame_comes() -> None:
    stage, _ = join()
    assert stage.process(frame("detect", 0)) == []
    assert stage.process(frame("detect", 1)) == []
    assert seqs(stage.process(frame("pose", 0))) == [0]
    assert seqs(stage.process(frame("pose", 1))) == [1]
    assert seqs(stage.end_of_stream("cam")) == []


def test_what_nobody_joined_is_counted_or_passed_on() -> None:
    dropping, _ = join()
    passing, _ = join(incomplete="pass")
    for stage in (dropping, passing):
        stage.process(frame("detect", 0, meta={"who": "d"}))
    assert seqs(dropping.process(frame("pose", 1))) == []
    assert dropping.context.failed == {"policy_skip": 1}  # type: ignore[attr-defined]
    (alone,) = passing.process(frame("pose", 1))  # type: ignore[union-attr, misc]
    assert alone.meta == {"who": "d", "missing": ["pose"]}
    assert seqs(passing.end_of_stream("cam")) == [1]
    assert not passing.context.failed  # type: ignore[attr-defined]


def test_a_frame_whose_set_has_ended_is_refused_as_policy_skip() -> None:
    stage, clock = join()
    stage.process(frame("detect", 0))
    clock.now = 2.0
    assert seqs(stage.tick()) == []
    assert stage.context.failed == {"policy_skip": 1}  # type: ignore[attr-defined]
    with pytest.raises(FrameError) as error:
        stage.process(frame("pose", 0))
    assert error.value.reason == "policy_skip"


def test_time_is_up_also_while_frames_of_another_stream_come() -> None:
    stage, clock = join(("cam", "yard"), incomplete="pass", timeout=1.0)
    stage.process(frame("detect", 0))
    clock.now = 0.9
    assert seqs(stage.process(frame("detect", 0, stream="yard"))) == []
    clock.now = 1.0
    (ended,) = stage.process(frame("detect", 1, stream="yard"))  # type: ignore[union-attr, misc]
    assert ended.stream == "cam"


def test_no_more_frames_of_an_input_are_held_than_it_says() -> None:
    stage, clock = join(("cam", "yard"), hold=3, incomplete="pass", timeout=1e6)
    assert stage.frames_held == 3
    for seq in range(2):
        clock.now += 1
        assert stage.process(frame("detect", seq)) == []
    clock.now += 1
    assert stage.process(frame("detect", 7, stream="yard")) == []
    assert stage.process(frame("pose", 8, stream="yard")) != []  # that of 7 is hopeless now
    assert stage.process(frame("detect", 2)) == []
    assert seqs(stage.process(frame("detect", 3))) == [0]
    assert seqs(stage.process(frame("detect", 4))) == [1]
    assert seqs(stage.process(frame("pose", 2))) == [2]


def test_by_time() -> None:
    stage, _ = join(match="pts", tolerance=0.02)
    stage.process(frame("detect", 0, pts_ns=0))
    (joined,) = stage.process(frame("pose", 9, pts_ns=15_000_000))  # type: ignore[union-attr, misc]
    assert (joined.seq, joined.pts_ns) == (0, 0)
    with pytest.raises(FrameError, match="without pts"):
        stage.process(frame("pose", 10, pts_ns=None))


def test_an_image_of_an_input_that_is_none_is_refused() -> None:
    with pytest.raises(PreflightError, match="'cam' is no input of this stage; inputs are detect"):
        join(image="cam")


def test_the_image_is_the_first_there_is_or_the_one_asked_for() -> None:
    one, two = Image(PICTURE), Image(PICTURE[:2])
    parts = {
        "a": frame("a", 1),
        "b": frame("b", 1, image=one, pts_ns=7, captured_ns=70),
        "c": frame("c", 1, image=two, captured_ns=50),
    }
    merged = merge(parts)
    assert merged.image is one
    assert (merged.pts_ns, merged.captured_ns) == (7, 50)
    assert merge(parts, "c").image is two
    assert merge(parts, "nobody").image is one


def test_what_several_give_by_one_name() -> None:
    same, other = np.arange(4), np.arange(4)
    merged = merge(
        {
            "a": frame("a", 1, arrays={"x": same, "y": same}, meta={"k": 1, "n": None}),
            "b": frame("b", 1, arrays={"x": same[:], "y": other}, meta={"k": 1, "n": 2}),
            "c": frame("c", 1, arrays={"x": same[::2]}, meta={"k": 3}),
        }
    )
    assert sorted(merged.arrays) == ["b.y", "c.x", "x", "y"]
    assert merged.arrays["b.y"] is other
    assert merged.meta == {"k": 1, "n": None, "b.n": 2, "c.k": 3}


def test_detections_of_all_each_once_and_each_with_its_own_label() -> None:
    cars = Detections.of([[0, 0, 1, 1], [1, 1, 2, 2]], [0.5, 0.75], [0, 1], {0: "car", 1: "van"})
    more = Detections.of(
        [[0, 0, 1, 1], [5, 5, 6, 6], [7, 7, 8, 8]],
        [0.5, 0.25, 0.125],
        [0, 1, 2],
        {0: "car", 1: "face", 2: "face"},
        track_id=[3, 4, 5],
    )
    found = merge(
        {"a": frame("a", 1, detections=cars), "b": frame("b", 1, detections=more)}
    ).detections
    assert found is not None
    assert [(d.label, d.score) for d in found] == [
        ("car", 0.5), ("van", 0.75), ("face", 0.25), ("face", 0.125),
    ]  # fmt: skip
    assert found.track_id is not None
    assert found.track_id.tolist() == [-1, -1, 4, 5]
    assert len({d.class_id for d in found if d.label == "van"} & set(found.class_id[2:])) == 0


def test_detections_of_one_stay_as_they_are() -> None:
    found = Detections.of([[0, 0, 1, 1]] * 2, [1, 1], [0, 0])
    assert merge({"a": frame("a", 1), "b": frame("b", 1, detections=found)}).detections is found
    assert merge({"a": frame("a", 1), "b": frame("b", 1)}).detections is None
