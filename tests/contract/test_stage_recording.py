"""What video-writer records: segments, what stays of them, HLS; each read back by FFmpeg."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext

av = pytest.importorskip("av")

from ovpipe.stages import hls, segments, video_writer  # noqa: E402
from ovpipe.stages.video_writer import VideoWriter  # noqa: E402
from tests.support.clips import feed  # noqa: E402
from tests.support.recordings import frame, indices, keys, shown  # noqa: E402

NS = 10**9


class Wall:
    """A wall clock to be set."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def writer(wall: Wall | None = None, **options: Any) -> VideoWriter:
    stage = VideoWriter(**options)
    stage._wall_s = wall
    return stage


# -- segments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_for_each_second(tmp_path: Path, suffix: str) -> None:
    path = f"{tmp_path}/{{stream}}/{{n:03}}{suffix}"
    frames = [frame(i, s) for i in range(90) for s in ("a", "b/c")]
    feed(writer(path=path, segment=1.0), frames)
    for stream in ("a", "b_c"):
        files = sorted((tmp_path / stream).iterdir())
        assert [f.name for f in files] == [f"00{n}{suffix}" for n in (1, 2, 3, 4)]
        assert [indices(f) for f in files] == [
            [i % 40 for i in range(first, min(first + 25, 90))] for first in (0, 25, 50, 75)
        ]
        assert [keys(f)[0] for f in files] == [0.0] * 4


def test_what_comes_rarely_or_without_a_time_ends_files_too(tmp_path: Path) -> None:
    rare = [frame(i, pts_ns=i * 10 * NS) for i in range(3)]
    feed(writer(path=f"{tmp_path}/rare-{{n}}.mp4", segment=1.0), rare)
    timeless = [frame(i, pts_ns=None) for i in range(60)]
    feed(writer(path=f"{tmp_path}/timeless-{{n}}.mp4", segment=1.0), timeless)
    stuck = [frame(i, pts_ns=0) for i in range(60)]
    feed(writer(path=f"{tmp_path}/stuck-{{n}}.mp4", segment=1.0), stuck)
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == [f"{kind}-{n}.mp4" for kind in ("rare", "stuck", "timeless") for n in (1, 2, 3)]


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 365 * 86400.0])
def test_G01_the_wall_clock_jumps(tmp_path: Path, jump: float) -> None:
    """Nothing is overwritten, no file is empty or without end, and none is deleted for it."""
    wall = Wall()
    stage = writer(
        wall, path=f"{tmp_path}/{{time:%Y%m%d-%H%M%S}}.mp4", segment=1.0, utc=True,
        keep={"age": 3600.0}, overwrite=False,
    )  # fmt: skip
    stage.bind(LocalContext())
    stage.open()
    for i in range(150):
        if i == 60:
            wall.now += jump
        stage.consume(frame(i, captured_ns=-1))
        wall.now += 0.04
    stage.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [len(indices(f)) for f in files] == [25] * 6
    assert [i for f in files for i in indices(f)] == [i % 40 for i in range(150)]


def test_a_clock_that_stands_still_takes_free_names(tmp_path: Path) -> None:
    for overwrite in (False, True):
        folder = tmp_path / str(overwrite)
        path = f"{folder}/{{time:%H%M}}.mp4"
        feed(writer(Wall(), path=path, segment=1.0, overwrite=overwrite),
             [frame(i) for i in range(75)])  # fmt: skip
        files = sorted(folder.iterdir(), key=lambda p: (len(p.name), p.name))
        assert [indices(f)[0] for f in files] == [0, 25, 50 % 40]


def test_another_run_goes_on_with_the_numbers(tmp_path: Path) -> None:
    path = f"{tmp_path}/{{stream}}-{{n}}.mp4"
    feed(writer(path=path, segment=1.0), [frame(i) for i in range(50)])
    (tmp_path / "cam-1.mp4").unlink()
    feed(writer(path=path, segment=1.0), [frame(i) for i in range(26)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cam-2.mp4", "cam-3.mp4", "cam-4.mp4"]


def test_names_say_what_was_seen_and_when(tmp_path: Path) -> None:
    from ovpipe.detections import Detections

    found = Detections(
        np.zeros((2, 4), np.float32), np.array([0.4, 0.9], np.float32), np.array([0, 1]),
        labels={0: "a cat", 1: "../dog"},
    )  # fmt: skip
    path = f"{tmp_path}/{{seq:04}}-{{label}}.mp4"
    feed(writer(path=path, segment=1.0), [frame(7, detections=found), frame(40)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0007-_dog.mp4", "0040-none.mp4"]


# -- what stays ---------------------------------------------------------------------------------


def noise(i: int) -> Frame:
    data = np.random.default_rng(i).integers(0, 256, (144, 128), np.uint8)
    return frame(i, image=Image(data, "i420"))


def test_the_oldest_files_go_as_new_ones_come(tmp_path: Path) -> None:
    precious = tmp_path / "rec" / "notes.mp4"
    precious.parent.mkdir()
    precious.write_bytes(bytes(10**6))
    path = f"{tmp_path}/rec/{{stream}}/{{n:02}}.mp4"
    feed(writer(path=path, segment=1.0, keep={"size": 700_000}), [noise(i) for i in range(200)])
    files = sorted((tmp_path / "rec" / "cam").iterdir())
    assert len(files) < 8
    assert sum(f.stat().st_size for f in files[:-1]) <= 700_000
    assert files[-1].name == "08.mp4"
    assert precious.exists()
    feed(writer(path=path, segment=1.0, keep={"size": 1}), [noise(i) for i in range(3)])
    assert [p.name for p in (tmp_path / "rec" / "cam").iterdir()] == ["09.mp4"]


# -- HLS ----------------------------------------------------------------------------------------


def test_hls_plays_back(tmp_path: Path) -> None:
    path = f"{tmp_path}/www/{{stream}}/index.m3u8"
    feed(writer(path=path, segment=1.0), [frame(i, s) for i in range(90) for s in ("a", "b")])
    for stream in "ab":
        playlist = tmp_path / "www" / stream / "index.m3u8"
        assert indices(playlist) == [i % 40 for i in range(90)]
        assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
        assert len(shown(playlist)) == 4
        durations = [float(d) for d in re.findall(r"#EXTINF:(.*),", playlist.read_text())]
        assert durations == pytest.approx([1.0, 1.0, 1.0, 0.6], abs=0.01)


def test_hls_shows_a_window_and_deletes_what_left_it(tmp_path: Path) -> None:
    playlist = tmp_path / "index.m3u8"
    (tmp_path / "index-mine.m4s").write_text("mine")
    stage = writer(path=str(playlist), segment=0.4, gop=0.4, window=2.0)
    stage.open()
    most = 0
    for i in range(400):
        stage.consume(frame(i))
        if playlist.exists():
            assert len(shown(playlist)) <= 6
            assert "ENDLIST" not in playlist.read_text()
        most = max(most, len(list(tmp_path.iterdir())))
    assert most < 20
    stage.close()
    assert "#EXT-X-MEDIA-SEQUENCE:35\n" in playlist.read_text()
    assert indices(playlist) == [i % 40 for i in range(350, 400)]
    assert (tmp_path / "index-mine.m4s").exists()


def test_F05_hls_goes_on_after_a_death(tmp_path: Path) -> None:
    playlist = tmp_path / "index.m3u8"
    first = writer(path=str(playlist), segment=1.0)
    first.open()
    for i in range(85):
        first.consume(frame(i))
    before = shown(playlist)
    assert len(before) == 2  # the third is in the encoder's hands; no close: it died
    second = writer(path=str(playlist), segment=1.0)
    second.open()
    for i in range(60):
        second.consume(frame(i))
    text = playlist.read_text()
    assert shown(playlist)[:2] == before
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    assert "#EXT-X-MEDIA-SEQUENCE:0\n" in text
    second.close()
    assert len(shown(playlist)) == 5
    assert not list(tmp_path.glob(".*.part"))
    third = writer(path=str(playlist), segment=1.0)  # after a clean end: from the first
    feed(third, [frame(i) for i in range(30)])
    assert "#EXT-X-MEDIA-SEQUENCE:5\n" in playlist.read_text()
    assert indices(playlist) == list(range(30))
    assert not set(shown(playlist)) & set(before)
    del first


def test_hls_tells_of_another_size(tmp_path: Path) -> None:
    playlist = tmp_path / "index.m3u8"
    frames = [frame(i, size=(64, 48) if i < 30 else (128, 96)) for i in range(60)]
    feed(writer(path=str(playlist), segment=1.0), frames)
    text = playlist.read_text()
    assert text.count("#EXT-X-MAP") == 2
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    # FFmpeg's own reader of playlists keeps to the first header: each part is read by itself.
    sizes = []
    for header, *names in (part.split("\n") for part in text.split('URI="')[1:]):
        first = (tmp_path / header.rstrip('"')).read_bytes()
        rest = [(tmp_path / name).read_bytes() for name in names if name and name[0] != "#"]
        with av.open(io.BytesIO(b"".join((first, *rest)))) as container:
            sizes += [picture.width for picture in container.decode(video=0)]
    assert sizes == [64] * 30 + [128] * 30


def test_F01_hls_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that finds none is not shown; the next ones are, after a break."""
    monkeypatch.setattr(video_writer, "_RETRY_S", 0.0)
    full = False

    class Narrow(segments.File):
        def write(self, data: Any) -> int:
            if full:
                self.error = OSError(28, "No space left on device")
                raise self.error
            return super().write(data)

    monkeypatch.setattr(hls, "File", Narrow)
    playlist = tmp_path / "index.m3u8"
    stage = writer(path=str(playlist), segment=0.4, gop=0.4)
    stage.open()
    failed = []
    for i in range(200):
        full = 80 <= i < 120
        try:
            stage.consume(frame(i))
        except FrameError as error:
            assert error.reason == "disk_full"
            failed.append(i)
    stage.close()
    assert failed
    assert playlist.read_text().count("#EXT-X-DISCONTINUITY\n") == 1
    seen = indices(playlist)
    assert seen[:40] == list(range(40))
    assert seen[-1] == 199 % 40
    assert not list(tmp_path.glob(".*"))


def test_hls_of_two_streams_needs_two_paths(tmp_path: Path) -> None:
    stage = writer(path=str(tmp_path / "index.m3u8"))
    stage.open()
    stage.consume(frame(0, "a"))
    with pytest.raises(PreflightError, match=r"put \{stream\} into it"):
        stage.consume(frame(0, "b"))
    stage.close()


# -- what is moved or deleted while it is written ----------------------------------------------


def told(caplog: pytest.LogCaptureFixture, path: Path) -> bool:
    """Once, and nothing else."""
    said = [one.getMessage() for one in caplog.records]
    return said == [f"cam: '{path}' was moved or deleted while it was written"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("how", ["renamed", "deleted", "folder deleted"])
def test_a_file_that_is_moved_or_deleted_is_followed_by_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, suffix: str, overwrite: bool
) -> None:
    path, kept = tmp_path / "out" / f"a{suffix}", tmp_path / f"kept{suffix}"
    stage = writer(path=str(path), overwrite=overwrite)
    stage.open()
    for i in range(40):
        if i == 17:
            match how:
                case "renamed":
                    path.rename(kept)
                case "deleted":
                    path.unlink()
                case _:
                    shutil.rmtree(path.parent)
        stage.consume(frame(i))
    stage.close()
    assert indices(path) == list(range(17, 40))
    assert how != "renamed" or indices(kept) == list(range(17))  # what the encoder held, too
    assert list(path.parent.iterdir()) == [path]
    assert told(caplog, path)


def test_a_file_that_is_moved_at_the_end_is_whole_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mp4"
    stage = writer(path=str(path))
    stage.open()
    for i in range(10):
        stage.consume(frame(i))
    path.rename(tmp_path / "b.mp4")
    path.write_text("somebody else's")
    stage.close()
    assert indices(tmp_path / "b.mp4") == list(range(10))
    assert path.read_text() == "somebody else's"
    assert told(caplog, path)


def test_the_folder_of_segments_is_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "rec"
    stage = writer(path=f"{folder}/{{stream}}/{{n}}.mp4", segment=1.0, keep={"age": 3600.0})
    stage.bind(LocalContext())
    stage.open()
    for i in range(75):
        if i == 35:
            shutil.rmtree(folder)
        stage.consume(frame(i))
    stage.close()
    files = sorted((folder / "cam").iterdir())
    assert [f.name for f in files] == ["3.mp4", "4.mp4"]
    assert [i for f in files for i in indices(f)] == [i % 40 for i in range(35, 75)]
    assert told(caplog, folder / "cam" / "2.mp4")


def test_a_folder_that_cannot_be_made_again_ends_it(tmp_path: Path) -> None:
    for name in ("a.mp4", "index.m3u8"):
        folder = tmp_path / name / "out"
        stage = writer(path=f"{folder}/{name}")
        stage.open()
        stage.consume(frame(0))
        shutil.rmtree(folder)
        folder.touch()
        with pytest.raises(PreflightError, match="cannot write to"):
            stage.consume(frame(1))
        stage.close()
        assert folder.is_file()


@pytest.mark.parametrize("at", [5, 85])
@pytest.mark.parametrize("how", ["folder deleted", "folder renamed", "visible files deleted"])
def test_hls_of_which_the_folder_is_deleted_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, at: int
) -> None:
    playlist = tmp_path / "www" / "index.m3u8"
    stage = writer(path=str(playlist), segment=1.0)
    stage.open()
    before: set[str] = set()
    for i in range(160):
        if i == at:
            before = {f.name for f in playlist.parent.iterdir() if f.name != playlist.name}
            match how:
                case "folder deleted":
                    shutil.rmtree(playlist.parent)
                case "folder renamed":
                    playlist.parent.rename(tmp_path / "kept")
                case _:
                    for path in playlist.parent.glob("[!.]*"):
                        path.unlink()
        stage.consume(frame(i))
    stage.close()
    if how == "visible files deleted" and at == 5:  # there were none yet
        assert not caplog.records
        assert indices(playlist) == [i % 40 for i in range(160)]
        return
    assert told(caplog, playlist)
    assert indices(playlist) == [i % 40 for i in range(at, 160)]
    text = playlist.read_text()
    shown_before = 2 if at == 85 else 0  # the third was in the encoder's hands
    assert f"#EXT-X-MEDIA-SEQUENCE:{shown_before}\n" in text
    assert not before & set(shown(playlist))
    assert not list(playlist.parent.glob(".*"))
    if how == "folder renamed" and shown_before:
        kept = tmp_path / "kept" / "index.m3u8"
        with kept.open("a") as file:
            file.write("#EXT-X-ENDLIST\n")  # else FFmpeg waits for more
        assert indices(kept) == [i % 40 for i in range(50)]


def test_hls_of_which_the_folder_is_deleted_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    playlist = tmp_path / "www" / "index.m3u8"
    stage = writer(path=str(playlist), segment=1.0)
    stage.open()
    for i in range(30):
        stage.consume(frame(i))
    shutil.rmtree(playlist.parent)
    stage.close()
    assert told(caplog, playlist)
    assert not playlist.parent.exists()


def test_hls_of_which_the_folder_is_deleted_between_two_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: just as a segment gets its name."""
    playlist = tmp_path / "www" / "index.m3u8"
    whole = hls.Show._whole
    names = 0

    def late(show: hls.Show) -> str:
        nonlocal names
        names += 1
        if names == 3:  # the header's, the first segment's
            shutil.rmtree(playlist.parent)
        return whole(show)

    monkeypatch.setattr(hls.Show, "_whole", late)
    stage = writer(path=str(playlist), segment=1.0)
    stage.open()
    for i in range(160):
        stage.consume(frame(i))
    stage.close()
    assert told(caplog, playlist)
    seen = indices(playlist)
    assert seen == [i % 40 for i in range(160)][-len(seen) :]
    assert len(seen) >= 50
    assert shown(playlist)


# -- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "{day}.mp4"}, "no {day}; there are {stream}"),
        ({"path": "{time:%H}/index.m3u8"}, "no {time}; there are {stream}"),
        ({"path": "a.mp4", "keep": {"age": 5.0}}, "needs `segment`"),
        ({"path": "a.m3u8", "keep": {"age": 5.0}}, "its `window`"),
        ({"path": "a.mp4", "username": "u"}, "are for an address"),
        ({"path": "http://host/a"}, "'http://...': a stream is published at rtsp://"),
        ({"path": "rtsp://host/a", "segment": 5.0}, "an address has neither"),
        ({"path": "rtsp://"}, "names no host"),
        ({"path": "rtmp://u:secret@host/a", "username": "u"}, "leave those in the url out"),
        ({"path": "rtmp://host/a", "codec": "libvpx-vp8", "preset": ""}, "no video encoder"),
        ({"path": "rtmp://host/a", "codec": "mjpeg"}, "does not write to flv"),
    ],
)
def test_open_says_what_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PreflightError, match=re.escape(says)) as caught:
        VideoWriter(**options).open()
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_one_address_is_for_one_stream() -> None:
    stage = VideoWriter(path="rtsp://host/a")
    stage.bind(LocalContext(inputs={"cam": ("cam/a", "cam/b")}))
    with pytest.raises(PreflightError, match="2 streams cannot be published at one address"):
        stage.open()
