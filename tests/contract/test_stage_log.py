"""The log stage: a line a frame, where the application wants it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.log import Log

FOUND = Detections.of([[0, 0, 1, 1]] * 3, [1] * 3, [1, 0, 1], {0: "bike", 1: "person"})


def log(frames: list[Frame], **options: Any) -> None:
    stage = Log(**options)
    stage.bind(LocalContext("talk"))
    stage.open()
    for frame in frames:
        stage.consume(frame)
    stage.close()


def frame(seq: int, stream: str = "cam") -> Frame:
    image = Image(np.zeros((48, 64, 3), np.uint8))
    return Frame(image=image, stream=stream, seq=seq, pts_ns=seq * 40_000_000, detections=FOUND)


def test_the_applications_logging_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ovpipe"):
        log([frame(2)], format="{stream} {seq} {pts:.2f} {width}x{height} {objects}")
    assert caplog.record_tuples == [
        ("ovpipe.talk", logging.INFO, "cam 2 0.08 64x48 1 bike, 2 person")
    ]


def test_standard_error_where_nobody_has_set_logging_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log([Frame(stream="cam", seq=1)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cam 1 at nan s")
    assert err.count("\n") == 1
    assert not logging.getLogger("ovpipe.talk").handlers
    assert logging.getLogger("ovpipe.talk").level == logging.NOTSET


def test_every_so_many_frames_of_each_stream(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ovpipe"):
        log([frame(i, s) for i in range(7) for s in "ab"], every=3, format="{stream}{seq}")
    assert [record.message for record in caplog.records] == ["a0", "b0", "a3", "b3", "a6", "b6"]


@pytest.mark.parametrize("text", ["{nobody}", "{", "{0}", "{seq:x.y}", "{stream.nothing}"])
def test_a_format_that_does_not_work(text: str) -> None:
    with pytest.raises(PreflightError, match="fields: stream, seq"):
        log([], format=text)
