"""A decoder of the user's own."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.infer.custom import Custom, find
from ovpipe.stages.infer.decode import FrameInfo

INFO = FrameInfo(Frame(), 8, 8, 8, 8, 1, 1)
MINUTE_NS = 60_000_000_000


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_what_it_gives_is_passed_on() -> None:
    assert Custom("m:f", lambda outputs, info: {"n": len(outputs)})({}, INFO) == {"n": 0}


def test_another_type_fails_the_frame() -> None:
    with pytest.raises(FrameError, match="m:f gave list, not Detections"):
        Custom("m:f", lambda outputs, info: [1])({}, INFO)  # type: ignore[arg-type, return-value]


def test_E08_the_same_traceback_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    def decode(outputs: Any, info: FrameInfo) -> None:
        if "other" in outputs:
            raise KeyError("other")
        raise ValueError(f"number {clock.now}")

    custom = Custom("m:f", decode, "detect", clock)

    def call(**outputs: Any) -> int:
        with pytest.raises(FrameError, match="m:f raised"):
            custom(outputs, INFO)
        return len(caplog.records)

    caplog.set_level(logging.ERROR)
    assert [call(), call(), call()] == [1, 1, 1]
    assert call(other=1) == 2
    clock.now = MINUTE_NS - 1
    assert call() == 2
    clock.now = MINUTE_NS
    assert call() == 3
    assert "detect: m:f failed (3 more since the last report)" in caplog.text
    assert "Traceback" in caplog.text


def test_the_cause_is_kept() -> None:
    def decode(outputs: Any, info: FrameInfo) -> None:
        raise ZeroDivisionError("x")

    with pytest.raises(FrameError) as caught:
        Custom("m:f", decode)({}, INFO)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.reason == "infer_error"


def test_find(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_decoders")
    module.__dict__.update(decode=lambda outputs, info: None, number=3)
    monkeypatch.setitem(sys.modules, "my_decoders", module)
    assert find("my_decoders:decode") is module.__dict__["decode"]
    for name, says in (
        ("my_decoders:number", "no such function"),
        ("my_decoders:away", "no such function"),
        ("no_such_module:f", "cannot import"),
    ):
        with pytest.raises(PreflightError, match=says):
            find(name)
