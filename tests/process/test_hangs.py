"""Workers that hang are seen by their own progress; those that wait or are slow are left alone."""

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest

from tests.process.conftest import S, said
from tests.process.test_restarts import ENDLESS, SINK
from tests.support.processes import wait_for, worker_of, workers_of

QUICK = {"run": {"stall_timeout": "700ms"}}


@pytest.mark.parametrize("kind", ["Stuck", "StuckAsync", "native"])
def test_A07_D03_a_stage_that_hangs_shows_where_is_killed_and_restarted(ovpipe_run, tmp_path, kind):
    """A07, D03: the frames in its hands are stage_hang, the rest goes on."""
    bad = {"kind": S + kind, **QUICK}
    if kind == "native":
        bad |= {"kind": S + "Stuck", "native": True}
    stages = {
        "src": {"kind": S + "Count", "count": 60},
        "bad": bad,
        "sink": {**SINK, "path": str(tmp_path / "seen")},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "bad"]
    lost = row["failed"]["stage_hang"]
    assert 1 <= lost <= (3 if kind == "StuckAsync" else 1)
    assert row["failed"] == {"stage_hang": lost}
    after = ended.ledger["bad", "sink"]
    assert after["claimed"] == 60 - lost
    assert (tmp_path / "seen").read_text() == f"src {after['delivered']} 59\n"
    assert "stage 'bad' hangs: no progress for 0.7 s while working; if a frame may" in ended.err
    assert "stage 'bad' made no progress for 0.7 s while working; restart 1/5" in ended.err
    assert "(most recent call first)" in ended.err
    assert ("in process" in ended.err) == (kind != "StuckAsync")


def test_A08_a_stopped_worker_that_goes_on_in_time_loses_nothing(ovpipe_run):
    """A08."""
    stages = {
        "src": {"kind": S + "Count", "count": 20000},
        "mid": {"kind": S + "tag"},
        "sink": SINK,
    }
    process = ovpipe_run.start(stages)
    wait_for(lambda: len(workers_of(process.pid)) == 3, "all workers")
    middle = psutil.Process(worker_of(process.pid, "mid").pid)
    middle.suspend()
    wait_for(lambda: middle.status() == psutil.STATUS_STOPPED, "a stopped worker")
    before = os.times().elapsed
    wait_for(lambda: os.times().elapsed - before > 2, "two seconds")
    middle.resume()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    for row in ended.ledger.values():
        assert row["delivered"] == row["claimed"] == 20000
    assert [s["restarts"] for s in ended.summary["stages"]] == [0, 0, 0]


def test_A07_a_worker_that_stays_stopped_hangs_also_while_it_waits(ovpipe_run):
    """A07: stopped, it can neither show its stacks nor be heard of; its neighbours wait."""
    stages = {"src": {**ENDLESS, **QUICK}, "mid": {"kind": S + "tag"}, "sink": SINK}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    worker_of(process.pid, "mid").suspend()
    ovpipe_run.until(process, "stage 'mid' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "stage 'mid' made no progress for 5 s" in ended.err
    assert [s["restarts"] for s in ended.summary["stages"]] == [0, 1, 0]
    assert set(ended.ledger["src", "mid"]["failed"]) <= {"stage_hang"}


def test_C03_one_of_two_readers_hangs_and_the_other_loses_nothing(ovpipe_run, tmp_path):
    """C03: with an edge that drops, the source never waits for the one that hangs."""
    stages = {
        "src": ENDLESS,
        "bad": {
            "kind": S + "Stuck",
            "once": str(tmp_path / "stuck"),
            "inputs": {"from": "src", "when_full": "drop_oldest"},
            **QUICK,
        },
        "after": {**SINK, "inputs": "bad"},
        "good": {**SINK, "inputs": "src", "path": str(tmp_path / "seen")},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "[bad] stuck")
    ovpipe_run.until(process, "stage 'bad' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "good"]
    assert row["delivered"] == row["claimed"] > 100
    assert ended.ledger["src", "bad"]["failed"] == {"stage_hang": 1}


def test_a_stage_that_hangs_for_ever_is_given_up(ovpipe_run):
    run = {"stall_timeout": "300ms", "restart": "never"}
    ended = ovpipe_run({"src": ENDLESS, "deaf": {"kind": S + "Deaf", "run": run}}).balanced()
    assert ended.code == 4
    assert "error: stage 'deaf' failed: made no progress for 0.3 s" in ended.err
    assert "in consume" in ended.err


def test_G04_a_busy_machine_is_not_a_hang(ovpipe_run):
    """G04: eight busy loops beside it."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        stages = {
            "src": {"kind": S + "Count", "count": 500},
            "mid": {"kind": S + "Fresh"},
            "sink": SINK,
        }
        ended = ovpipe_run(stages).balanced()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert ended.code == 0, ended.err
    assert "hangs" not in ended.err
    assert ended.ledger["mid", "sink"]["delivered"] == 500


def test_B06_a_stalled_edge_is_named(ovpipe_run):
    """B06: who keeps which slot, and since when; nothing is overwritten, nobody killed."""
    stages = {"src": ENDLESS, "sink": {"kind": S + "Hoards"}}
    process = ovpipe_run.start(stages, "--drain-timeout", "0.2")
    ovpipe_run.until(process, "edge 'src -> sink' stalled for 1")
    held = worker_of(process.pid, "sink").pid
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 5
    line = next(line for line in said(process).splitlines() if "stalled" in line)
    assert "sink holds 5 of 5 frames (slot 0 of pool 0, held 1" in line
    assert line.endswith(f"by stage 'sink' pid {held})")
    assert "hangs" not in ended.err


def test_A22_a_flood_on_stderr_is_read_counted_and_thrown_away(ovpipe_run):
    """A22: the stage is not held up, the supervisor does not grow, the log stays readable."""
    stages = {"src": ENDLESS, "loud": {"kind": S + "Floods"}, "sink": SINK}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "lines of stage 'loud' suppressed")
    supervisor = psutil.Process(process.pid)
    before = supervisor.memory_info().rss
    wait_for(lambda: said(process).count("suppressed") >= 4, "more of the flood")
    grown = supervisor.memory_info().rss - before
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert grown < 8 << 20
    lines = ended.ledger["loud", "sink"]["delivered"] * 2000
    shown = ended.err.count("[loud] a line of no use to anybody\n")
    told = re.findall(r"(\d+) lines of stage 'loud' suppressed", ended.err)
    assert shown < lines / 10
    assert shown + sum(map(int, told)) <= lines + 2000


def test_too_few_open_files_are_told_before_anything_starts(ovpipe_run):
    config = ovpipe_run.config({"src": ENDLESS, "sink": SINK})
    script = f"ulimit -n 70; exec {sys.executable} -m ovpipe run {config}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "2 workers need about 80 open files, and no more than 70 are allowed" in ended.stderr


def test_B02_memory_that_is_not_to_be_had_is_told_with_need_limit_and_holders(ovpipe_run):
    """B02: frames of which a few fill more than there is."""
    ended = ovpipe_run({"src": {"kind": S + "Count", "height": 2**20, "width": 2**20}, "a": SINK})
    assert ended.code == 3
    assert (
        "not enough memory for ovpipe-src: 8388608.0 MiB of shared memory are needed" in ended.err
    )
