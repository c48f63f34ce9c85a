"""The synthetic stage: deterministic, checkable, at its rate."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.synthetic import Synthetic, verify


def frames(stream: str = "cam", **options: Any) -> list[Frame]:
    stage = Synthetic(**options)
    stage.bind(LocalContext("cam", stream))
    stage.open()
    try:
        return [replace(frame, stream=stream) for frame in stage.frames()]
    finally:
        stage.close()


SMALL: dict[str, Any] = {"size": (32, 16), "count": 20}


@pytest.mark.parametrize("form", ["bgr", "rgb", "gray", "i420"])
def test_every_frame_is_whole_and_the_same_in_every_run(form: Any) -> None:
    once, again = (frames(format=form, **SMALL) for _ in range(2))
    assert [frame.seq for frame in once] == list(range(20))
    for a, b in zip(once, again, strict=True):
        verify(a)
        assert a.image is not None
        assert b.image is not None
        assert (a.image.width, a.image.height, a.image.format) == (32, 16, form)
        assert np.array_equal(a.image.data, b.image.data)


def test_seed_and_stream_make_other_frames() -> None:
    plain, seeded, other = frames(**SMALL), frames(seed=1, **SMALL), frames("yard", **SMALL)
    for a, b, c in zip(plain, seeded, other, strict=True):
        assert a.image is not None
        assert b.image is not None
        assert c.image is not None
        assert not np.array_equal(a.image.data, b.image.data)
        assert not np.array_equal(a.image.data, c.image.data)


def test_neighbours_differ_everywhere() -> None:
    bodies = {f.image.data.reshape(-1)[32:].tobytes() for f in frames(**SMALL)[:7] if f.image}
    assert len(bodies) == 7


def spoil(frame: Frame, at: int) -> Frame:
    assert frame.image is not None
    data = frame.image.data.copy()
    data.reshape(-1)[at] ^= 1
    return replace(frame, image=Image(data, frame.image.format))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: spoil(f, 0), "magic"),
        (lambda f: spoil(f, 8), "stream"),
        (lambda f: spoil(f, 16), "seq"),
        (lambda f: spoil(f, 24), "crc32"),
        (lambda f: spoil(f, 28), "length"),
        (lambda f: spoil(f, 32), "crc32"),
        (lambda f: spoil(f, -1), "crc32"),
        (lambda f: replace(f, seq=4), "seq"),
        (lambda f: replace(f, stream="yard"), "stream"),
        (lambda f: replace(f, image=None), "no image"),
        (lambda f: replace(f, image=Image(np.zeros((2, 2, 3), np.uint8))), "too few"),
    ],
)
def test_verify_names_what_differs(change: Any, says: str) -> None:
    frame = frames(**SMALL)[3]
    verify(frame)
    with pytest.raises(ValueError, match=says):
        verify(change(frame))


def test_frames_do_not_come_before_their_time() -> None:
    began = time.monotonic()
    seen = frames(size=(16, 16), fps=100, count=21)
    assert time.monotonic() - began >= 0.2
    assert [frame.pts_ns for frame in seen] == [i * 10_000_000 for i in range(21)]
    assert seen[0].meta == {"fps": 100}


def test_while_it_waits_for_the_time_of_a_frame_it_says_so() -> None:
    class Enough(LocalContext):
        def waiting(self) -> None:
            self.stopping = True

    stage = Synthetic(size=(32, 16), fps=0.001)
    context = Enough("cam")
    stage.bind(context)
    stage.open()
    assert [frame.seq for frame in stage.frames()] == [0]
    assert context.stopping


def test_stopping_ends_an_endless_stream_that_waits() -> None:
    stage = Synthetic(size=(16, 16), fps=0.001)
    context = LocalContext("cam")
    stage.bind(context)
    stage.open()
    seen = 0
    for _ in stage.frames():  # the next one would come in a quarter of an hour
        seen += 1
        context.stopping = True
    assert seen == 1


def test_a_successor_goes_on_where_the_first_one_died() -> None:
    stage = Synthetic(size=(32, 32), count=10)
    context = LocalContext("cam")
    context.first_seq = 7
    stage.bind(context)
    stage.open()
    rest = [replace(frame, stream="cam") for frame in stage.frames()]
    stage.close()
    assert [frame.seq for frame in rest] == [7, 8, 9]
    for frame in rest:
        verify(frame)


def test_live_is_an_option() -> None:
    assert not Synthetic().live
    assert Synthetic(live=True).live


@pytest.mark.parametrize(
    "options",
    [
        {"size": (33, 16), "format": "i420"},
        {"size": (2, 2)},
        {"size": (0, 100)},
        {"size": (-100, -100)},
        {"size": (100_000, 100_000)},
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(PreflightError, match=r"size -?\d+x"):
        Synthetic(**options).open()
