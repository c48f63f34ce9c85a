"""The pipe stage: whole frames of any command, and what becomes of the command."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ovpipe.errors import OvpipeError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from ovpipe.stages.pipe import Pipe
from tests.support.processes import wait_for

SIZE = (6, 4)


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\n{code}", *words]


def frames_of(count: int, nbytes: int, more: str = "") -> list[str]:
    """A command that writes `count` frames, of one value each, in odd pieces."""
    code = (
        f"data = b''.join(bytes([i]) * {nbytes} for i in range({count}))\n"
        "for at in range(0, len(data), 37): os.write(1, data[at : at + 37])\n"
    )
    return python(code + more)


def stage(command: list[str], **options: Any) -> Pipe:
    made = Pipe(command=command, **{"size": SIZE, "live": False, **options})
    made.bind(LocalContext("pipe"))
    made.open()
    return made


def values(frames: list[Frame]) -> list[int]:
    found = []
    for frame in frames:
        assert frame.image is not None
        (value,) = np.unique(frame.image.data)
        found.append(int(value))
    return found


@pytest.mark.parametrize(
    ("form", "shape"),
    [("bgr", (4, 6, 3)), ("rgb", (4, 6, 3)), ("gray", (4, 6)), ("i420", (6, 6))],
)
def test_frames_are_whole_and_in_order(form: str, shape: tuple[int, ...]) -> None:
    pipe = stage(frames_of(5, int(np.prod(shape))), format=form, fps=10)
    assert pipe.frame_bytes == np.prod(shape)
    frames = list(pipe.frames())
    assert values(frames) == [0, 1, 2, 3, 4]
    assert [f.pts_ns for f in frames] == [i * 10**8 for i in range(5)]
    assert [f.seq for f in frames] == [0, 1, 2, 3, 4]
    for frame in frames:
        assert frame.image is not None
        assert (frame.image.data.shape, frame.image.format) == (shape, form)


def test_what_is_left_of_a_frame_is_counted() -> None:
    pipe = stage(frames_of(2, 72, "os.write(1, b'half')"))
    assert values(list(pipe.frames())) == [0, 1]
    assert isinstance(pipe.context, LocalContext)
    assert pipe.context.failed == {"decode_error": 1}


def test_a_command_that_fails_is_the_stages_failure() -> None:
    frames = stage(frames_of(1, 72, "sys.exit(3)")).frames()
    assert values([next(frames)]) == [0]
    with pytest.raises(OvpipeError, match="ended with exit code 3"):
        next(frames)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"command": ["no-such-program-at-all"]}, "no program 'no-such-program-at-all'"),
        ({"format": "i420", "size": (5, 4)}, "even sizes"),
        ({"size": (100_000, 100_000)}, "at most"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_frame(options: dict[str, Any], text: str) -> None:
    with pytest.raises(PreflightError, match=text):
        stage(**{"command": [sys.executable], **options})


def test_no_shell_sees_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    word = "$(touch trap); `touch trap`"
    (frame,) = stage(python("os.write(1, sys.argv[1].encode().ljust(72, b'\\0'))", word)).frames()
    assert frame.image is not None
    assert frame.image.data.tobytes().rstrip(b"\0") == word.encode()
    assert not list(tmp_path.iterdir())


def test_a_live_one_that_ends_is_started_anew() -> None:
    frames = list(itertools.islice(stage(frames_of(3, 72), live=True).frames(), 7))
    assert values(frames) == [0, 1, 2, 0, 1, 2, 0]
    times = [f.pts_ns for f in frames]
    assert times == sorted(times)
    assert times[0] == 0


def test_a_silent_one_is_killed_with_what_it_started_and_started_anew(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    silent = (
        "import signal, subprocess\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} {{child.pid}}\\n')\n"
        "time.sleep(1000)\n"
    )
    frames = stage(frames_of(1, 72, silent), live=True, timeout=0.5).frames()
    assert values([next(frames), next(frames)]) == [0, 0]
    first, second = (int(pid) for pid in pids.read_text().split()[:2])
    wait_for(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(second), "their ends")
    frames.close()
    for pid in pids.read_text().split():
        wait_for(lambda pid=int(pid): not psutil.pid_exists(pid), "the end of the last")


def test_a_stage_that_stops_waits_for_no_frame() -> None:
    pipe = stage(python("time.sleep(1000)"), live=True)
    frames = pipe.frames()
    context = pipe.context
    assert isinstance(context, LocalContext)
    turns = iter(range(5))

    def waiting() -> None:
        context.stopping = next(turns, None) is None

    context.waiting = waiting  # type: ignore[method-assign]
    began = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - began < 30
