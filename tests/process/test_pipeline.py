"""A pipeline inside of an application: read, built in Python, failing, left alone."""

import asyncio
import gc
import logging
import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ovpipe
from tests.process.conftest import S, T
from tests.support.processes import open_fds, wait_for
from tests.support.stages import number


@pytest.fixture(params=["process", "inline"])
def anywhere(request, monkeypatch):
    """For what holds wherever a pipeline runs: in processes, and on threads of this one."""
    for start in (ovpipe.Pipeline.start, ovpipe.Pipeline.run):
        monkeypatch.setattr(start, "__defaults__", (request.param,))
    return request.param


def counting(count=50, **options):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    return pipeline.add("src", S + "Count", {"count": count, **options}).add("tag", S + "tag")


def test_read_gives_every_frame_in_order(anywhere):
    with counting() as pipeline:
        frames = [(f.seq, number(f), f.stream, f.meta["tag"]) for f in pipeline.read("tag")]
    assert frames == [(i, i, "src", "seen") for i in range(50)]
    assert [row["delivered"] for row in pipeline.ledger] == [50, 50]


def test_from_yaml(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"version: 1\nstages:\n  src:\n    kind: {S}Count\n    count: ${{N}}\n")
    with ovpipe.Pipeline.from_yaml(config, {"N": "7"}) as pipeline:
        assert [f.seq for f in pipeline.read("src")] == list(range(7))


def test_two_readers_each_get_every_frame(anywhere):
    pipeline = counting()
    with pipeline:
        one, two = pipeline.read("src", depth=50), pipeline.read("tag", depth=50)
        pairs = [(a.seq, b.seq) for a, b in zip(one, two, strict=True)]
    assert pairs == [(i, i) for i in range(50)]


def test_E09_kept_frames_keep_their_pixels(anywhere):
    with counting(count=60) as pipeline:
        reader = pipeline.read("src", depth=80)
        kept = list(reader)
    assert [number(f) for f in kept] == list(range(60))


def test_E09_a_view_is_read_only(anywhere):
    with counting() as pipeline:
        frame = next(pipeline.read("src"))
        with pytest.raises(ValueError, match="read-only"):
            frame.arrays["x"][0, 0] = 1


def test_leaving_early_ends_everything(anywhere):
    with counting(count=10**9) as pipeline:
        for frame in pipeline.read("tag"):
            if frame.seq == 5:
                break


def test_an_exception_of_the_host_ends_everything_and_comes_through(anywhere):
    def embedded():
        with counting(count=10**9) as pipeline:
            for _ in pipeline.read("tag"):
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        embedded()


def test_a_failing_stage_raises_with_cause_and_remote_traceback(anywhere):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    fault = {"how": "crash", "at": 5}
    pipeline.add("src", S + "Count")
    pipeline.add("bad", T + "ScriptedTransform", fault, run={"restart": "never"})
    seen = []
    with pipeline, pytest.raises(ovpipe.StageError, match="on purpose") as error:
        seen.extend(f.seq for f in pipeline.read("bad"))
    assert seen == [0, 1, 2, 3, 4]
    assert error.value.stage == "bad"
    assert "misbehave(" in error.value.remote_traceback


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("exit", "exited with code 0 before its work was done"),
        ("sys_exit", "SystemExit: 0"),
        ("memory", "MemoryError"),
        ("segfault", "died (SIGSEGV)"),
    ],
)
def test_A11_the_application_is_told_the_true_cause(how, cause):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    pipeline.add("src", S + "Count").add(
        "bad", T + "ScriptedTransform", {"how": how, "at": 5}, run={"restart": "never"}
    )
    with pipeline, pytest.raises(ovpipe.StageError) as error:
        for _ in pipeline.read("bad"):
            pass
    assert (error.value.stage, error.value.cause) == ("bad", cause)


def test_a_stage_that_cannot_open_raises_at_the_first_frame(anywhere):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    pipeline.add("src", S + "Count").add(
        "bad",
        T + "ScriptedTransform",
        {"when": "open", "how": "preflight", "argument": "no such thing: /nowhere"},
    )
    with pipeline, pytest.raises(ovpipe.PreflightError, match="/nowhere"):
        next(pipeline.read("bad"))


def test_wrong_options_are_refused_before_anything_starts():
    with pytest.raises(ovpipe.ConfigError, match="count"):
        ovpipe.Pipeline("test", folder=os.getcwd()).add("src", S + "Count", {"count": "many"})


def test_unknown_stage_to_read():
    with pytest.raises(ovpipe.ConfigError, match="nobody"):
        counting().read("nobody")


def test_a_timeout_raises(anywhere):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    pipeline.add("src", S + "Endless").add("none", S + "Never")
    with pipeline, pytest.raises(TimeoutError):
        next(pipeline.read("none", timeout=0.3))


def test_run_to_the_end_without_readers(anywhere):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    with pipeline:
        pipeline.add("src", S + "Count", {"count": 30}).add("sink", S + "Check").run()
    assert pipeline.ledger[0]["delivered"] == 30


def test_drain_ends_an_endless_pipeline_well(anywhere):
    pipeline = ovpipe.Pipeline("test", folder=os.getcwd())
    pipeline.add("src", S + "Endless").add("sink", S + "Check")
    with pipeline:
        pipeline.start()
        pipeline.drain()
        assert pipeline.wait(30)


def test_L03_the_host_is_left_alone():
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    loggers = list(logging.root.handlers), logging.root.level
    environment, argv = dict(os.environ), list(sys.argv)
    with counting() as pipeline:
        assert sum(1 for _ in pipeline.read("src")) == 50
    assert {n: signal.getsignal(n) for n in handlers} == handlers
    assert (list(logging.root.handlers), logging.root.level) == loggers
    assert (dict(os.environ), list(sys.argv)) == (environment, argv)


def test_L01_started_from_a_thread_that_ends():
    pipeline = counting(count=2000)
    reader = pipeline.read("tag")
    thread = threading.Thread(target=pipeline.start)
    thread.start()
    thread.join()
    with pipeline:
        assert sum(1 for _ in reader) == 2000


def test_L03_threads_a_loop_and_a_handler_of_the_host_go_on():
    """SIGINT is the host's to handle: its handler is called, and the pipeline goes on."""
    calls, beats = [], []
    stop = threading.Event()

    def beat():
        while not stop.wait(0.001):
            beats.append(1)

    async def host():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, calls.append, "SIGINT")
        try:
            with counting(count=300) as pipeline:
                reader = pipeline.read("tag")
                read = loop.run_in_executor(None, lambda: sum(1 for _ in reader))
                while not calls:
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(0)
                return await read
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    thread = threading.Thread(target=beat)
    thread.start()
    before = threading.active_count()
    assert asyncio.run(host()) == 300
    assert calls
    before_the_end = len(beats)
    wait_for(lambda: len(beats) > before_the_end, "one more beat of the host's thread")
    stop.set()
    thread.join()
    wait_for(lambda: threading.active_count() < before, "the end of the pipeline's threads")


STARTS = int(os.environ.get("OVPIPE_TEST_STARTS", "6"))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_L05_starting_and_stopping_leaves_no_descriptor_and_no_memory():
    def once():
        pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("src", S + "Count", {"count": 3})
        with pipeline:
            assert sum(1 for _ in pipeline.read("src")) == 3

    for _ in range(3):
        once()
    gc.collect()
    before, memory, threads = len(open_fds()), resident_bytes(), threading.active_count()
    for _ in range(STARTS):
        once()
    gc.collect()
    wait_for(lambda: len(open_fds()) <= before, "the descriptors to be given back", 10)
    wait_for(lambda: threading.active_count() <= threads, "the end of the threads", 10)
    assert resident_bytes() - memory < 8 << 20


SCRIPT = f"""
import os, ovpipe
pipeline = ovpipe.Pipeline("test", folder=os.getcwd()).add("src", "{S}Count", {{"count": 4}})
with pipeline:
    print([frame.seq for frame in pipeline.read("src")])
"""


@pytest.mark.parametrize("how", ["-c", "file", "stdin"])
def test_L02_a_script_without_a_main_guard(how, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = {"-c": ["-c", SCRIPT], "file": [str(tmp_path / "script.py")], "stdin": ["-"]}[how]
    ended = subprocess.run(
        [sys.executable, *arguments], input=SCRIPT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "[0, 1, 2, 3]\n", ended.stderr


def test_nobody_stays_when_the_host_is_killed():
    script = SCRIPT.replace(
        "print([frame.seq", "os.kill(os.getpid(), 9) if next(pipeline.read('src')) else ([frame.seq"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    assert process.wait(60) == -signal.SIGKILL
