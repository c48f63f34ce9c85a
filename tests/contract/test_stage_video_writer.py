"""The video-writer stage: files that play, whatever comes in and however it ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image, ImageFormat
from tests.support.data import need

av = pytest.importorskip("av")
pytest.importorskip("cv2")

from ovpipe.stages import video_writer  # noqa: E402
from ovpipe.stages.video import Video  # noqa: E402
from ovpipe.stages.video_writer import VideoWriter  # noqa: E402
from tests.support.clips import feed, index, level, play  # noqa: E402

NS = 10**9


def frame(
    i: int, form: ImageFormat = "i420", size: tuple[int, int] = (64, 48), **parts: Any
) -> Frame:
    """Frame `i` of the clips: its brightness says which one it is."""
    width, height = size
    if form == "i420":
        data = np.full((height * 3 // 2, width), 128, np.uint8)
        data[:height] = level(i)
    else:
        shape = (height, width) if form == "gray" else (height, width, 3)
        data = np.full(shape, round((level(i) - 16) * 255 / 219), np.uint8)
    data.setflags(write=False)
    image = Image(data, form, parts.pop("matrix", "bt601"), parts.pop("full_range", False))
    return Frame(**{"image": image, "stream": "cam", "seq": i, "pts_ns": i * NS // 25} | parts)


def read(path: Path) -> list[Frame]:
    return play(Video(url=str(path)))


def indices(path: Path) -> list[int]:
    return [index(frame.image) for frame in read(path) if frame.image]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("form", ["i420", "bgr", "rgb", "gray"])
def test_every_format_comes_back(tmp_path: Path, suffix: str, form: ImageFormat) -> None:
    path = tmp_path / "new" / f"a{suffix}"
    feed(VideoWriter(path=str(path)), [frame(i, form) for i in range(40)])
    frames = read(path)
    assert [index(f.image) for f in frames if f.image] == list(range(40))
    assert [f.pts_ns for f in frames] == pytest.approx(
        [i * NS // 25 for i in range(40)], abs=NS // 1000
    )


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("form", ["i420", "bgr"])
def test_matrix_and_range_are_noted(
    tmp_path: Path, form: ImageFormat, matrix: Any, full_range: bool
) -> None:
    path = tmp_path / "a.mp4"
    data = np.full((72, 64), 100, np.uint8)  # a light blue, darker below
    data[:24], data[60:] = 170, 150
    source = Image(data, "i420", matrix, full_range)
    image = source if form == "i420" else Image(source.bgr(), "bgr", matrix, full_range)
    feed(VideoWriter(path=str(path), quality=1), [Frame(image=image, stream="cam", pts_ns=0)])
    got = read(path)[0].image
    assert got is not None
    assert (got.matrix, got.full_range) == (matrix, full_range)
    assert np.abs(got.bgr().astype(int) - source.bgr()).mean() < 3


def test_F03_a_file_per_stream_and_no_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    frames = [frame(i, stream=s) for i in range(5) for s in ("cam/gate", "../../up", "..")]
    feed(VideoWriter(path=str(folder / "{stream}.mp4")), frames)
    assert sorted(p.name for p in folder.iterdir()) == ["_.._up.mp4", "cam_gate.mp4", "stream.mp4"]
    assert list(tmp_path.rglob("*.mp4")) == list(folder.rglob("*.mp4"))
    for path in folder.iterdir():
        assert indices(path) == [0, 1, 2, 3, 4]


def test_two_streams_without_a_placeholder_do_not_share_a_file(tmp_path: Path) -> None:
    frames = [frame(i, stream=s) for i in range(3) for s in "ab"]
    feed(VideoWriter(path=str(tmp_path / "x.mkv"), overwrite=True), frames)
    assert indices(tmp_path / "x.mkv") == indices(tmp_path / "x-2.mkv") == [0, 1, 2]


def test_another_size_begins_the_next_file(tmp_path: Path) -> None:
    frames = [frame(i, size=(64, 48) if i // 5 != 1 else (32, 32)) for i in range(15)]
    feed(VideoWriter(path=str(tmp_path / "yard.mp4")), frames)
    assert indices(tmp_path / "yard.mp4") == [0, 1, 2, 3, 4]
    assert indices(tmp_path / "yard-2.mp4") == [5, 6, 7, 8, 9]
    assert indices(tmp_path / "yard-3.mp4") == [10, 11, 12, 13, 14]


def test_a_picture_or_none_drawn_on_is_the_same_file(tmp_path: Path) -> None:
    feed(
        VideoWriter(path=str(tmp_path / "a.mp4")),
        [frame(i, ("i420", "bgr")[i % 2]) for i in range(9)],
    )
    assert indices(tmp_path / "a.mp4") == list(range(9))
    assert len(list(tmp_path.iterdir())) == 1


def test_odd_sizes_lose_a_pixel(tmp_path: Path) -> None:
    feed(VideoWriter(path=str(tmp_path / "a.mp4")), [frame(i, "bgr", (63, 47)) for i in range(3)])
    got = read(tmp_path / "a.mp4")[0].image
    assert got is not None
    assert (got.width, got.height) == (62, 46)


def test_F05_old_files_are_left_alone_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    feed(VideoWriter(path=str(path)), [frame(0)])
    assert path.read_bytes() == b"old"
    assert indices(tmp_path / "a-2.mp4") == [0]
    feed(VideoWriter(path=str(path), overwrite=True), [frame(1)])
    assert indices(path) == [1]


@pytest.mark.parametrize(
    ("pts", "step_ms"),
    [
        ([0, 100, 200, 300], [100, 100, 100]),
        ([5000, 5100, 5150], [100, 50]),
        ([None, None, None], [40, 40]),
        ([0, 100, 100, 0, 50], [100, 40, 40, 50]),
        ([0, None, 80], [40, 40]),
        ([2**61 // 10**6, 0, 40], [40, 40]),
    ],
    ids=["rate", "offset", "none", "back", "holes", "huge"],
)
def test_times_rise_from_zero(tmp_path: Path, pts: list[int | None], step_ms: list[int]) -> None:
    frames = [frame(i, pts_ns=None if ms is None else ms * 10**6) for i, ms in enumerate(pts)]
    feed(VideoWriter(path=str(tmp_path / "a.mp4")), frames)
    times = [(f.pts_ns or 0) / 1e6 for f in read(tmp_path / "a.mp4")]
    assert times[0] == 0
    assert np.diff(times) == pytest.approx(step_ms, abs=1)


def test_a_given_rate_replaces_the_frames_times(tmp_path: Path) -> None:
    feed(VideoWriter(path=str(tmp_path / "a.mp4"), fps=10), [frame(i) for i in range(5)])
    assert [f.pts_ns for f in read(tmp_path / "a.mp4")] == [i * NS // 10 for i in range(5)]


def test_keyframes_come_in_time_also_where_frames_come_slowly(tmp_path: Path) -> None:
    frames = [frame(i, pts_ns=i * NS // 2, meta={"fps": 25}) for i in range(12)]
    feed(VideoWriter(path=str(tmp_path / "a.mkv"), gop=1.0), frames)
    with av.open(str(tmp_path / "a.mkv")) as container:
        keys = [
            float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe and p.size
        ]
    assert keys == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.01)


@pytest.mark.parametrize("meta", [{"fps": "fast"}, {"fps": -1}, {"fps": float("nan")}, {"fps": 0}])
def test_metadata_that_is_no_rate(tmp_path: Path, meta: dict[str, Any]) -> None:
    feed(VideoWriter(path=str(tmp_path / "a.mp4")), [frame(i, meta=meta) for i in range(3)])
    assert indices(tmp_path / "a.mp4") == [0, 1, 2]


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "mpeg4"])
def test_other_codecs(tmp_path: Path, codec: str, capfd: Any) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of av has no {codec}")
    feed(VideoWriter(path=str(tmp_path / "a.mkv"), codec=codec), [frame(i) for i in range(5)])
    assert indices(tmp_path / "a.mkv") == [0, 1, 2, 3, 4]


def test_a_frame_without_a_picture_fails_alone(tmp_path: Path) -> None:
    stage = VideoWriter(path=str(tmp_path / "a.mp4"))
    stage.open()
    stage.consume(frame(0))
    for bad in (replace(frame(1), image=None), frame(1, "bgr", (1, 1))):
        with pytest.raises(FrameError) as caught:
            stage.consume(bad)
        assert caught.value.reason == "malformed"
    stage.consume(frame(2))
    stage.close()
    assert indices(tmp_path / "a.mp4") == [0, 2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "a.avi"}, "mp4 or .mkv"),
        ({"path": "a"}, "mp4 or .mkv"),
        ({"codec": "nonesuch"}, "libx264"),
        ({"codec": "aac"}, "no video encoder"),
        ({"preset": "hasty"}, "hasty"),
        ({"path": "file/a.mp4"}, "cannot write"),
        ({"path": "folder.mp4"}, "folder"),
    ],
)
def test_open_says_what_cannot_be(tmp_path: Path, options: dict[str, str], says: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    options = {"path": "a.mp4"} | options
    options["path"] = str(tmp_path / options["path"])
    with pytest.raises(PreflightError, match=says) as caught:
        VideoWriter(**options).open()
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


# -- the disk is full, the process is killed ----------------------------------------------------


@pytest.fixture
def room() -> Iterator[Any]:
    """Sets how large a file may become."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(i: int) -> Frame:
    data = np.random.default_rng(i).integers(0, 256, (240 * 3 // 2, 320), np.uint8)
    return frame(i, image=Image(data, "i420"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_F01_without_room_frames_fail_and_a_new_file_begins_once_there_is_some(
    tmp_path: Path, room: Any, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_writer, "_RETRY_S", 0.0)
    stage = VideoWriter(path=str(tmp_path / f"a{suffix}"), gop=0.4)
    stage.open()
    failed = []
    for i in range(200):
        if i == 120:
            room(500)  # not even a header
        if i == 160:
            room(0)
        try:
            stage.consume(noise(i))
        except FrameError as error:
            assert error.reason == "disk_full"
            failed.append(i)
    stage.close()
    assert failed
    assert min(failed) >= 120
    assert max(failed) <= 160
    first, second = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert len(read(first)) >= 60
    assert len(read(second)) == 200 - 1 - max(failed)


WRITE = """
import sys
import numpy as np
from ovpipe.frame import Frame, Image
from ovpipe.stages.video_writer import VideoWriter
stage = VideoWriter(path=sys.argv[1])
stage.open()
rng = np.random.default_rng(0)
i = 0
while True:
    image = Image(rng.integers(0, 256, (144, 128), np.uint8), "i420")
    stage.consume(Frame(image=image, stream="cam", seq=i, pts_ns=i * 40_000_000))
    i += 1
    print(i, flush=True)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_F05_a_killed_writer_leaves_a_file_that_plays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = 0
    for text in process.stdout:
        seen = int(text)
        if seen >= 200:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert process.wait(60) == -signal.SIGKILL
    played = len(read(path))
    assert played >= 200 - 2 * 25 - 25  # two groups of pictures, and what the encoder looks ahead


def test_a_real_video_comes_back(tmp_path: Path) -> None:
    frames = play(Video(url=str(need("videos/carphone_pristine.mp4"))))
    feed(VideoWriter(path=str(tmp_path / "{stream}.mp4")), frames)
    again = read(tmp_path / "cam.mp4")
    assert [f.pts_ns for f in again] == pytest.approx([f.pts_ns for f in frames], abs=NS // 1000)
    for a, b in zip(frames, again, strict=True):
        assert a.image is not None
        assert b.image is not None
        assert np.abs(a.image.gray().astype(int) - b.image.gray()).mean() < 4
