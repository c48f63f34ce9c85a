"""ovpipe.testing: what tests are made with, tested."""

import json
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovpipe
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import AsyncTransform
from ovpipe.testing import (
    Recorder,
    Script,
    ScriptedSink,
    ScriptedTransform,
    check,
    paint,
    run_stage,
)
from ovpipe.testing.leaks import holdings
from ovpipe.testing.paint import HEADER_BYTES, stream_number


def frames(count):
    return run_stage(Script(items=[{"frame": count}])).outputs


# -- paint ---------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    st.integers(0, 2**64 - 1), st.text(max_size=9), st.integers(0, 2**64 - 1), st.integers(32, 99)
)
def test_what_is_painted_is_read_back(run, stream, seq, size):
    array = np.full(size, 7, np.uint8)
    paint(array, run=run, stream=stream, seq=seq)
    assert check(array) == (run, stream_number(stream), seq, True)


@given(st.integers(0, 63), st.integers(1, 255))
def test_any_changed_byte_is_seen(at, mask):
    array = np.zeros((8, 8), np.uint8)
    paint(array, seq=5)
    array.reshape(-1)[at] ^= mask
    assert not check(array).ok


def test_what_cannot_be_painted():
    for array in (np.zeros(HEADER_BYTES - 1, np.uint8), np.zeros((64, 64), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="32 bytes or more"):
            paint(array)
        assert not check(array).ok


# -- run_stage -----------------------------------------------------------------------------


class Log(ovpipe.Consumer):
    """Notes every call."""

    def open(self):
        self.calls = ["open"]

    def consume(self, frame):
        self.calls.append((frame.stream, frame.seq))
        if frame.seq == 1:
            raise FrameError("no", "disk_full")

    def end_of_stream(self, stream):
        self.calls.append(stream)

    def close(self):
        self.calls.append("close")


def test_a_consumer_sees_frames_ends_and_close():
    stage = Log()
    result = run_stage(stage, [Frame(), Frame(), Frame(stream="b", seq=7)], streams=["a"])
    assert stage.calls == ["open", ("a", 0), ("a", 1), ("b", 7), "a", "b", "close"]
    assert (result.outputs, result.failed, result.ended) == ([], {"disk_full": 1}, ("a", "b"))
    assert [str(error) for error in result.errors] == ["no"]


class Twice(ovpipe.Transform):
    """Every frame twice, but for odd ones, which fail after the first copy."""

    def process(self, frame):
        yield Frame(meta={"n": 1})
        if frame.seq % 2:
            raise FrameError("odd")
        yield frame


def test_a_transform_gives_several_none_or_an_error():
    result = run_stage(Twice(), [Frame(pts_ns=5), Frame()])
    assert [(f.stream, f.seq, f.pts_ns) for f in result.outputs] == [
        ("cam", 0, 5), ("cam", 0, 5), ("cam", 1, None),
    ]  # fmt: skip
    assert isinstance(result.results[-1], FrameError)
    assert result.failed == {"infer_error": 1}
    nothing = run_stage(ScriptedTransform(), [])
    assert (nothing.results, nothing.ended) == ((), ())


class Late(AsyncTransform):
    """Is done in the reverse of the order of submission, on another thread."""

    capacity = 3

    def open(self):
        self.waiting, self.most = [], 0

    def submit(self, frame, done):
        if frame.seq == 4:
            raise FrameError("four")
        self.waiting.append(done)
        self.most = max(self.most, len(self.waiting))
        threading.Thread(target=self.end).start()

        def finish():
            if frame.seq == 2:
                raise FrameError("two")
            return frame

        return finish

    def end(self):
        self.waiting.pop()()


def test_an_asynchronous_stage_gives_results_in_order():
    stage = Late()
    result = run_stage(stage, [Frame() for _ in range(8)])
    told = [out.seq if isinstance(out, Frame) else str(out) for out in result.results]
    assert told == [0, 1, "two", 3, "four", 5, 6, 7]
    assert stage.most <= 3


class Broken(Log):
    """Fails in work and in close."""

    def consume(self, frame):
        raise KeyError("first")

    def close(self):
        super().close()
        raise KeyError("second")


def test_the_first_cause_comes_out_and_the_stage_is_closed():
    stage = Broken()
    with pytest.raises(KeyError, match="first"):
        run_stage(stage, [Frame()])
    assert stage.calls[-1] == "close"
    with pytest.raises(KeyError, match="second"):
        run_stage(stage, [])


def test_frames_that_come_in_cannot_be_written():
    array = np.zeros(3)

    class Writes(ovpipe.Transform):
        """Writes into its input."""

        def process(self, frame):
            frame.arrays["x"][0] = 1

    with pytest.raises(ValueError, match="read-only"):
        run_stage(Writes(), [Frame(arrays={"x": array})])
    array[0] = 1  # the caller's own stays writable


def test_a_producer_ends_at_its_limit():
    stage = Script(items=["frame"], repeat=True)
    result = run_stage(stage, streams=["cam/gate"], limit=5)
    assert [(f.stream, f.seq) for f in result.outputs] == [("cam/gate", i) for i in range(5)]
    assert result.ended == ("cam/gate",)


# -- scripts -------------------------------------------------------------------------------


def test_a_script():
    items = [
        {"frame": 2},
        {"frame": 1, "size": "80x16", "value": 9},
        {"drop": 2},
        "nan",
        "end",
        "x",
    ]
    with pytest.raises(PreflightError, match="'x' is none of frame"):
        run_stage(Script(items=items))
    result = run_stage(Script(items=[*items[:-1], "crash"]))
    assert [f.seq for f in result.outputs] == [0, 1, 2, 5]
    assert result.failed == {"decode_error": 2}
    *pictures, last = result.outputs
    painted = [check(f.image.data) for f in pictures]
    assert all(p.ok and p.stream == stream_number("cam") for p in painted)
    assert [p.seq for p in painted] == [0, 1, 2]
    assert (pictures[2].image.width, pictures[2].image.height) == (80, 16)
    assert pictures[2].image.data[-1, -1] == 9
    assert np.isnan(last.arrays["x"]).all()


@pytest.mark.parametrize(
    "item",
    [{"frame": 1, "siez": 2}, {"crash": "", "exit": 1}, {}, {"nan": 1, "size": "4x4"},
     {"frame": 1, "size": "big"}],
)  # fmt: skip
def test_a_wrong_script_is_refused_in_open(item):
    with pytest.raises(PreflightError, match="script:"):
        run_stage(Script(items=[item]))


@pytest.mark.parametrize(
    ("how", "raises"),
    [("crash", ValueError), ("memory", MemoryError), ("preflight", PreflightError),
     ("sys_exit", SystemExit)],
)  # fmt: skip
@pytest.mark.parametrize("when", ["open", "work", "close"])
@pytest.mark.parametrize("cls", [ScriptedTransform, ScriptedSink])
def test_stages_go_wrong_where_they_are_told_to(cls, when, how, raises):
    with pytest.raises(raises):
        run_stage(cls(how=how, when=when, at=1), frames(3))


@pytest.mark.parametrize(
    ("how", "code"), [("exit", 3), ("kill", -9), ("abort", -6), ("segfault", -11)]
)
def test_the_ways_that_end_the_process(how, code):
    script = f"from ovpipe.testing import misbehave; misbehave({how!r}, 3)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert ended.returncode == code


def test_a_fault_that_comes_again_and_a_view_that_is_kept():
    result = run_stage(
        ScriptedTransform(how="frame_error", argument="stale", at=1, every=3), frames(9)
    )
    assert [f.seq for f in result.outputs] == [0, 2, 3, 5, 6, 8]
    assert result.failed == {"stale": 3}
    array = np.zeros((8, 8), np.uint8)

    def reuse_the_slot():
        for seq in range(2):
            paint(array, seq=seq)
            yield Frame(image=Image(array, "gray"))

    with pytest.raises(ValueError, match="kept view of frame 0 has changed"):
        run_stage(ScriptedSink(how="keep"), reuse_the_slot())


def test_the_recorder_appends_what_it_saw(tmp_path):
    path = tmp_path / "seen"
    given = frames(3)
    given[1].image.data[-1, -1] ^= 1
    for _ in range(2):
        run_stage(Recorder(path=str(path)), given)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(x["stream"], x.get("seq"), x.get("painted"), x.get("ok")) for x in lines] == [
        ("cam", 0, 0, True), ("cam", 1, 1, False), ("cam", 2, 2, True), ("cam", None, None, None),
    ] * 2  # fmt: skip
    assert {x["pid"] for x in lines} == {os.getpid()}
    with pytest.raises(PreflightError, match="nowhere"):
        run_stage(Recorder(path="/proc/nowhere/x"), [])


# -- leaks ---------------------------------------------------------------------------------


def test_each_kind_of_leak_is_seen_and_named(tmp_path):
    before = holdings(tmp_path)
    assert holdings(tmp_path).beyond(before) == []
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = Path(f"/dev/shm/ovpipe-test-{os.getpid()}")
    name.touch()
    (tmp_path / "ovpipe-0" / "1-2").mkdir(parents=True)
    fd = os.memfd_create("ovpipe-test")
    os.ftruncate(fd, 4096)
    memory = mmap.mmap(fd, 4096)
    try:
        left = holdings(tmp_path).beyond(before)
    finally:
        name.unlink()
        child.communicate()
        memory.close()
        os.close(fd)
    kinds = sorted({line.split()[0] for line in left})
    assert kinds == [f"{name}", "descriptor", "process", "run", "shared"]


TEST = """
import os, subprocess, sys
{imports}
def test_it(leak_check):
    assert os.environ["XDG_RUNTIME_DIR"] == str(leak_check)
    {body}
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [("pass", "1 passed"), ("os.pipe()", "left behind: descriptor"),
     ("subprocess.Popen(['sleep', '5'])", "left behind: process")],
)  # fmt: skip
def test_the_fixture_fails_a_test_that_leaks(tmp_path, body, says):
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['ovpipe.testing.plugin']\n")
    imports = "import ovpipe.testing.plugin\novpipe.testing.plugin.SETTLE_S = 0.1\n"
    (tmp_path / "test_it.py").write_text(TEST.format(imports=imports, body=body))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert says in ended.stdout
    assert (ended.returncode == 0) == (body == "pass")
