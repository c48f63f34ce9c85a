"""Faults as a table: what dies, how, and how the run must end."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.process.conftest import S, T, both
from tests.support.processes import family, gone, run_folders, wait_for, worker_of, workers_of

ENDLESS = {"kind": S + "Endless"}
HANGS = {"kind": T + "ScriptedSink", "how": "hang"}


# A11: how, its argument, when, exit code, what is said, whether there is a traceback.
DEATHS = [
    ("crash", "", "work", 4, "ValueError: on purpose", True),
    ("crash", "", "open", 4, "ValueError: on purpose", True),
    ("crash", "", "close", 4, "ValueError: on purpose", True),
    ("memory", "", "work", 4, "MemoryError", True),
    ("sys_exit", 0, "work", 4, "SystemExit: 0", True),
    ("sys_exit", 0, "open", 4, "SystemExit: 0", True),
    ("exit", 0, "work", 4, "exited with code 0 before its work was done", False),
    ("exit", 0, "open", 4, "exited with code 0 before its work was done", False),
    ("exit", 1, "work", 4, "exited with code 1", False),
    ("exit", 1, "close", 4, "exited with code 1", False),
    ("kill", "", "work", 4, "died (SIGKILL)", False),
    ("kill", "", "open", 4, "died (SIGKILL)", False),
    ("abort", "", "work", 4, "died (SIGABRT)", False),
    ("abort", "", "close", 4, "died (SIGABRT)", False),
    ("segfault", "", "work", 4, "died (SIGSEGV)", False),
    ("segfault", "", "open", 4, "died (SIGSEGV)", False),
    ("preflight", "no such thing: /nowhere", "open", 3, "no such thing: /nowhere", False),
]


@pytest.mark.parametrize(
    ("how", "argument", "when", "code", "says", "traced"),
    DEATHS,
    ids=[
        f"A11-{how}{argument if how[-4:] == 'exit' else ''}-{when}"
        for how, argument, when, *_ in DEATHS
    ],
)
def test_a_stage_that_dies_ends_the_run_with_its_name_and_cause(
    ovpipe_run, how, argument, when, code, says, traced
):
    fault = {"how": how, "argument": argument, "when": when, "at": 20}
    stages = {
        "src": {"kind": S + "Count", "count": 100},
        "bad": {"kind": T + "ScriptedTransform", **fault, "run": {"restart": "never"}},
        "sink": {"kind": S + "Check"},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == code, ended.err
    assert "stage 'bad'" in ended.err
    assert says in ended.err
    assert ("Traceback" in ended.err) == traced
    if when == "work":
        assert ended.ledger["src", "bad"]["failed"]["stage_crash"] == 1
        after = ended.ledger["bad", "sink"]  # what left it in its last moment may be lost with it
        assert after["delivered"] + after["failed"].get("lost_in_transit", 0) == 20


@pytest.mark.parametrize("which", ["src", "mid", "sink"])
def test_sigkill_of_any_worker_ends_the_run_exactly(ovpipe_run, which):
    stages = {"src": ENDLESS, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Check"}}
    stages = {name: {**stage, "run": {"restart": "never"}} for name, stage in stages.items()}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    worker_of(process.pid, which).kill()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 4
    assert f"stage '{which}' failed: died (SIGKILL)" in ended.err


def test_A18_sigterm_drains_and_a_deaf_stage_is_killed_at_the_deadline(ovpipe_run):
    stages = {"src": ENDLESS, "deaf": HANGS}
    process = ovpipe_run.start(stages, "--drain-timeout", "0.5")
    ovpipe_run.until(process, "[deaf] hangs")
    process.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 5
    assert "deaf" in ended.err
    assert ended.ledger["src", "deaf"]["failed"]["drain_timeout"] > 0


@both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_A15_one_signal_drains(ovpipe_run, number, tmp_path):
    stages = {
        "src": ENDLESS,
        "mid": {"kind": S + "tag"},
        "sink": {"kind": S + "Check", "path": str(tmp_path / "seen")},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    process.send_signal(number)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    delivered = ended.ledger["mid", "sink"]["delivered"]
    assert ended.ledger["src", "mid"]["delivered"] == delivered > 0
    assert (tmp_path / "seen").read_text() == f"src {delivered} {delivered - 1}\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_A16_a_second_signal_kills(ovpipe_run, number, code):
    process = ovpipe_run.start({"src": ENDLESS, "deaf": HANGS})
    ovpipe_run.until(process, "[deaf] hangs")
    process.send_signal(number)
    ovpipe_run.until(process, "draining")
    process.send_signal(number)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == code


def test_A19_sigint_while_starting_ends_at_once(ovpipe_run):
    process = ovpipe_run.start({"src": ENDLESS, "slow": {**HANGS, "when": "open"}})
    ovpipe_run.until(process, "[slow] hangs")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err


def test_A09_a_stage_that_is_never_ready_is_named(ovpipe_run):
    stages = {
        "src": ENDLESS,
        "slow": {**HANGS, "when": "open", "run": {"start_timeout": "300ms"}},
        "other": {"kind": S + "Check", "inputs": "src"},
    }
    stages["slow"]["inputs"] = "src"
    ended = ovpipe_run(stages)
    assert ended.code == 4
    assert "stage 'slow' failed: was not ready after 0.3 s" in ended.err
    assert "start_timeout" in ended.err


def test_A04_kill_9_of_the_supervisor_leaves_nobody(ovpipe_run, nothing_left):
    stages = {"src": ENDLESS, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Check"}}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    below = family(process.pid)
    assert len(below) == 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: gone(below), "the end of all workers", 10)
    # Its folder is swept by whoever comes next.
    assert len(run_folders(nothing_left)) == 1
    assert ovpipe_run({"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}}).code == 0
    assert run_folders(nothing_left) == []


def test_A17_as_the_first_process_of_a_container_it_drains_and_leaves_no_zombie(ovpipe_run):
    alone = ["unshare", "-Urpf", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no namespaces of processes to be had here")
    stages = {"src": ENDLESS, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Check"}}
    process = ovpipe_run.start(stages, before=alone)
    ovpipe_run.until(process, "under way")
    (first,) = psutil.Process(process.pid).children()
    worker_of(process.pid, "mid").kill()
    ovpipe_run.until(process, "stage 'mid' is back")
    assert len(workers_of(process.pid)) == 3
    assert all(p.status() != psutil.STATUS_ZOMBIE for p in family(process.pid))
    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert time.monotonic() - began < 10
    assert ended.code == 0, ended.err


def test_A19_sigterm_during_another_crash(ovpipe_run):
    """Several die, the stop comes at once: nobody is started, and the first cause is no failure."""
    stages = {"src": ENDLESS, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Check"}}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    for worker in workers_of(process.pid).values():
        worker.kill()
    process.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code in (0, 4), ended.err
    assert "is back" not in ended.err
    assert "Traceback" not in ended.err


def test_A08_a_stopped_worker_is_waited_for_and_the_ledger_stays_readable(ovpipe_run):
    stages = {"src": ENDLESS, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Check"}}
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    workers = [psutil.Process(pid) for pid in workers_of(process.pid)]
    for worker in workers * 3:
        worker.suspend()
        wait_for(lambda w=worker: w.status() == psutil.STATUS_STOPPED, "a stopped worker")
        worker.resume()
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err


def test_noise_on_stderr_neither_blocks_a_stage_nor_breaks_the_log(ovpipe_run):
    stages = {
        "src": {"kind": S + "Count", "count": 300},
        "loud": {"kind": S + "Shouts"},
        "sink": {"kind": S + "Check"},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0
    assert ended.ledger["loud", "sink"]["delivered"] == 300
    assert "\\xff" in ended.err


def test_A20_closed_stdout_and_stderr_do_not_kill_the_pipeline(ovpipe_run, tmp_path):
    seen = tmp_path / "seen"
    stages = {
        "src": {"kind": S + "Count", "count": 2000},
        "loud": {"kind": S + "Shouts"},
        "sink": {"kind": S + "Check", "path": str(seen)},
    }
    command = [sys.executable, "-m", "ovpipe", "run", str(ovpipe_run.config(stages)), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 0
    assert seen.read_text() == "src 2000 1999\n"


CLOSED = [(1,), (2,), (0, 1, 2)]
EMBEDDED = """
import sys
import ovpipe
with ovpipe.Pipeline.from_yaml(sys.argv[1]) as pipeline:
    seqs = [frame.seq for frame in pipeline.read("src")]
sys.exit(seqs != [*range(200)])
"""


@pytest.mark.parametrize("closed", CLOSED, ids=str)
@pytest.mark.parametrize("how", ["run", "embedded"])
def test_A20_standard_descriptors_that_were_never_open(ovpipe_run, tmp_path, closed, how):
    """What is opened first then is no standard output: nothing printed reaches it."""
    seen = tmp_path / "seen"
    stages = {
        "src": {"kind": S + "Count", "count": 200},
        "loud": {"kind": S + "Shouts"},
        "sink": {"kind": S + "Check", "path": str(seen)},
    }
    words = ["-m", "ovpipe", "run"] if how == "run" else ["-c", EMBEDDED]
    ended = subprocess.run(
        [sys.executable, *words, str(ovpipe_run.config(stages))],
        preexec_fn=lambda: [os.close(fd) for fd in closed],
        timeout=60,
    )
    assert ended.returncode == 0
    assert seen.read_text() == "src 200 199\n"


def again(process, *arguments):
    """`ovpipe run` of the same file, as a second process."""
    *_, config = (arg for arg in process.args if arg.endswith(".yaml"))
    return subprocess.run(
        [sys.executable, "-m", "ovpipe", "run", config, *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


SHORT = {"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}}


def test_C07_a_second_run_of_a_file_is_refused_until_the_first_has_gone(ovpipe_run, nothing_left):
    first = ovpipe_run.start({"src": ENDLESS, "sink": {"kind": S + "Check"}})
    wait_for(lambda: len(workers_of(first.pid)) == 2, "both workers")
    second = again(first)
    assert second.returncode == 3
    (line,) = second.stderr.splitlines()
    assert f"it runs already: process {first.pid} since 20" in line
    assert "`name:`" in line
    assert len(workers_of(first.pid)) == 2
    other = ovpipe_run(SHORT)  # another file is another run
    assert other.balanced().code == 0, other.err
    below = family(first.pid)
    first.kill()
    first.wait()
    wait_for(lambda: gone(below), "the end of its workers", 10)
    ovpipe_run.config(SHORT).rename(ovpipe_run.folder / "config-0.yaml")
    assert again(first).returncode == 0
    assert not list(nothing_left.glob("ovpipe-*/only-*"))


def test_A20_a_reader_of_stdout_that_leaves_ends_an_endless_run(ovpipe_run, tmp_path):
    """`ovpipe run ... | head -1`: drained, nothing lost but what nobody would read."""
    seen = tmp_path / "seen"
    stages = {
        "src": ENDLESS,
        "lines": {"kind": "jsonl", "path": "-", "inputs": "src"},
        "sink": {"kind": S + "Check", "path": str(seen), "inputs": "src"},
    }
    command = f"{sys.executable} -m ovpipe run {ovpipe_run.config(stages)}; echo $? >&2"
    ended = subprocess.run(
        ["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True, timeout=60
    )
    assert len(ended.stdout.splitlines()) == 1
    *said, code = ended.stderr.splitlines()
    assert int(code) == 0, ended.stderr
    assert sum("stage 'lines' ends the run: nobody reads its output" in x for x in said) == 1
    stream, count, last = seen.read_text().split()
    assert (stream, int(count)) == ("src", int(last) + 1)
