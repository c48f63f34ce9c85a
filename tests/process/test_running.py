"""ps, top and stop, of runs in other processes."""

import json
import subprocess
import sys

import pytest

import ovpipe
from ovpipe.cli.running import as_dict
from ovpipe.supervisor.bulletin import runs
from ovpipe.transport.ages import percentile_ns
from tests.process.conftest import S
from tests.support.processes import wait_for, worker_of

ENDLESS = {"src": {"kind": S + "Endless"}, "sink": {"kind": S + "Check"}}


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ovpipe", *arguments], capture_output=True, text=True, timeout=60
    )


def moments():
    """What `ps --json` prints."""
    return [as_dict(run) for run in runs()]


def flows():
    return any(row["delivered"] for run in moments() for row in run["ledger"])


def test_a_run_is_listed_shown_and_stopped(ovpipe_run):
    assert moments() == []
    assert call("ps", "--json").stdout == ""
    process = ovpipe_run.start(ENDLESS)
    ovpipe_run.until(process, "under way")
    wait_for(flows, "a reading with frames")
    run = json.loads(call("ps", "--json").stdout)
    assert run.keys() == moments()[0].keys()
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


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("now", [(), ("--now",)], ids=["drain", "now"])
def test_of_an_application_that_runs_it_inline_only_the_pipeline_is_stopped(now):
    script = f"""
import subprocess, sys, ovpipe
pipeline = ovpipe.Pipeline("inline")
pipeline.add("src", "{S}Endless")
pipeline.add("sink", "{S}Check", inputs="src")
with pipeline.start("inline"):
    stop = [sys.executable, "-m", "ovpipe", "stop", "inline", *{now}]
    print(subprocess.run(stop, timeout=60).returncode, pipeline.wait(60))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "0 True\n"), ended.stderr


def test_a_killed_run_is_not_listed(ovpipe_run):
    process = ovpipe_run.start(ENDLESS)
    ovpipe_run.until(process, "under way")
    wait_for(flows, "a reading with frames")
    process.kill()
    process.wait()
    wait_for(lambda: moments() == [], "its end")
    assert "none" in call("stop").stderr
    assert ovpipe_run({"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}}).code == 0


def test_what_stages_say_of_themselves_is_seen(ovpipe_run):
    """The state of each camera of a `for_each`, since when and why; gone with its process."""
    size = {"kind": "pipe", "size": "8x8", "format": "gray", "timeout": "1s"}
    cameras = {
        "away": {"command": ["false", "the-password"]},
        "good": {"command": ["sh", "-c", "while head -c 64 /dev/zero; do sleep 0.02; done"]},
    }
    process = ovpipe_run.start({"cam": {**size, "for_each": cameras}, "sink": {"kind": "log"}})

    def facts():
        stages = [stage for run in moments() for stage in run["stages"]]
        return {stage["name"]: stage["facts"] for stage in stages}

    wait_for(
        lambda: (
            facts().get("cam/good", {}).get("camera") == "streaming"
            and facts()["cam/away"].get("why", "").startswith("the command ended")
        ),
        "both states",
    )
    (run,) = moments()
    by_name = facts()
    assert by_name["sink"] == {}
    assert by_name["cam/away"]["camera"] == "connecting"
    assert by_name["cam/away"]["address"] == "false"
    assert 0 < by_name["cam/good"]["since_ns"] <= run["at_ns"]
    assert "the-password" not in call("ps", "--json").stdout
    worker = worker_of(process.pid, "cam/good")
    worker.suspend()
    worker.kill()
    wait_for(lambda: facts()["cam/good"] == {}, "that its facts went with it")
    wait_for(lambda: facts()["cam/good"].get("camera") == "streaming", "its successor's")
    assert call("stop").returncode == 0
    assert ovpipe_run.finish(process).balanced().code == 0


def test_how_old_frames_are_is_measured_at_each_edge(ovpipe_run):
    process = ovpipe_run.start(
        {
            "src": {"kind": "synthetic", "size": "64x48", "fps": 100},
            "slow": {"kind": "tests.support.edges:Slow", "pause_s": 0.02},
            "sink": {"kind": "tests.support.stages:Never"},
        }
    )
    wait_for(lambda: all(s["delivered"] for r in moments() for s in r["ledger"]), "frames")
    wait_for(lambda: any(sum(f["ages"]) for r in moments() for f in r["flows"]), "ages")
    (run,) = moments()
    first, second = run["flows"]
    assert (first["source"], first["target"], first["stream"]) == ("src", "slow", "src")
    assert second["source"] == "slow"
    assert first["credits"] == 5  # four and the one in hand
    assert 0 <= first["in_flight"] <= first["credits"]
    # What arrives behind the slow stage is older than the time that it takes.
    assert percentile_ns(second["ages"], 0.5) > 15e6
    assert call("stop").returncode == 0
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0
    row = ended.ledger["src", "slow"]
    assert sum(ended.summary["flows"][0]["ages"]) == row["delivered"]
