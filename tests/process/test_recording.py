"""Recordings that survive: kill -9, a full disk, a camera that goes away."""

import hashlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.data import need
from tests.support.processes import family, gone, relays, wait_for, workers_of

av = pytest.importorskip("av")

from tests.support.recordings import indices, keys, sums  # noqa: E402
from tests.support.rtsp import ServerProcess  # noqa: E402


def pipeline(path, **options):
    """A source at a steady pace, in segments of 20 frames."""
    return {
        "cam": {"kind": "synthetic", "size": "128x96", "fps": 50, "live": True},
        "rec": {"kind": "video-writer", "inputs": {"from": "cam", "depth": 16}, "path": path,
                "segment": 0.4, "preset": "ultrafast", **options},
    }  # fmt: skip


def frames(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_F05_kill_9_in_the_middle_of_a_segment(ovpipe_run, tmp_path):
    """Finished segments are whole, the last one plays, and the next run touches none of them."""
    stages = pipeline(f"{tmp_path}/rec/{{time:%H-%M-%S}}.mp4", gop=0.2)

    def there():
        return set((tmp_path / "rec").glob("*"))

    def order(files):
        # One that has just begun may be of the same tick as the end of the one before.
        return sorted(files, key=lambda path: (path.stat().st_mtime_ns, -path.stat().st_size))

    first = ovpipe_run.start(stages)
    wait_for(lambda: len(there()) >= 6, "segments")
    everybody = family(first.pid)
    for process in everybody:
        process.send_signal(signal.SIGKILL)
    first.kill()
    first.wait()
    wait_for(lambda: gone(everybody), "the end")
    *whole, last = order(there())
    assert [frames(path) for path in whole] == [20] * len(whole)
    assert plays_or_empty(last)
    before = {path: hashlib.md5(path.read_bytes()).digest() for path in there()}

    second = ovpipe_run.start(stages)
    wait_for(lambda: len(there()) >= len(before) + 3, "more segments")
    (writer,) = [p for p in workers_of(second.pid).values() if p.cmdline()[-1] == "rec"]
    writer.send_signal(signal.SIGKILL)
    count = len(there())
    wait_for(lambda: len(there()) >= count + 3, "segments of its successor")
    second.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(second).balanced()
    assert ended.code == 0, ended.err
    assert all(map(plays_or_empty, there()))
    assert {path: hashlib.md5(path.read_bytes()).digest() for path in before} == before


def plays_or_empty(path):
    """Of a file whose first block was not whole yet there is a header at most."""
    try:
        return frames(path) >= 1 or path.stat().st_size < 2000
    except (OSError, av.error.FFmpegError):
        return path.stat().st_size < 2000


COPY = """
import sys, time
from ovpipe.stages.video import Video
from ovpipe.stages.video_writer import VideoWriter
from ovpipe.testing import run_stage
stage = VideoWriter(path=sys.argv[2], record="original")
stage.open()
frames = run_stage(Video(url=sys.argv[1], packets=True, size=(64, 36)), limit=160).outputs
for frame in frames:
    stage.consume(frame)
print("written", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_F05_the_original_is_there_up_to_the_last_second(tmp_path, suffix):
    """Key frames of this video are five seconds apart; that is not what a kill costs."""
    source, path = need("videos/car-detection.mp4"), tmp_path / f"a{suffix}"
    process = subprocess.Popen(
        [sys.executable, "-c", COPY, str(source), str(path)], stdout=subprocess.PIPE, text=True
    )
    with process.stdout:
        assert process.stdout.readline() == "written\n"
        process.kill()
    process.wait()
    whole, copy = sums(source), sums(path)
    assert copy == whole[: len(copy)]
    assert 160 - 15 <= len(copy) <= 160  # 12.5 a second


WRITE = """
import json, sys
from pathlib import Path
import av
import numpy as np
from ovpipe.errors import FrameError
from ovpipe.frame import Frame, Image
from ovpipe.stages.video_writer import VideoWriter

folder, keep = Path(sys.argv[1]), json.loads(sys.argv[2])
stage = VideoWriter(path=f"{folder}/{{n:03}}.mp4", segment=0.4, gop=0.2, keep=keep)
stage.open()
rng, failed = np.random.default_rng(0), []
for i in range(400):
    image = Image(rng.integers(0, 256, (144, 128), np.uint8), "i420")
    try:
        stage.consume(Frame(image=image, stream="cam", seq=i, pts_ns=i * 20_000_000))
    except FrameError as error:
        failed.append(error.reason)
stage.close()
played = {}
for path in sorted(folder.iterdir()):
    with av.open(str(path)) as container:
        played[path.name] = sum(1 for _ in container.decode(video=0))
print(json.dumps([played, sorted(set(failed)), len(failed)]))
"""


@pytest.fixture
def small_disk(tmp_path):
    """Runs the writer on a disk of 1 MB; what plays, and how frames failed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {folder}"
    before = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("needs to mount: run it as root")

    def run(keep):
        command = [*before, sys.executable, "-c", WRITE, str(folder), json.dumps(keep)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(ended.stdout)

    return run


def test_F01_a_full_disk_takes_the_oldest_segments(small_disk):
    """What is recorded goes on without a loss: the oldest files make room."""
    played, reasons, _ = small_disk({"age": 1e6})
    assert reasons == []
    assert "001.mp4" not in played
    assert list(played)[-1] == "020.mp4"
    assert len(played) >= 3
    assert set(played.values()) == {20}


def test_F01_a_full_disk_without_retention_fails_frames(small_disk):
    played, reasons, count = small_disk(None)
    assert reasons == ["disk_full"]
    assert count > 100
    assert played["001.mp4"] == 20
    assert all(played.values())


def test_free_space_is_kept(small_disk):
    played, reasons, _ = small_disk({"free": 500_000})
    assert reasons == []
    assert list(played)[-1] == "020.mp4"
    assert 2 <= len(played) < 8


def test_D_a_camera_recorded_as_it_came_while_key_frames_are_decoded(ovpipe_run, tmp_path):
    """All that a camera sent is recorded, though a tenth of it is decoded; also after a break."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = ServerProcess(folder)
    cam = {"kind": "video", "url": server.url("/live/gate"), "packets": True, "keyframes": True,
           "timeout": "1s"}  # fmt: skip
    original = {"kind": "video-writer", "record": "original"}
    inputs = {"from": "cam", "depth": 32}
    try:
        run = ovpipe_run.start({
            "cam": cam,
            "rec": {**original, "inputs": inputs, "path": f"{tmp_path}/{{stream}}.mkv"},
            "parts": {**original, "inputs": inputs, "path": f"{tmp_path}/parts/{{n}}.mp4",
                      "segment": "1s"},
            "www": {**original, "inputs": inputs, "path": f"{tmp_path}/www/{{stream}}.m3u8",
                    "segment": "1s"},
        })  # fmt: skip
        parts, recorded = tmp_path / "parts", tmp_path / "cam.mkv"
        wait_for(lambda: len(list(parts.glob("*"))) >= 3, "segments")
        server.kill()
        ovpipe_run.until(run, "camera reconnecting")
        server.start()
        count = len(list(parts.glob("*")))
        wait_for(
            lambda: len(list(parts.glob("*"))) >= count + 3 or run.poll() is not None,
            "more of them",
        )
        run.send_signal(signal.SIGINT)
        ended = ovpipe_run.finish(run).balanced()
    finally:
        server.kill()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    seen = indices(recorded)
    steps = [(b - a) % 40 for a, b in itertools.pairwise(seen)]
    assert sum(step != 1 for step in steps) <= 1  # where the server died
    decoded = ended.ledger["cam", "rec"]["delivered"]
    assert len(seen) > 5 * decoded
    files = sorted(parts.glob("*"), key=lambda path: int(path.stem))
    assert [i for path in files for i in indices(path)] == seen
    assert all(keys(path)[0] == 0 for path in files)
    assert (tmp_path / "www" / "cam.m3u8").read_text().endswith("#EXT-X-ENDLIST\n")


def test_A_kill_9_while_publishing_leaves_no_process(ovpipe_run, tmp_path):
    """The process that sends goes with the stage, whatever it is stuck in."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = ovpipe_run.start({
            "cam": {"kind": "synthetic", "size": "128x96", "fps": 25, "live": True},
            "push": {"kind": "video-writer", "path": f"rtmp://u:hunter2@127.0.0.1:{silent.getsockname()[1]}/a/b",
                     "run": {"restart": "never"}},
        })  # fmt: skip
        (relay,) = wait_for(lambda: relays(run.pid), "the process that sends")
        assert "hunter2" not in " ".join(relay.cmdline())
        (writer,) = [p for p in workers_of(run.pid).values() if p.cmdline()[-1] == "push"]
        writer.send_signal(signal.SIGKILL)
        wait_for(lambda: gone([relay]), "its end")
        run.send_signal(signal.SIGINT)
        ended = ovpipe_run.finish(run).balanced()
    assert "hunter2" not in ended.err
    assert ended.ledger["cam", "push"]["failed"]["link_lost"] > 0


def test_the_original_of_a_source_without_packets(ovpipe_run, tmp_path):
    """One clear line, at once."""
    ended = ovpipe_run({
        "cam": {"kind": "synthetic", "size": "64x48", "count": 10},
        "rec": {"kind": "video-writer", "record": "original", "path": f"{tmp_path}/a.mp4"},
    })  # fmt: skip
    assert ended.code == 3
    assert "packets: true" in ended.err
    assert "Traceback" not in ended.err
