"""A file played at its own speed, and colours of files against what other tools make of them."""

from __future__ import annotations

import itertools
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import PreflightError
from tests.support.data import need

av = pytest.importorskip("av")

from ovpipe.frame import Frame  # noqa: E402
from ovpipe.stages.base import LocalContext  # noqa: E402
from ovpipe.stages.pace import paced  # noqa: E402
from ovpipe.stages.video import Video  # noqa: E402
from tests.support.clips import clip, index, picture, play  # noqa: E402

NS = 10**9


def test_no_frame_comes_before_its_time_and_none_is_missing(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4", frames=10))
    began = time.monotonic_ns()
    frames = play(Video(url=path, pace=True, loop=True), limit=15)
    assert [index(f.image) for f in frames if f.image] == [*range(10), *range(5)]
    times = [f.pts_ns or 0 for f in frames]
    assert times == [i * NS // 25 for i in range(15)]
    assert all(f.captured_ns - began >= pts for f, pts in zip(frames, times, strict=True))
    assert all(a.captured_ns < b.captured_ns for a, b in itertools.pairwise(frames))


def test_images_come_at_the_rate_that_is_given(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png")
    began = time.monotonic_ns()
    frames = play(Video(url=str(tmp_path), pace=True, fps=20))
    assert all(f.captured_ns - began >= i * NS // 20 for i, f in enumerate(frames))
    assert len(frames) == 4


def test_who_was_kept_from_its_times_catches_up_by_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100 * NS]
    monkeypatch.setattr("ovpipe.stages.pace.time.monotonic_ns", lambda: now[0])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * NS)

    monkeypatch.setattr("ovpipe.stages.pace.time.sleep", sleep)
    frames = paced((Frame(pts_ns=i * NS) for i in range(9)), LocalContext(), 0.0)
    next(frames)
    now[0] += 5 * NS  # the frames of 1, 2, 3, 4 and 5 s are due by now
    came = [(frame.captured_ns - 100 * NS) / NS for frame in frames]
    # The first of them is four seconds late: from there on it is one.
    assert came == pytest.approx([5, 5, 6, 7, 8, 9, 10, 11])
    assert sum(slept) == pytest.approx(6)


def test_a_wish_to_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    context = LocalContext()

    def stop(seconds: float) -> None:
        context.stopping = True

    monkeypatch.setattr("ovpipe.stages.pace.time.sleep", stop)
    frames = paced((Frame(pts_ns=i * 3600 * NS) for i in range(2)), context, 0.0)
    assert len(list(frames)) == 2


@pytest.mark.parametrize(
    ("options", "live"),
    [
        ({"pace": True}, True),
        ({"pace": True, "live": False}, False),
        ({"pace": True, "live": True}, True),
        ({}, False),
    ],
)
def test_a_paced_file_is_live_unless_told(tmp_path: Path, options: Any, live: bool) -> None:
    stage = Video(url=str(clip(tmp_path / "a.mp4", frames=2)), **options)
    assert stage.live is live
    assert len(play(stage)) == 2  # it has an end, whatever it is to its edges


def test_what_is_live_has_a_pace_of_its_own() -> None:
    with pytest.raises(PreflightError, match="has no loop, pace, start"):
        play(Video(url="rtsp://127.0.0.1/a", pace=True))


# -- colours -----------------------------------------------------------------------------------

PATCHES = [(235, 20, 20), (20, 235, 20), (20, 20, 235), (250, 220, 10), (90, 140, 200), (255,) * 3]
SIDE = 32


def drawn() -> Any:
    """One patch beside the other, RGB."""
    return np.repeat(np.array([PATCHES], np.uint8), SIDE, axis=1).repeat(SIDE, axis=0)


@pytest.mark.parametrize("form", ["i420", "bgr", "rgb"])
@pytest.mark.parametrize(
    ("pix_fmt", "matrix", "name", "full"),
    [
        ("yuv420p", "bt709", "bt709", False),
        ("yuv420p", "bt470bg", "bt601", False),
        ("yuv420p", "smpte170m", "bt601", False),
        ("yuv420p", "bt709", "bt709", True),
        ("yuvj420p", "bt470bg", "bt601", True),
        ("yuvj420p", "bt709", "bt709", True),
    ],
)
def test_known_patches_through_h264(
    tmp_path: Path, pix_fmt: str, matrix: str, name: str, full: bool, form: Any
) -> None:
    """Encoded by the ffmpeg program, whose conversion is the reference."""
    path = tmp_path / "a.mp4"
    pixels = drawn()
    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
    span = "pc" if full else "tv"
    colours = f"scale=out_color_matrix={matrix}:out_range={span}:flags=accurate_rnd+full_chroma_int"
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i",
               "-", "-vf", f"{colours},format={pix_fmt}", "-c:v", "libx264", "-qp", "1",
               "-color_range", span, "-colorspace", matrix, str(path)]  # fmt: skip
    try:
        subprocess.run(command, input=pixels.tobytes(), check=True)
    except FileNotFoundError:
        pytest.skip("needs the program ffmpeg: apt install ffmpeg")
    image = play(Video(url=str(path), format=form))[0].image
    assert image is not None
    if form == "i420":
        assert (image.matrix, image.full_range) == (name, full)
    inner = np.arange(pixels.shape[1]).reshape(-1, SIDE)[:, 6:-6].reshape(-1)  # not the borders
    for found in (image.rgb(), image.bgr()[:, :, ::-1]):
        assert np.abs(found.astype(int) - pixels)[:, inner].max() <= 5


@pytest.mark.parametrize("form", ["i420", "bgr"])
def test_full_range_footage_is_what_ffmpeg_makes_of_it(form: Any) -> None:
    path = need("videos/asl_gestures/book.mkv")
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo",
               "-pix_fmt", "rgb24", "-sws_flags", "accurate_rnd+full_chroma_int", "-"]  # fmt: skip
    try:
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    except FileNotFoundError:
        pytest.skip("needs the program ffmpeg: apt install ffmpeg")
    image = play(Video(url=str(path), format=form), limit=1)[0].image
    assert image is not None
    if form == "i420":
        assert image.full_range
    theirs = np.frombuffer(told, np.uint8).reshape(480, 640, 3).astype(int)
    apart = np.abs(image.rgb().astype(int) - theirs)
    assert apart.mean() < 1.0  # chroma is spread in other ways at the edges of things
    assert np.percentile(apart, 99) <= 6
    # To read it as limited range would be far off.
    wrong = np.clip((theirs - 16) * 255 / 219, 0, 255)
    assert np.abs(wrong - theirs).mean() > 4
