"""The video stage on live sources: real protocols on loopback, frames known by their brightness."""

from __future__ import annotations

import base64
import functools
import http.server
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

av = pytest.importorskip("av")

from ovpipe.errors import PreflightError  # noqa: E402
from ovpipe.stages.address import address, how_to_open  # noqa: E402
from ovpipe.stages.base import LocalContext  # noqa: E402
from ovpipe.stages.camera import Timing  # noqa: E402
from ovpipe.stages.feed import Feed  # noqa: E402
from ovpipe.stages.media import open_address  # noqa: E402
from ovpipe.stages.video import Video  # noqa: E402
from ovpipe.stages.watch import Watch  # noqa: E402
from tests.support.clips import FRAMES, clip, failed, index, play  # noqa: E402
from tests.support.processes import open_fds, wait_for  # noqa: E402
from tests.support.rtsp import Server  # noqa: E402

PASSWORD = "p@ss:/%é&?#"  # all that a URL would take for its own
QUICK = Timing(5.0, 20.0, 0.001, 0.001, 0.001, 0.0)


@contextmanager
def serving(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def rtsp() -> Iterator[str]:
    with serving(Server(fps=50)) as port:
        yield f"rtsp://127.0.0.1:{port}"


def numbers(frames: list[Any]) -> list[int]:
    return [index(frame.image) for frame in frames]


def rises(frames: list[Any]) -> bool:
    times = [frame.pts_ns for frame in frames]
    captured = [frame.captured_ns for frame in frames]
    return times[0] == 0 and times == sorted(set(times)) and captured == sorted(captured)


def following(found: list[int]) -> bool:
    return all((b - a) % 40 == 1 for a, b in itertools.pairwise(found))


# -- RTSP -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp(rtsp: str, transport: Any) -> None:
    stage = Video(url=f"{rtsp}/live/a", transport=transport)
    assert stage.live is True
    frames = play(stage, limit=30)
    assert following(numbers(frames))
    assert rises(frames)
    assert failed(stage) == {}


def test_a_name_and_a_password_with_every_odd_sign() -> None:
    with serving(Server(user="vi ewer@home", password=PASSWORD)) as port:
        url = f"rtsp://127.0.0.1:{port}/live/a"
        assert len(play(Video(url=url, username="vi ewer@home", password=PASSWORD), limit=3)) == 3


def test_D06_the_size_changes_in_mid_stream_and_every_frame_fits_its_pixels(rtsp: str) -> None:
    frames = play(Video(url=f"{rtsp}/odd/a"), limit=110)
    sizes = [frame.image.data.shape for frame in frames if frame.image]
    assert list(dict.fromkeys(sizes)) == [(72, 64), (144, 128)]
    assert sizes[-1] == (72, 64)
    assert following(numbers(frames))


def test_D09_timestamps_that_jump_repeat_and_overflow(rtsp: str) -> None:
    stage = Video(url=f"{rtsp}/jump/a")
    frames = play(stage, limit=60)
    assert rises(frames)
    assert following(numbers(frames))
    assert failed(stage) == {}


def test_thinning_and_scaling_and_key_frames(rtsp: str) -> None:
    frames = play(Video(url=f"{rtsp}/live/a", fps=10, size=(32, 24)), limit=8)
    assert {frame.image.data.shape for frame in frames if frame.image} == {(36, 32)}
    assert {(b - a) % 40 for a, b in itertools.pairwise(numbers(frames))} <= {4, 5, 6}
    keys = numbers(play(Video(url=f"{rtsp}/live/a", keyframes=True), limit=4))
    assert {n % 10 for n in keys} == {0}


def test_D04_an_end_is_a_disconnect(rtsp: str, caplog: Any) -> None:
    frames = play(Video(url=f"{rtsp}/short/a"), limit=11)
    assert numbers(frames)[:11] == [*range(10), 0]
    assert rises(frames)
    assert "camera reconnecting: the source ended the stream" in caplog.text


def test_D01_silence_is_a_stall_and_the_source_is_rebuilt(rtsp: str, caplog: Any) -> None:
    frames = play(Video(url=f"{rtsp}/silent/a", timeout=0.7), limit=11)
    assert numbers(frames)[:11] == [*range(10), 0]
    assert "camera stalled" in caplog.text or "no answer in time" in caplog.text
    assert rises(frames)


def test_D05_a_wrong_password_is_told_and_never_shown(caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(Server(user="viewer", password="right")) as port:
        url = f"rtsp://127.0.0.1:{port}/live/a?token=s3cret"
        stage = Video(url=url, username="viewer", password="s3cret wrong")
        stage.bind(Until("auth_failed", caplog))
        stage.open()
        assert list(stage.frames()) == []
        stage.close()
    assert "401" in caplog.text
    shown = caplog.text + "".join(capfd.readouterr()) + repr(stage) + repr(vars(stage)["_source"])
    assert "s3cret" not in shown


class Until(LocalContext):
    """Stops when the log says so."""

    def __init__(self, text: str, caplog: Any) -> None:
        super().__init__("cam")
        self.text, self.caplog = text, caplog

    def waiting(self) -> None:
        self.stopping = self.text in self.caplog.text


class Stopping(LocalContext):
    """Stops after so many turns of waiting."""

    def __init__(self, turns: int) -> None:
        super().__init__("cam")
        self.turns = turns

    def waiting(self) -> None:
        self.turns -= 1
        self.stopping = self.turns <= 0


def test_D01_a_source_that_accepts_and_never_answers_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        stage = Video(url=f"rtsp://127.0.0.1:{mute.getsockname()[1]}/a", timeout=1000)
        stage.bind(Stopping(8))
        stage.open()
        assert list(stage.frames()) == []
        stage.close()
    wait_for(lambda: not feeds(), "the end of the abandoned read")


def feeds() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_D01_nobody_there(caplog: Any) -> None:
    stage = Video(url="rtsp://127.0.0.1:9/a")
    stage.bind(Until("Connection refused", caplog))
    stage.open()
    assert list(stage.frames()) == []


def test_D01_descriptors_and_threads_are_flat_over_many_connections(rtsp: str) -> None:
    """As it is in a long night: each connection sends ten frames, and ends."""
    where = address(f"{rtsp}/short/a")
    connect = functools.partial(open_address, where.shown, how_to_open(where, "tcp", 5.0, {}), 5.0)
    feed = functools.partial(Feed, connect, endless=True, keyframes=False)
    watch: Watch[Any] = Watch(LocalContext("cam"), where.shown, feed, QUICK)
    fds: list[int] = []
    resident: list[int] = []
    for _ in watch.frames():
        if watch.camera.attempts > len(fds):
            fds.append(len(open_fds()))
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]))
            assert len(feeds()) <= 1
        if watch.camera.attempts == 40:
            break
    watch.close()
    wait_for(lambda: not feeds(), "the end of the last connection")
    # The server's thread of the last connection may close its own a little later.
    assert min(fds[20:]) <= max(fds[:20]), fds
    assert resident[-1] - resident[10] < 2**20 * 8 / os.sysconf("SC_PAGE_SIZE")


# -- other ways to come in ------------------------------------------------------------------


class Web(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; below /private, only to those who say the password."""

    def do_GET(self) -> None:
        right = "Basic " + base64.b64encode(f"viewer:{PASSWORD}".encode()).decode()
        if self.path.startswith("/private") and self.headers.get("Authorization") != right:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    (tmp_path / "private").mkdir()
    handler = functools.partial(Web, directory=str(tmp_path))
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        yield tmp_path, f"http://127.0.0.1:{port}"


def test_a_file_over_http_is_a_file(web: tuple[Path, str]) -> None:
    folder, url = web
    clip(folder / "a.mp4")
    clip(folder / "private" / "a.mp4")
    stage = Video(url=f"{url}/a.mp4")
    assert stage.live is False
    assert numbers(play(stage)) == list(range(FRAMES))
    assert len(play(Video(url=f"{url}/a.mp4", start=0.6, loop=True), limit=25)) == 25
    locked = f"{url}/private/a.mp4"
    assert len(play(Video(url=locked, username="viewer", password=PASSWORD))) == FRAMES
    with pytest.raises(PreflightError, match="401") as caught:
        play(Video(url=locked, username="viewer", password="s3cret"))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(PreflightError, match="404"):
        play(Video(url=f"{url}/none.mp4"))


def test_hls_that_has_an_end_ends_there(web: tuple[Path, str], caplog: Any) -> None:
    folder, url = web
    clip(folder / "a.m3u8", options={"hls_time": "0.4"})
    assert len(list(folder.glob("*.ts"))) > 1
    frames = play(Video(url=f"{url}/a.m3u8"))
    assert numbers(frames) == list(range(FRAMES))
    assert "camera ended: the source has ended" in caplog.text
    assert numbers(play(Video(url=f"{url}/a.m3u8", live=False))) == list(range(FRAMES))


def test_a_playlist_of_the_network_reads_no_local_file(web: tuple[Path, str]) -> None:
    folder, url = web
    secret = clip(folder.parent / "secret.ts")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    (folder / "a.m3u8").write_text(text)
    with pytest.raises(PreflightError):
        play(Video(url=f"{url}/a.m3u8", live=False))


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("scheme", "form"), [("rtmp", "flv"), ("udp", "mpegts")])
def test_who_publishes_to_us_is_a_live_source(scheme: str, form: str) -> None:
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    url = f"{scheme}://127.0.0.1:{free_port(kind)}" + ("/live/a" if scheme == "rtmp" else "")
    publisher = subprocess.Popen([sys.executable, "-m", "tests.support.publish", url, form])
    try:
        stage = Video(url=url, options={"listen": "1"} if scheme == "rtmp" else {})
        assert stage.live is True
        frames = play(stage, limit=20)
    finally:
        publisher.kill()
        publisher.wait()
    assert following(numbers(frames))
    assert rises(frames)


def test_a_camera_that_is_not_plugged_in_is_waited_for(caplog: Any) -> None:
    stage = Video(url="/dev/video-none")
    assert stage.live is True
    stage.bind(Until("No such", caplog))
    stage.open()
    assert list(stage.frames()) == []
    assert "camera connecting: No such file or directory (/dev/video-none)" in caplog.text


# -- what open() refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "rtsp://10.0.0.1/a", "loop": True}, "is live: it has no loop"),
        ({"url": "rtsp://u:s3cret@10.0.0.1/a", "username": "v", "password": "w"}, "of their own"),
        ({"url": "rtsp://10.0.0.1/a", "password": "s3cret"}, "password without username"),
        ({"url": "rtsp://u:s3cret@10.0.0.1:port/a"}, "no valid address"),
        ({"url": "a.mp4", "username": "u", "password": "s3cret"}, "not for files"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_secret(options: Any, says: str) -> None:
    with pytest.raises(PreflightError, match=says) as caught:
        play(Video(**options))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "live"),
    [
        ("a.mp4", False),
        ("file:a.mp4", False),
        ("/dev/video0", True),
        ("RTSP://10.0.0.1/a.mp4", True),
        ("http://10.0.0.1/a.mp4?token=1", False),
        ("https://10.0.0.1/cam.mjpg", True),
        ("https://10.0.0.1/index.m3u8", True),
        ("", False),
    ],
)
def test_live_or_file_is_told_by_the_url(url: str, live: bool) -> None:
    assert Video(url=url).live is live
    assert Video(url=url, live=not live).live is not live
