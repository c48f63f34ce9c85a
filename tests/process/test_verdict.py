"""The verdict names the stage that limits a run, where one is known to."""

import pytest

from ovpipe.supervisor.bulletin import runs
from tests.process.test_running import call
from tests.support.processes import wait_for

K = "tests.support.slow:"
SOURCE = {"kind": "synthetic", "size": "64x48", "count": 150}
PASS = {"kind": "tests.support.stages:tag"}
GRAPHS = {
    "source": {"source": {"kind": K + "SlowSource"}, "pass": PASS, "log": {"kind": "log"}},
    "middle": {"source": SOURCE, "middle": {"kind": K + "SlowTransform"}, "log": {"kind": "log"}},
    "device": {"source": SOURCE, "device": {"kind": K + "SlowDevice"}, "log": {"kind": "log"}},
    "sink": {"source": SOURCE, "pass": PASS, "sink": {"kind": K + "SlowSink"}},
}


@pytest.mark.parametrize("limit", GRAPHS)
def test_the_limit_of_a_graph_is_named(ovpipe_run, limit):
    ended = ovpipe_run(GRAPHS[limit]).balanced()
    assert ended.code == 0, ended.err
    first = ended.summary["verdict"][0]
    named = f"{limit} is saturated"
    if "the processors of this machine are saturated" in first:  # by others: a source of frames
        named = f"the busiest is {limit}"  # is busy only while it has a processor
        assert limit == "source"
    assert named in first, ended.err
    assert f"verdict: {first}" in ended.err
    if limit != "source":
        assert "holds back" in first
        assert "source (blocked" in first


def test_where_the_source_is_paced_no_stage_is_named(ovpipe_run):
    paced = {**SOURCE, "fps": 50, "count": 50}
    ended = ovpipe_run({"source": paced, "pass": PASS, "log": {"kind": "log"}}).balanced()
    assert ended.code == 0, ended.err
    assert "no stage is" in ended.summary["verdict"][0]


def test_a_live_source_too_fast_for_what_is_behind_it(ovpipe_run):
    live = {**SOURCE, "fps": 300, "live": True, "count": 300}
    graph = {"cam": live, "middle": {"kind": K + "SlowTransform"}, "log": {"kind": "log"}}
    ended = ovpipe_run(graph).balanced()
    first, *rest = ended.summary["verdict"]
    assert first.startswith("middle is saturated"), ended.err
    assert "lower the sources' fps to" in first
    assert any(line.startswith("cam -> middle") and "dropped" in line for line in rest), rest


ENDLESS = {**SOURCE, "count": 0}


def verdict_now():
    return next((run.verdict for run in runs() if run.verdict), ())


def test_the_limit_is_named_while_it_runs_and_again_when_it_is_another(ovpipe_run, tmp_path):
    """Of the last seconds: what a stage did before does not count."""
    slow = {"kind": K + "SlowWhile", "path": str(tmp_path / "slow")}
    (tmp_path / "slow").touch()
    cam = {**ENDLESS, "fps": 150, "live": True}
    process = ovpipe_run.start({"cam": cam, "middle": slow, "log": {"kind": "log", "every": 1000}})
    wait_for(lambda: verdict_now() and verdict_now()[0].startswith("middle is saturated"), "it")
    first, loss, *_ = wait_for(lambda: len(verdict_now()) > 1 and verdict_now(), "the loss")
    assert "or lower the sources' fps to" in first
    assert loss.startswith("cam -> middle dropped ")
    assert "/s): newer ones took their place" in loss
    shown = call("top", "--once").stdout
    assert "verdict: middle is saturated" in shown
    assert "cam -> middle  cam" in shown
    ovpipe_run.until(process, "verdict: middle is saturated")  # told every few seconds only
    (tmp_path / "slow").unlink()
    wait_for(lambda: "no stage is" in verdict_now()[0], "another verdict")
    assert call("stop").returncode == 0
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
