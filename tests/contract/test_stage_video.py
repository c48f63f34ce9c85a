"""The video stage: every frame of every kind of file, and what is wrong with the others."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import PreflightError
from ovpipe.stages.base import LocalContext
from tests.support.data import need

av = pytest.importorskip("av")

from ovpipe.stages.video import Video  # noqa: E402
from tests.support.clips import FRAMES, clip, failed, index, picture, play  # noqa: E402

NS = 10**9
ALL = list(range(FRAMES))


def indices(stage: Video) -> list[int]:
    return [index(frame.image) for frame in play(stage) if frame.image]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv422p"),
        ("a.mov", "libx264", "yuv444p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "bgr0"),
    ],
)
@pytest.mark.parametrize("form", ["i420", "bgr", "gray"])
def test_all_frames_in_order(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, form: Any
) -> None:
    color_range = 2 if pix_fmt.startswith("yuvj") else 1
    path = clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, color_range=color_range)
    stage = Video(url=str(path), format=form)
    frames = play(stage)
    assert len(frames) == FRAMES
    assert failed(stage) == {}
    assert [frame.pts_ns for frame in frames] == pytest.approx(
        [i * NS // 25 for i in ALL], abs=NS // 1000
    )
    assert {frame.meta.get("fps") for frame in frames} == {25.0}
    images = [frame.image for frame in frames if frame.image]
    assert {(i.width, i.height, i.format) for i in images} == {(64, 48, form)}
    if form == "i420" or (form == "bgr" and color_range == 1):
        assert [index(image) for image in images] == ALL
    else:  # the brightness of the first and last, in whatever range
        assert np.ptp([image.gray().mean() for image in images]) == pytest.approx(120, abs=21)


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 5])
def test_planes_matrix_and_range_are_the_decoders(
    tmp_path: Path, colorspace: int, color_range: int
) -> None:
    path = clip(tmp_path / "a.mkv", size=(50, 38), colorspace=colorspace, color_range=color_range)
    with av.open(str(path)) as container:
        expected = [picture.to_ndarray() for picture in container.decode(video=0)]
    images = [frame.image for frame in play(Video(url=str(path)))]
    for image, planes in zip(images, expected, strict=True):
        assert image is not None
        assert np.array_equal(image.data, planes)
        assert image.matrix == ("bt709" if colorspace == 1 else "bt601")
        assert image.full_range == (color_range == 2)


def test_odd_sizes_are_carried_whole_as_bgr(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", size=(63, 47), pix_fmt="yuv444p")
    frames = play(Video(url=str(path)))
    assert {frame.image.data.shape for frame in frames if frame.image} == {(47, 63, 3)}
    assert indices(Video(url=str(path))) == ALL


@pytest.mark.parametrize("size", [(32, 24), (33, 25), (128, 96)])
def test_scaling(tmp_path: Path, size: tuple[int, int]) -> None:
    path = clip(tmp_path / "a.mp4")
    frames = play(Video(url=str(path), size=size))
    assert {(f.image.width, f.image.height) for f in frames if f.image} == {size}
    assert [index(frame.image) for frame in frames if frame.image] == ALL


def test_thinning_keeps_an_even_share_and_counts_nothing_as_lost(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4", frames=40))
    stage = Video(url=path, fps=5)
    frames = play(stage)
    assert [index(frame.image) for frame in frames if frame.image] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert failed(stage) == {}
    assert frames[0].meta == {"fps": 5.0}
    assert len(indices(Video(url=path, fps=10))) == 16
    assert len(indices(Video(url=path, fps=100))) == 40


def test_key_frames_alone(tmp_path: Path) -> None:
    assert indices(Video(url=str(clip(tmp_path / "a.mp4")), keyframes=True)) == [0, 10, 20]


def test_hardware_where_there_is_any(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4"))
    assert indices(Video(url=path, hwaccel="auto")) == ALL
    with pytest.raises(PreflightError, match="no 'abacus' here"):
        play(Video(url=path, hwaccel="abacus"))


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 220, 10), (90, 140, 200), (255, 255, 255)]


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 5])
@pytest.mark.parametrize("form", ["i420", "bgr", "rgb"])
def test_colours_are_those_that_were_filmed(
    tmp_path: Path, form: Any, colorspace: int, color_range: int
) -> None:
    path = tmp_path / "a.mkv"
    drawn = np.repeat(np.array([COLOURS], np.uint8), 16, axis=1).repeat(48, axis=0)
    kr, kb = (0.2126, 0.0722) if colorspace == 1 else (0.299, 0.114)  # the reference: BT.709, 601
    r, g, b = np.moveaxis(drawn.astype(float) / 255, 2, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    scale, low, chroma = (219, 16, 224) if color_range == 1 else (255, 0, 255)
    planes = [y * scale + low, cb * chroma + 128, cr * chroma + 128]
    yuv = np.stack([np.clip(np.round(p), 0, 255).astype(np.uint8) for p in planes])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv444p"
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame.from_ndarray(yuv, "yuv444p")
        frame.colorspace, frame.color_range = colorspace, color_range
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    image = play(Video(url=str(path), format=form))[0].image
    assert image is not None
    inner = np.arange(96).reshape(6, 16)[:, 4:12].reshape(-1)  # away from where colours meet
    assert np.abs(image.rgb().astype(int) - drawn)[:, inner].max() <= 4


def test_rounded_timestamps_do_not_thin_out_a_video_of_the_wanted_rate(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", frames=40, pts=[round(i * 1000 / 30) for i in range(40)])
    assert indices(Video(url=str(path), fps=30)) == list(range(40))


def test_start_and_duration(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4"))
    frames = play(Video(url=path, start=0.6, duration=0.2))
    assert [index(frame.image) for frame in frames if frame.image] == [15, 16, 17, 18, 19]
    assert frames[0].pts_ns == 600_000_000
    assert indices(Video(url=path, start=5)) == []


def test_loop_goes_on_with_rising_times(tmp_path: Path) -> None:
    path = str(clip(tmp_path / "a.mp4", frames=10))
    frames = play(Video(url=path, loop=True, start=0.2), limit=12)
    assert [index(f.image) for f in frames if f.image] == [5, 6, 7, 8, 9] * 2 + [5, 6]
    times = [frame.pts_ns or 0 for frame in frames]
    assert times == sorted(set(times))


def test_loop_ends_where_nothing_comes(tmp_path: Path) -> None:
    assert play(Video(url=str(clip(tmp_path / "a.mp4")), loop=True, start=100)) == []


@pytest.mark.parametrize("first", [1, 9, 10, 17, 20, 23, 47])
def test_a_successor_goes_on_where_the_first_one_died(tmp_path: Path, first: int) -> None:
    path = str(clip(tmp_path / "a.mp4", frames=10))
    whole = play(Video(url=path, loop=True), limit=60)
    rest = play(Video(url=path, loop=True), limit=60 - first, first_seq=first)
    assert [index(f.image) for f in rest if f.image] == [i % 10 for i in range(first, 60)]
    assert [f.pts_ns for f in rest] == [f.pts_ns for f in whole[first:]]
    assert indices(Video(url=path)) == ALL[:10]
    assert play(Video(url=path), first_seq=first) == [] or first < 10


@pytest.mark.parametrize("first", range(6))
def test_what_could_not_be_decoded_has_a_number_too(tmp_path: Path, first: int) -> None:
    for i in (0, 2, 3):
        picture(tmp_path / f"{i}.png", value=50 + 40 * i)
    png(tmp_path / "1.png", 64, 48)
    png(tmp_path / "4.png", 64, 48)
    stage = Video(url=str(tmp_path), format="bgr")
    left = play(stage, first_seq=first)
    values = [round(float(f.image.data.mean()) - 50) // 40 for f in left if f.image]
    assert values == [i for i in (0, 2, 3) if i >= first]
    assert failed(stage).get("decode_error", 0) == sum(i >= first for i in (1, 4))


def test_stopping_ends_at_the_next_frame(tmp_path: Path) -> None:
    stage = Video(url=str(clip(tmp_path / "a.mp4")), loop=True)
    context = LocalContext("cam")
    stage.bind(context)
    stage.open()
    seen = 0
    for _ in stage.frames():
        seen += 1
        context.stopping = seen >= 30  # others have been decoded by then
    stage.close()
    assert seen == 30


def test_D06_a_size_that_changes_in_mid_stream_is_a_new_shape(tmp_path: Path) -> None:
    small = clip(tmp_path / "a.ts").read_bytes()
    large = clip(tmp_path / "b.ts", size=(128, 96)).read_bytes()
    path = tmp_path / "c.ts"
    path.write_bytes(small + large + small)
    sizes = [frame.image.width for frame in play(Video(url=str(path))) if frame.image]
    assert list(dict.fromkeys(sizes)) == [64, 128]
    assert sizes[-1] == 64
    assert len(sizes) >= 3 * FRAMES - 2


@pytest.mark.parametrize(("degrees", "shape"), [(90, (64, 48)), (180, (48, 64)), (270, (64, 48))])
@pytest.mark.parametrize("form", ["i420", "bgr", "gray"])
def test_pictures_are_turned_upright(
    tmp_path: Path, degrees: int, shape: tuple[int, int], form: Any
) -> None:
    path = clip(tmp_path / "a.mp4", frames=2)
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="gray")
    image = play(Video(url=str(path), format=form))[0].image
    assert image is not None
    assert (image.height, image.width) == shape
    turned = np.rot90(flat, -degrees // 90)  # a positive angle turns clockwise
    assert np.abs(image.gray().astype(int) - turned).max() <= 20
    scaled = play(Video(url=str(path), format=form, size=(20, 30)))[0].image
    assert scaled is not None
    assert (scaled.width, scaled.height) == (20, 30)


# -- images ---------------------------------------------------------------------------------


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    for value, name in [(20, "img1.png"), (60, "img2.jpg"), (120, "img10.bmp"), (200, "img11.PNG")]:
        picture(tmp_path / name, value=value, size=(64, 48 + value // 60 * 2))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "img3.png").write_bytes(b"broken")
    stage = Video(url=str(tmp_path), format="bgr")
    frames = play(stage)
    assert [round(float(f.image.data.mean())) for f in frames if f.image] == pytest.approx(
        [20, 60, 120, 200], abs=2
    )
    assert failed(stage) == {"decode_error": 1}
    assert {frame.pts_ns for frame in frames} == {None}


def test_a_single_image_even_with_a_pattern_for_a_name(tmp_path: Path) -> None:
    path = picture(tmp_path / "img%03d.jpg", size=(63, 47))
    (frame,) = play(Video(url=str(path)))
    assert frame.image is not None
    assert frame.image.data.shape == (47, 63, 3)
    assert len(play(Video(url=str(path), loop=True), limit=5)) == 5


def test_names_that_are_not_utf8_and_file_urls(tmp_path: Path) -> None:
    plain = clip(tmp_path / "a b:c.mp4")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    odd.write_bytes(plain.read_bytes())
    for url in (str(odd), str(plain), plain.as_uri()):
        assert indices(Video(url=url)) == ALL


# -- real ones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("car-detection.mp4", 377),
        ("asl_gestures/book.mkv", 109),
        ("previews/classroom.gif", 45),
        ("odd/VID_20191220_170832.mp4", 41),
    ],
)
def test_real_videos(name: str, frames: int) -> None:
    stage = Video(url=str(need(f"videos/{name}")))
    seen = play(stage)
    assert len(seen) == frames
    assert failed(stage) == {}
    assert seen[0].pts_ns == 0
    times = [frame.pts_ns or 0 for frame in seen]
    assert times == sorted(set(times))


# -- what open() refuses --------------------------------------------------------------------


def png(path: Path, width: int, height: int) -> Path:
    """An image file that declares a size, and has nothing of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def giant(path: Path) -> Path:
    """A video whose header declares 65535 x 65535."""
    data = bytearray(clip(path, codec="ffv1").read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = struct.pack("<ii", 65535, 65535)
    return written(path, data)


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda d: d / "missing.mp4", "No such file"),
        (lambda d: d / "missing" / "a.mp4", "No such file"),
        (lambda d: written(d / "a.mp4", b""), "not a video"),
        (lambda d: written(d / "a.mp4", b"hello\n" * 100), "not a video"),
        (lambda d: written(d / "a.txt", b"hello\n" * 100), "not a video"),
        (lambda d: written(d / "a.mp4", bytes(range(256)) * 40), "not a video"),
        (lambda d: written(d / "a.jpg", b"\xff\xd8\xff\xe0 no more"), "not a video"),
        (lambda d: written(d / "a.m3u8", b"#EXTM3U\n#EXTINF:1,\na.ts\n"), "'"),
        (lambda d: sound(d / "a.wav"), "no video stream"),
        (lambda d: d, "no images in folder"),
        (lambda d: png(d / "a.png", 65535, 65535), "16384 pixels a side"),
        (lambda d: png(d / "a.png", 30000, 10), "30000x10"),
        (lambda d: png(d / "a.png", 100, 100), "not a video"),
        (lambda d: giant(d / "a.avi"), "16384 pixels a side"),
        (lambda d: "gopher://viewer:secret@10.0.0.1/sub", "no such kind of source"),
        (lambda d: "rtsp://viewer:secret@", "names no host"),
        (lambda d: "http://viewer:secret@127.0.0.1:9/a.mp4", "Connection refused"),
        (lambda d: "/dev/null", "device"),
        (lambda d: "", "empty"),
    ],
)
def test_D11_open_says_what_is_wrong_in_one_line(
    tmp_path: Path, capfd: Any, make: Any, says: str
) -> None:
    url = make(tmp_path)
    stage = Video(url=str(url))
    with pytest.raises(PreflightError, match=says) as caught:
        play(stage)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    assert not isinstance(url, Path) or str(url) in message
    assert capfd.readouterr().err == ""


def test_D11_a_size_beyond_bounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="20000x20"):
        play(Video(url=str(clip(tmp_path / "a.mp4")), size=(20000, 20)))


class Counting(LocalContext):
    """Counts how often it is told that the work goes on."""

    turns = 0

    def getting_on(self) -> None:
        self.turns += 1


@pytest.mark.parametrize(
    ("options", "first_seq", "given"),
    [({}, 7, 3), ({"start": 0.2}, 0, 5), ({"fps": 5}, 0, 2)],
    ids=["after a restart", "start", "fps"],
)
def test_what_is_decoded_and_left_out_is_no_hang(
    tmp_path: Path, options: dict[str, Any], first_seq: int, given: int
) -> None:
    stage = Video(url=str(clip(tmp_path / "a.mp4", 10)), **options)
    context = Counting("cam")
    context.first_seq = first_seq
    stage.bind(context)
    stage.open()
    assert len(list(stage.frames())) == given
    assert context.turns == 10 - given
    stage.close()
