"""What video-writer records of the original packets, without decoding; read back by FFmpeg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ovpipe.errors import PreflightError
from ovpipe.stages.base import LocalContext
from ovpipe.testing import run_stage

av = pytest.importorskip("av")

from ovpipe.stages import segments  # noqa: E402
from ovpipe.stages.video import Video  # noqa: E402
from ovpipe.stages.video_writer import VideoWriter  # noqa: E402
from tests.support.clips import clip, feed, play  # noqa: E402
from tests.support.recordings import frame, indices, shown, sums  # noqa: E402


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """90 known frames, with B-frames, in several codecs and containers."""
    folder = tmp_path_factory.mktemp("clips")
    b_frames = {"bf": "2", "x265-params": "log-level=error"}
    made = {
        "h264.mp4": ("libx264", {"bf": "3"}),
        "h264.mkv": ("libx264", {"bf": "3"}),
        "h264.ts": ("libx264", {"bf": "2"}),
        "hevc.mp4": ("libx265", b_frames | {"x265-params": "log-level=error:open-gop=0"}),
        "hevc.ts": ("libx265", b_frames | {"x265-params": "log-level=error:open-gop=0"}),
        "mjpeg.avi": ("mjpeg", {}),
    }
    for name, (codec, options) in made.items():
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        clip(folder / name, 90, codec=codec, codec_options=options, pix_fmt=pix_fmt,
             color_range=2 if codec == "mjpeg" else 1)  # fmt: skip
    return {name: folder / name for name in made}


NAMES = ["h264.mp4", "h264.mkv", "h264.ts", "hevc.mp4", "hevc.ts", "mjpeg.avi"]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        at = [float(picture.pts * base) for picture in container.decode(video=0)]
    return [t - at[0] for t in at]


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", NAMES)
def test_the_original_is_the_original(
    clips: dict[str, Path], tmp_path: Path, name: str, suffix: str
) -> None:
    source = clips[name]
    frames = play(Video(url=str(source), packets=True))
    assert len(frames) == 90
    feed(VideoWriter(path=f"{tmp_path}/{{stream}}{suffix}", record="original"), frames)
    copy = tmp_path / f"cam{suffix}"
    assert sums(copy) == sums(source)
    assert times(copy) == pytest.approx(times(source), abs=0.0015)
    if name.endswith(suffix):
        assert packets_of(copy) == packets_of(source)


@pytest.mark.parametrize("options", [{"keyframes": True}, {"fps": 3.0}], ids=["keyframes", "fps"])
@pytest.mark.parametrize("name", NAMES)
def test_everything_is_recorded_while_few_are_decoded(
    clips: dict[str, Path], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    frames = play(Video(url=str(clips[name]), packets=True, **options))
    assert len(frames) <= 90 if name.startswith("mjpeg") else len(frames) < 20
    feed(VideoWriter(path=f"{tmp_path}/{{stream}}.mp4", record="original"), frames)
    assert sums(tmp_path / "cam.mp4") == sums(clips[name])


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "hevc.mp4"])
def test_the_original_in_segments_and_as_hls(
    clips: dict[str, Path], tmp_path: Path, name: str
) -> None:
    source = clips[name]
    frames = play(Video(url=str(source), packets=True, keyframes=True))
    original: dict[str, Any] = {"record": "original", "segment": 1.0}
    feed(VideoWriter(path=f"{tmp_path}/rec/{{n}}.mp4", **original), frames)
    files = sorted((tmp_path / "rec").iterdir())
    assert len(files) == 3
    assert [s for f in files for s in sums(f)] == sums(source)
    feed(VideoWriter(path=f"{tmp_path}/www/index.m3u8", **original), frames)
    assert sums(tmp_path / "www" / "index.m3u8") == sums(source)
    assert len(shown(tmp_path / "www" / "index.m3u8")) == 3


def test_after_a_hole_the_next_key_frame_is_waited_for(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    source = clips["h264.mp4"]
    # A frame takes along the packets that were read before it came out, a few more of each thread.
    frames = play(Video(url=str(source), packets=True, threads=2))
    stage = VideoWriter(path=f"{tmp_path}/{{stream}}.mp4", record="original")
    result = run_stage(stage, frames[:34] + frames[36:])
    assert result.failed == {"decode_error": len(result.errors)}
    assert 0 < len(result.errors) < 10
    copy, whole = sums(tmp_path / "cam.mp4"), sums(source)
    # Groups of ten: the hole is in the fourth, whose rest is left out; the others are whole.
    assert set(copy) <= set(whole)
    assert copy[:30] == whole[:30]
    assert copy[-50:] == whole[40:]
    assert len(copy) < 90
    at = times(tmp_path / "cam.mp4")
    assert at[-1] == pytest.approx(times(source)[-1], abs=0.001)


def test_what_cannot_be_decoded_is_recorded_nevertheless(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.ts", 60)
    frames = play(Video(url=str(source), packets=True))
    spoilt = tmp_path / "b.mp4"
    with av.open(str(source)) as given, av.open(str(spoilt), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0], opaque=True)
        for i, packet in enumerate(given.demux(video=0)):
            if packet.size:
                if i in (23, 24):
                    bad = av.Packet(b"\0\0\0\1\x65" + bytes(20))
                    bad.pts, bad.dts, bad.time_base = packet.pts, packet.dts, packet.time_base
                    packet = bad
                packet.stream = stream
                made.mux(packet)
    frames = play(Video(url=str(spoilt), packets=True))
    feed(VideoWriter(path=f"{tmp_path}/{{stream}}.mp4", record="original"), frames)
    assert packets_of(tmp_path / "cam.mp4") == packets_of(spoilt)


def test_a_loop_goes_on_in_time(clips: dict[str, Path], tmp_path: Path) -> None:
    source = clips["h264.mp4"]
    frames = play(Video(url=str(source), packets=True, loop=True), limit=180)
    feed(VideoWriter(path=f"{tmp_path}/{{stream}}.mp4", record="original"), frames)
    assert sums(tmp_path / "cam.mp4")[:180] == sums(source) * 2
    at = times(tmp_path / "cam.mp4")[:180]
    assert at == pytest.approx([i / 25 for i in range(180)], abs=0.001)


def test_frames_without_packets_are_told_what_is_missing(tmp_path: Path) -> None:
    stage = VideoWriter(path=f"{tmp_path}/a.mp4", record="original")
    with pytest.raises(PreflightError, match="packets: true"):
        run_stage(stage, [frame(0)])


def test_the_original_goes_on_in_another_file_at_a_key_frame(
    clips: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, kept = tmp_path / "a.mp4", tmp_path / "kept.mp4"
    stage = VideoWriter(path=str(path), record="original")
    stage.bind(LocalContext())
    stage.open()
    for i, one in enumerate(play(Video(url=str(clips["h264.mp4"]), packets=True))):
        if i == 40:
            path.rename(kept)
        stage.consume(one)
    stage.close()
    assert indices(path)
    assert sums(kept) + sums(path) == sums(clips["h264.mp4"])
    assert caplog.text.count("was moved or deleted") == 1


def test_a_codec_that_the_container_does_not_take(clips: dict[str, Path], tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 5, codec="libvpx")
    frames = play(Video(url=str(source), packets=True))
    with pytest.raises(PreflightError, match=r"vp8, which does not go into mp4; try \.mkv"):
        run_stage(VideoWriter(path=f"{tmp_path}/b.mp4", record="original"), frames)
    feed(VideoWriter(path=f"{tmp_path}/b.mkv", record="original"), frames)
    assert sums(tmp_path / "b.mkv") == sums(source)


def test_room_is_made_for_the_original_too(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full once: the oldest file goes, and nothing of the new ones is lost."""
    full = False

    class Narrow(segments.File):
        def write(self, data: Any) -> int:
            nonlocal full
            if full:
                full = False
                assert self._room(OSError(28, "No space left on device"))
            return super().write(data)

    monkeypatch.setattr(segments, "File", Narrow)
    frames = play(Video(url=str(clips["h264.mp4"]), packets=True))
    stage = VideoWriter(
        path=f"{tmp_path}/{{n}}.mp4", record="original", segment=1.0, keep={"size": 10**9}
    )
    stage.bind(LocalContext())
    stage.open()
    for i, one in enumerate(frames):
        full = full or i == 55
        stage.consume(one)
    stage.close()
    files = sorted(tmp_path.iterdir(), key=lambda p: int(p.stem))
    assert [f.name for f in files] == ["2.mp4", "3.mp4"]
    assert sums(files[0]) + sums(files[1]) == sums(clips["h264.mp4"])[30:]
