"""ps, top and stop, of runs in other processes."""

import json
import subprocess
import sys

import pytest

import ovpipe
from tests.process.conftest import S
from tests.support.processes import wait_for

ENDLESS = {"src": {"kind": S + "Endless"}, "sink": {"kind": S + "Check"}}


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ovpipe", *arguments], capture_output=True, text=True, timeout=60
    )


def moments(*arguments):
    return [json.loads(line) for line in call("ps", "--json", *arguments).stdout.splitlines()]


def flows():
    return any(row["delivered"] for run in moments() for row in run["ledger"])


def test_a_run_is_listed_shown_and_stopped(ovpipe_run):
    assert moments() == []
    process = ovpipe_run.start(ENDLESS)
    ovpipe_run.until(process, "under way")
    wait_for(flows, "a reading with frames")
    (run,) = moments()
    assert (run["name"], run["pid"], run["phase"]) == ("config-0", process.pid, "running")
    assert {stage["name"] for stage in run["stages"]} == {"src", "sink"}
    (row,) = run["ledger"]
    assert row["claimed"] == row["delivered"] + row["in_flight"]
    head, _, line = call("ps").stdout.splitlines()
    assert head.split()[:3] == ["name", "process", "phase"]
    assert line.split()[:3] == ["config-0", str(process.pid), "running"]
    shown = call("top", "--once")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("ovpipe config-0 running: src ")
    assert json.loads(call("top", "config-0", "--once", "--json").stdout)["pid"] == process.pid
    ended = call("stop", "config-0")
    assert ended.returncode == 0, ended.stderr
    assert f"config-0 ({process.pid}) has ended" in ended.stderr
    assert ovpipe_run.finish(process).balanced().code == 0
    assert moments() == []


def test_stop_now_does_not_wait(ovpipe_run):
    stages = {
        "src": {"kind": S + "Endless"},
        "deaf": {"kind": S + "Deaf", "run": {"stall_timeout": "1h"}},
    }
    process = ovpipe_run.start(stages, "--drain-timeout", "1000")
    ovpipe_run.until(process, "[deaf] deaf")
    wait_for(lambda: any(run["phase"] == "running" for run in moments()), "the run")
    late = call("stop", "--timeout", "0.5")
    assert late.returncode == 2
    assert "--now ends it at once" in late.stderr
    ended = call("stop", "--now", str(process.pid))
    assert ended.returncode == 0, ended.stderr
    assert ovpipe_run.finish(process).code == 143


def test_which_run_must_be_clear(ovpipe_run):
    nobody = call("stop")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "no pipeline runs; there are: none" in nobody.stderr
    assert "no pipeline 'yard' runs" in call("top", "yard").stderr
    two = [ovpipe_run.start(ENDLESS) for _ in range(2)]
    for process in two:
        ovpipe_run.until(process, "under way")
    wait_for(lambda: len(moments()) == 2, "both")
    unclear = call("stop")
    assert unclear.returncode == 2
    assert "several pipelines run" in unclear.stderr
    for process in two:
        assert f"({process.pid})" in unclear.stderr
        assert call("stop", str(process.pid)).returncode == 0
        assert ovpipe_run.finish(process).balanced().code == 0


@pytest.mark.usefixtures("nothing_left")
def test_a_pipeline_in_an_application_is_stopped_too():
    pipeline = ovpipe.Pipeline("embedded")
    pipeline.add("src", S + "Endless")
    pipeline.add("sink", S + "Check", inputs="src")
    with pipeline.start():
        wait_for(flows, "a reading with frames")
        assert call("stop", "embedded").returncode == 0
        pipeline.wait()


def test_a_killed_run_is_not_listed(ovpipe_run):
    process = ovpipe_run.start(ENDLESS)
    ovpipe_run.until(process, "under way")
    wait_for(flows, "a reading with frames")
    process.kill()
    process.wait()
    wait_for(lambda: moments() == [], "its end")
    assert "none" in call("stop").stderr
    assert ovpipe_run({"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}}).code == 0
