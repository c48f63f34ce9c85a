"""Cameras that go away, fall silent and come back: frames again, nobody else feels it.

The sources are an RTSP server in a process of its own, which is killed, stopped and started again.
"""

import itertools
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from tests.process.conftest import said
from tests.support.processes import family, wait_for, workers_of

pytest.importorskip("av")

from tests.support.rtsp import ServerProcess


@pytest.fixture
def servers(tmp_path):
    started = []

    def start(**options):
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(ServerProcess(folder, **options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


class Yard:
    """A run with some cameras, and what came of each."""

    def __init__(self, ovpipe_run, folder, cameras, kind="video", **options):
        self.runs = ovpipe_run
        self.path = folder / "came"
        self.path.touch()
        self.process = ovpipe_run.start(
            {
                "cam": {"kind": kind, "for_each": cameras, **options},
                "register": {
                    "kind": "tests.support.cameras:Register",
                    "inputs": {"from": "cam", "depth": 64},
                    "path": str(self.path),
                },
            }
        )

    def came(self, name):
        """Which frames of the clip came from a camera, in order."""
        lines = [line.split() for line in self.path.read_text().splitlines(keepends=False)]
        return [int(line[1]) for line in lines if line[0] == f"cam/{name}" and len(line) == 2]

    def more(self, name, frames=15):
        """Wait until so many more have come; the run must go on."""
        now = len(self.came(name))
        wait_for(
            lambda: len(self.came(name)) >= now + frames or self.process.poll() is not None,
            f"{frames} more frames of {name}",
        )
        assert self.process.poll() is None, said(self.process)

    def until(self, name, text):
        """Wait until the log says that of a camera."""
        self.runs.until(self.process, f"cam/{name}: camera {text}")

    def count(self, name, text):
        return said(self.process).count(f"cam/{name}: camera {text}")

    def end(self, restarted=()):
        """A clean drain, whatever the cameras do just now; only these were started again, once."""
        self.process.send_signal(signal.SIGINT)
        ended = self.runs.finish(self.process).balanced()
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err
        counts = {name: stage["restarts"] for name, stage in ended.stages.items()}
        assert counts == {name: int(name in restarted) for name in counts}
        return ended

    def untouched(self, name, ended):
        """No frame of this camera was lost on the way."""
        found = self.came(name)
        assert all((b - a) % 40 == 1 for a, b in itertools.pairwise(found))
        (row,) = [r for r in ended.ledger_rows if r["stream"] == f"cam/{name}"]
        assert row["delivered"] == row["claimed"] >= len(found)


def rows(ended):
    ended.ledger_rows = ended.summary["ledger"]
    return ended


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_D01_a_server_that_dies_or_falls_silent(ovpipe_run, tmp_path, servers, how):
    bad, good = servers(), servers()
    cameras = {"bad": {"url": bad.url("/live/a")}, "good": {"url": good.url("/live/b")}}
    yard = Yard(ovpipe_run, tmp_path, cameras, timeout="1s")
    yard.more("bad")
    yard.more("good")
    workers = set(workers_of(yard.process.pid))
    assert len(workers) == 3

    def held():
        return {pid: psutil.Process(pid).num_fds() for pid in workers}

    fds = {}
    for times in (1, 2, 3):
        if how == "killed":
            bad.kill()
        else:
            bad.process.send_signal(signal.SIGSTOP)
        wait_for(lambda n=times: yard.count("bad", "reconnecting") >= n, "that it is missed")
        yard.more("good")
        if how == "killed":
            bad.start()
        else:
            bad.process.send_signal(signal.SIGCONT)
        yard.more("bad")
        if times == 2:
            fds = held()  # some are opened when they are first needed
    wait_for(
        lambda: all(count <= fds[pid] for pid, count in held().items()),
        f"no more descriptors than after the second time: {fds}",
    )
    assert set(workers_of(yard.process.pid)) == workers, "a restart was used"
    ended = rows(yard.end())
    yard.untouched("good", ended)
    assert yard.count("good", "") == 2  # connecting, streaming


def test_D01_D04_refusing_mute_silent_and_ending_servers_beside_good_ones(
    ovpipe_run, tmp_path, servers
):
    server = servers()
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        cameras = {
            "refuses": {"url": f"rtsp://127.0.0.1:{nobody.getsockname()[1]}/a"},
            "mute": {"url": f"rtsp://127.0.0.1:{mute.getsockname()[1]}/a"},
            "silent": {"url": server.url("/silent/a")},
            "ends": {"url": server.url("/short/a")},
            "good": {"url": server.url("/live/a")},
        }
        yard = Yard(ovpipe_run, tmp_path, cameras, timeout="1s")
        yard.until("refuses", "connecting: Connection refused")
        yard.until("mute", "connecting: ")
        wait_for(lambda: len(yard.came("silent")) > 10, "frames of the silent one again")
        wait_for(lambda: len(yard.came("ends")) > 10, "frames of the ending one again")
        assert yard.count("silent", "reconnecting")
        assert yard.count("ends", "reconnecting: the source ended the stream")
        yard.more("good")
        ended = rows(yard.end())
    yard.untouched("good", ended)
    assert yard.came("refuses") == yard.came("mute") == []
    assert yard.came("silent")[:11] == yard.came("ends")[:11] == [*range(10), 0]


def test_D05_a_password_that_changes(ovpipe_run, tmp_path, servers, nothing_left):
    """Asked once, and told; the word is in nothing that others can read or that is kept."""
    secret = "p4ss/w@rd"
    shapes = (secret, "p4ss%2Fw%40rd")
    bad, good = servers(user="viewer", password=secret), servers()
    cameras = {
        "bad": {"url": bad.url("/live/a"), "username": "viewer", "password": secret},
        "good": {"url": good.url("/live/b")},
    }
    yard = Yard(ovpipe_run, tmp_path, cameras)
    yard.more("bad")
    yard.more("good")
    bad.kill()
    asked = bad.requests("DESCRIBE /live/a")
    bad.start(user="viewer", password="another")
    yard.until("bad", "auth_failed: Server returned 401 Unauthorized")
    assert bad.requests("DESCRIBE /live/a") == asked + 2  # without an answer, and with the wrong
    yard.more("good", 100)
    assert bad.requests("DESCRIBE /live/a") == asked + 2
    shown = {}
    for process in [psutil.Process(yard.process.pid), *family(yard.process.pid)]:
        shown[f"ps of {process.pid}"] = " ".join(process.cmdline())
        shown[f"environment of {process.pid}"] = repr(process.environ())
    for path in nothing_left.rglob("*"):
        if path.is_file():
            shown[str(path)] = path.read_text(errors="backslashreplace")
    assert any("cam/bad" in text for text in shown.values())  # what is looked at says something
    listed = subprocess.run(
        [sys.executable, "-m", "ovpipe", "ps", "--json"], capture_output=True, text=True, timeout=60
    )
    assert "cam/bad" in listed.stdout
    shown["ps"] = listed.stdout + listed.stderr
    ended = rows(yard.end())
    yard.untouched("good", ended)
    shown["what it says"] = ended.err + ended.out
    shown["who came"] = yard.path.read_text()
    for where, text in shown.items():
        assert not any(shape in text for shape in shapes), where


def test_eight_cameras_of_one_kind(ovpipe_run, tmp_path, servers):
    server = servers(fps=15)
    names = [f"c{i}" for i in range(8)]
    yard = Yard(ovpipe_run, tmp_path, {n: {"url": server.url(f"/live/{n}")} for n in names})
    for name in names:
        wait_for(lambda name=name: len(yard.came(name)) >= 20, f"frames of {name}")
    ended = rows(yard.end())
    for name in names:
        yard.untouched(name, ended)


def test_a_read_that_never_returns_is_ended_from_outside(ovpipe_run, tmp_path, servers):
    """D03: silence is seen, the native call keeps to no limit, and so the worker is killed."""
    server, marks = servers(), tmp_path / "marks"
    marks.mkdir()
    (marks / "good").touch()
    cameras = {
        name: {"url": server.url(f"/live/{name}"), "once": str(marks / name)}
        for name in ("bad", "good")
    }
    kind = "tests.support.cameras:Numb"
    yard = Yard(ovpipe_run, tmp_path, cameras, kind, timeout="500ms")
    yard.until("bad", "stalled: no frame for 0.5 s")
    wait_for(lambda: len(yard.came("bad")) > 10, "frames of the one that was killed")
    yard.more("good")
    ended = rows(yard.end(restarted=("cam/bad",)))
    assert "stage 'cam/bad' hangs: no progress for 5 s while idle" in ended.err
    assert ended.err.count("restart 1/5") == 1
    assert yard.came("bad")[:11] == [*range(10), 0]
    yard.untouched("good", ended)
