"""The video stage on damaged files: what can be decoded is, and each packet of the rest is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.data import need

av = pytest.importorskip("av")

from ovpipe.stages.video import Video  # noqa: E402
from tests.support.clips import clip, failed, index, play  # noqa: E402


def indices(stage: Video) -> list[int]:
    return [index(frame.image) for frame in play(stage) if frame.image]


def packets(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def spoil(path: Path, *numbers: int) -> None:
    """Make packets of a file that has its index in front unreadable."""
    data = bytearray(path.read_bytes())
    for packet in [packets(path)[number] for number in numbers]:
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)


def test_D08_a_damaged_packet_is_counted_and_the_rest_goes_on(tmp_path: Path, capfd: Any) -> None:
    path = clip(tmp_path / "a.mp4", frames=40, options={"movflags": "faststart"})
    spoil(path, 12)
    stage = Video(url=str(path))
    frames = play(stage)
    assert failed(stage) == {"decode_error": 1}
    assert len(frames) == 39
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("a.mkv", "libx264", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
def test_D08_a_truncated_file_gives_what_it_has_and_the_rest_is_counted(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path / name, frames=40, codec=codec, options=options)
    last = packets(path)[20]
    path.write_bytes(path.read_bytes()[: last.pos + last.size // 2])
    stage = Video(url=str(path))
    found = indices(stage)
    assert found == list(range(len(found)))
    assert 10 <= len(found) <= 21
    lost = failed(stage)["decode_error"]
    # FFmpeg gives a half packet or none; what it gives, and does not decode, is lost with those
    # pictures that wait for their turn behind it.
    assert lost == 1 or len(found) + lost == 21


def test_D08_real_damage() -> None:
    stage = Video(url=str(need("videos/odd/movie-hello.ogg")))
    assert len(play(stage)) == 242
    assert failed(stage) == {"decode_error": 7}


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize(
    "spoiled",
    [(39,), (38, 39), (36, 38), (10, 11), (5, 20, 37), tuple(range(30, 40))],
    ids=["last", "last two", "near the end", "a key frame", "three", "all of the end"],
)
def test_D08_no_packet_is_lost_uncounted_whoever_decodes(
    tmp_path: Path, threads: int, b_frames: int, spoiled: tuple[int, ...]
) -> None:
    options = {"movflags": "faststart"}
    path = clip(tmp_path / "a.mp4", 40, options=options, codec_options={"bf": str(b_frames)})
    spoil(path, *spoiled)
    stage = Video(url=str(path), threads=threads)
    given = len(play(stage))
    lost = failed(stage)["decode_error"]
    assert given + lost == 40
    assert lost >= len(spoiled)


def test_D08_and_each_round_of_a_loop_counts_anew(tmp_path: Path) -> None:
    path = clip(
        tmp_path / "a.mp4", 20, options={"movflags": "faststart"}, codec_options={"bf": "0"}
    )
    spoil(path, 19)
    stage = Video(url=str(path), loop=True)
    assert len(play(stage, limit=19 * 3 + 1)) == 58
    assert failed(stage) == {"decode_error": 3}


@pytest.mark.parametrize("options", [{"start": 0.5}, {"keyframes": True}, {"duration": 0.5}])
def test_what_is_not_asked_for_is_no_loss(tmp_path: Path, options: dict[str, Any]) -> None:
    path = clip(tmp_path / "a.mp4", 40, codec_options={"bf": "3", "x264-params": "open-gop=1"})
    stage = Video(url=str(path), **options)
    assert play(stage)
    assert failed(stage) == {}


@pytest.mark.parametrize(
    ("name", "codec", "codec_options"),
    [
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("a.mkv", "libx265", {"x265-params": "log-level=none:open-gop=1:keyint=10"}),
        ("a.ts", "libx264", {"x264-params": "tff=1:keyint=10"}),
        ("a.ts", "mpeg2video", {"bf": "2"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
    ],
    ids=["packets not to be shown", "open groups", "interlaced", "mpeg2", "mpeg4"],
)
@pytest.mark.parametrize("threads", [0, 4])
def test_whole_files_have_no_losses(
    tmp_path: Path, name: str, codec: str, codec_options: dict[str, str], threads: int
) -> None:
    path = clip(tmp_path / name, 60, codec=codec, codec_options=codec_options)
    stage = Video(url=str(path), threads=threads)
    assert len(play(stage)) == 60
    assert failed(stage) == {}
