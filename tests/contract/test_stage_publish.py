"""Publishing: servers that come, go, hang and refuse; nothing waits for them."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import FrameError
from ovpipe.frame import Frame, Image

av = pytest.importorskip("av")

from ovpipe.stages import publish  # noqa: E402
from ovpipe.stages.base import LocalContext  # noqa: E402
from ovpipe.stages.packets import parcel_of  # noqa: E402
from ovpipe.stages.video import Video  # noqa: E402
from ovpipe.stages.video_writer import VideoWriter  # noqa: E402
from tests.support.clips import clip, level, play  # noqa: E402
from tests.support.processes import family, gone, relays, wait_for  # noqa: E402

NS = 10**9


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Listener:
    """Somebody who takes what is published; its lines in a file."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.path = folder / f"heard-{time.monotonic_ns()}"
        with open(self.path, "w") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def heard(self) -> list[int]:
        return [int(x) for x in self.path.read_text().splitlines() if x.lstrip("-").isdigit()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Any]:
    started: list[Listener] = []

    def start(url: str) -> Listener:
        started.append(Listener([sys.executable, "-m", "tests.support.listen", url], tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    patient = publish.Timing
    monkeypatch.setattr(
        publish, "Timing",
        lambda silence_s, patience_s: patient(
            silence_s, patience_s, first_wait_s=0.1, longest_wait_s=0.2, spread_s=0.0
        ),
    )  # fmt: skip


class Feeder:
    """A stage that is given frames at their pace, and what became of them."""

    def __init__(self, stage: VideoWriter, frames: list[Frame] | None = None) -> None:
        self.stage, self.frames = stage, frames
        self.sent = 0
        self.outcomes: list[str] = []
        stage.bind(LocalContext("push"))
        stage.open()

    def step(self) -> str:
        """One frame more."""
        if self.frames is not None:
            one = self.frames[self.sent % len(self.frames)]
        else:
            one = picture(self.sent)
        self.sent += 1
        try:
            self.stage.consume(one)
        except FrameError as error:
            assert error.reason == "link_lost"
            self.outcomes.append(str(error))
        else:
            self.outcomes.append("")
        time.sleep(0.005)  # its pace
        return self.outcomes[-1]

    def until(self, condition: Any, what: str) -> None:
        """Frames, until something is so."""

        def stepped() -> bool:
            self.step()
            return bool(condition())

        wait_for(stepped, what)


def picture(i: int, noise: bool = False) -> Frame:
    data = np.full((72, 64), 128, np.uint8)
    data[:48] = level(i)
    if noise:
        data = np.random.default_rng(i).integers(0, 256, (720, 640), np.uint8)
    data.setflags(write=False)
    return Frame(image=Image(data, "i420"), stream="cam", seq=i, pts_ns=i * NS // 25)


def consecutive(seen: list[int]) -> bool:
    return all((b - a) % 40 == 1 for a, b in itertools.pairwise(seen))


@pytest.mark.usefixtures("hasty")
def test_an_rtmp_server_that_is_killed_and_comes_back(
    tmp_path: Path, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/topsecret"
    feeder = Feeder(VideoWriter(path=url, timeout=5.0))
    with caplog.at_level(logging.INFO):
        feeder.until(lambda: feeder.outcomes.count("no connection: Connection refused"), "refusal")
        first = listen(url)
        feeder.until(lambda: len(first.heard()) > 20, "frames at the server")
        (child,) = relays()
        shown = " ".join(child.cmdline()) + str(child.environ())
        assert "topsecret" not in shown
        first.kill()
        before = len(feeder.outcomes)
        feeder.until(lambda: "the connection is over" in feeder.outcomes[before:], "the loss")
        second = listen(url)
        feeder.until(lambda: len(second.heard()) > 20, "frames at the server again")
        sent = feeder.outcomes.count("")
        feeder.stage.close()
    seen = first.heard()
    assert consecutive(seen)
    wait_for(lambda: "over" in second.path.read_text(), "the end at the server")
    assert consecutive(second.heard())
    assert len(seen) + len(second.heard()) <= sent
    # All that was taken in the second connection arrived, but for the first few that FFmpeg looks at.
    taken = [i % 40 for i, said in enumerate(feeder.outcomes) if not said]
    assert second.heard()[-1] == taken[-1]
    said = caplog.text
    assert "topsecret" not in said
    assert said.count("publishing (connected)") == 2
    assert "rtmp://127.0.0.1" in said
    wait_for(lambda: gone([child]), "the end of the process that sends")
    assert relays() == []


@pytest.mark.usefixtures("hasty")
def test_the_original_is_published_from_a_key_frame_on(tmp_path: Path, listen: Any) -> None:
    frames = play(Video(url=str(clip(tmp_path / "a.mp4", 40, codec_options={"bf": "0"})),
                        packets=True, loop=True), limit=400)  # fmt: skip
    url = f"rtmp://127.0.0.1:{free_port()}/live/a"
    feeder = Feeder(VideoWriter(path=url, record="original"), frames)
    listener = listen(url)
    feeder.until(lambda: len(listener.heard()) > 60, "frames at the server")
    feeder.stage.close()
    # The decoder may be some packets ahead: the key one comes with a frame before its own, and the
    # last frames of a round bring none.
    taken = [frames[i % len(frames)] for i, said in enumerate(feeder.outcomes) if not said]
    parcels = [parcel for frame in taken if (parcel := parcel_of(frame)) and parcel.packets]
    assert any(packet.key for packet in parcels[0].packets)
    assert consecutive(listener.heard())


@pytest.mark.usefixtures("hasty")
def test_an_rtsp_server(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs the program ffmpeg: apt install ffmpeg")
    url = f"rtsp://127.0.0.1:{free_port()}/live/cam"
    sums = tmp_path / "sums"
    server = subprocess.Popen(
        [ffmpeg, "-v", "error", "-rtsp_flags", "listen", "-i", url, "-f", "framemd5",
         "-flush_packets", "1", str(sums)],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    request.addfinalizer(server.wait)
    request.addfinalizer(server.kill)
    feeder = Feeder(VideoWriter(path=url.replace("cam", "{stream}")))

    def pictures() -> int:
        text = sums.read_text() if sums.exists() else ""
        return sum(not line.startswith("#") for line in text.splitlines())

    feeder.until(lambda: pictures() > 30, "pictures at the server")
    feeder.stage.close()
    server.wait(60)
    assert pictures() == feeder.outcomes.count("")


def test_a_server_that_says_nothing_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hasty: None
) -> None:
    monkeypatch.setattr(publish, "_FIRST_SIGN_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/a"
        feeder = Feeder(VideoWriter(path=url, timeout=0.5))
        feeder.until(lambda: caplog.text.count("no answer for 1 s") >= 2, "two attempts given up")
        feeder.stage.close()
    assert "" not in feeder.outcomes
    assert relays() == []


def test_a_server_that_hangs_is_left(
    tmp_path: Path, listen: Any, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/a"
    feeder = Feeder(VideoWriter(path=url, timeout=1.0, quality=1, preset="ultrafast"), [
        picture(i, noise=True) for i in range(50)
    ])  # fmt: skip
    listener = listen(url)
    feeder.until(lambda: len(listener.heard()) > 5, "frames at the server")
    os.kill(listener.process.pid, signal.SIGSTOP)
    feeder.until(lambda: "no answer for 1 s" in caplog.text, "the connection given up")
    counts = Counter(feeder.outcomes)
    assert counts["the connection is over"] == 1
    feeder.stage.close()


def test_a_server_that_refuses_the_password(hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def refuse(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                number = "0"
                while line := stream.readline().decode():
                    if line.split(" ")[0].isupper():
                        asked.append(line.split(" ")[0])
                    if line.lower().startswith("cseq"):
                        number = line.split()[1]
                    if line.strip():
                        continue
                    stream.read(0)
                    challenge = 'WWW-Authenticate: Digest realm="x", nonce="1"\r\n'
                    status = "200 OK" if asked[-1] == "OPTIONS" else "401 Unauthorized"
                    more = "" if asked[-1] == "OPTIONS" else challenge
                    stream.write(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{more}\r\n".encode())
                    stream.flush()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=refuse, args=(server,), daemon=True).start()
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/live/a"
        feeder = Feeder(VideoWriter(path=url, username="me", password="hunter2"))
        feeder.until(lambda: "auth_failed" in caplog.text, "the refusal")
        for process in family():
            assert "hunter2" not in " ".join(process.cmdline())
        feeder.stage.close()
        server.shutdown(socket.SHUT_RDWR)
    assert "ANNOUNCE" in asked
    assert "hunter2" not in caplog.text
    assert "" not in feeder.outcomes
