"""What the page says of a run: rates, saturation, latencies, history, health. By readings alone."""

import json

import pytest

from ovpipe.errors import OvpipeError
from ovpipe.supervisor.bulletin import Run
from ovpipe.web import figures
from ovpipe.web.page import page
from ovpipe.web.watch import HISTORY_STEPS, Watch
from tests.support.page import Client, graph, post, reading, told

GRAPH = graph()


def status(*readings, phase="running", of=GRAPH):
    run = Run("yard", 1, phase, 0.0, None, readings[-1])
    return figures.status(of, run, readings)


def watch(folder, of=GRAPH, now_s=100.0):
    return Watch(of, folder, lambda: round(now_s * 1e9))


def test_rates_are_over_the_last_two_seconds():
    told = status(reading(90, 0), reading(98, 100), reading(99, 120), reading(100, 140, dropped=30))
    edge = told["edges"][0]
    assert edge["per_s"] == 2 * 20.0  # of two streams
    assert edge["dropped_per_s"] == 2 * 15.0
    assert edge["claimed_per_s"] == 2 * (20.0 + 15.0)
    assert edge["dropped"] == {"queue_full": 60}
    assert told["over_s"] == 2.0
    row = edge["streams"][0]
    assert row["claimed"] == row["delivered"] + sum(row["dropped"].values()) + row["in_flight"]


def test_shares_are_of_the_busiest_worker_and_edges_of_their_credits():
    told = status(reading(98), reading(100))
    assert [stage["busy"] for stage in told["stages"]] == [0.1, 0.9, 0.1]
    assert [edge["saturation"] for edge in told["edges"]] == [0.25, 0.25]
    assert told["verdict"] == []  # too few frames to say anything


def test_the_verdict_is_of_now():
    told = status(reading(98, 100), reading(100, 200))
    assert told["verdict"][0].startswith("detect is saturated (busy 90% of its time, 50.0 /s)")


def test_latencies_are_from_capture_to_the_end_of_a_stream():
    told = status(reading(90, 0), reading(100, 100))
    for stream in told["streams"]:
        assert stream["latency_to"] == "sink"
        assert stream["latency_s"].keys() == {"p50", "p95", "p99"}
        assert 0.016 <= stream["latency_s"]["p50"] <= stream["latency_s"]["p99"] <= 0.024
    assert status(reading(100))["streams"][0]["latency_s"] is None


def test_a_camera_says_how_it_is_and_for_how_long():
    told = status(reading(100, camera="reconnecting", why="silent for 5 s"))
    (facts, _) = [stream["facts"] for stream in told["streams"]]
    assert facts == {"camera": "reconnecting", "why": "silent for 5 s", "for_s": 5.0}


def test_a_worker_that_is_away_is_what_its_stage_shows():
    assert figures._worst(["working", "away", "idle"]) == "away"
    assert figures._worst(["idle", "working"]) == "working"
    assert figures._worst([]) == "starting"


def test_the_graph_has_a_place_for_each_stage_and_no_option_of_any():
    facts = figures.graph_facts(GRAPH)
    assert [stage["name"] for stage in facts["stages"]] == ["cam", "detect", "sink"]
    assert [(e["source"], e["target"]) for e in facts["edges"]] == [(0, 1), (1, 2)]
    assert facts["edges"][0]["policy"] == "newest 2, 1000 ms"
    assert facts["edges"][0]["streams"] == ["cam/a", "cam/b"]
    width, height = facts["size"]
    for x, y, w, h in (stage["box"] for stage in facts["stages"]):
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    assert "hunter2" not in json.dumps(facts)
    assert "/x" not in json.dumps(facts)


# -- the reader of the run ------------------------------------------------------------------------


def test_health_follows_the_bulletin(tmp_path):
    seen = watch(tmp_path, now_s=100.0)
    seen.look()
    assert seen.unwell() == "the run has said nothing yet"
    post(tmp_path, GRAPH, reading(99))
    seen.look()
    assert seen.unwell() == seen.unready() == ""
    seen._now_ns = lambda: round(105e9)
    assert seen.unwell() == seen.unready() == "the run has said nothing for 6 s"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 99}', '{"v": 2, "reading": 7}'])
def test_a_bulletin_that_is_none_changes_nothing(text, tmp_path):
    seen = watch(tmp_path)
    post(tmp_path, GRAPH, reading(99))
    seen.look()
    (tmp_path / "status.json").write_text(text)
    seen.look()
    assert seen.run.reading.at_ns == round(99e9)
    (tmp_path / "status.json").unlink()
    seen.look()
    assert seen.unwell() == ""


@pytest.mark.parametrize("phase", ["starting", "draining", "ending"])
def test_a_run_is_ready_while_it_runs(phase, tmp_path):
    seen = watch(tmp_path)
    post(tmp_path, GRAPH, reading(99), phase=phase)
    seen.look()
    assert seen.unready() == f"the run is {phase}"
    assert seen.unwell() == ""


def test_a_stage_that_is_away_is_not_ready(tmp_path):
    from dataclasses import replace

    whole = reading(99)
    workers = (replace(whole.workers[0], state="away"), *whole.workers[1:])
    post(tmp_path, GRAPH, replace(whole, workers=workers))
    seen = watch(tmp_path)
    seen.look()
    assert seen.unready() == "not at work: cam/a (away)"


def test_history_is_bounded_and_of_one_length(tmp_path):
    seen, now = watch(tmp_path), 0.0
    for i in range(2 * HISTORY_STEPS + 50):  # two readings a second
        now = 1000 + i / 2
        post(tmp_path, GRAPH, reading(now, frames=i * 10))
        seen.look()
        seen.look()  # the same one again
    seen._now_ns = lambda: round(now * 1e9)
    history = seen.history
    assert len(history["ago_s"]) == HISTORY_STEPS
    assert history["ago_s"][0] == pytest.approx(HISTORY_STEPS - 1, abs=1.5)
    assert history["ago_s"][-1] < 1.1
    for what, count in (("stages", 3), ("edges", 2), ("streams", 2)):
        assert len(history[what]) == count
        for series in history[what]:
            assert series.keys() == set(figures.HISTORY[what])
            assert {len(values) for values in series.values()} == {HISTORY_STEPS}
    assert history["stages"][1]["per_s"][-1] == 20.0
    assert len(seen._runs) < 30


def test_a_page_without_a_reading_yet_answers(tmp_path):
    def none(edge, stream):
        raise OvpipeError("the run has ended")

    _, app = page(told(tmp_path), none)
    at = Client(app)
    assert at.get("/api/v1/status").json() == {
        "v": 1, "why": "the run has said nothing yet", "age_s": None, "viewers": 0,
    }  # fmt: skip
    assert at.get("/api/v1/history").json()["ago_s"] == []
    assert at.get("/healthz").status_code == at.get("/readyz").status_code == 503
    assert "ovpipe_up 0" in at.get("/metrics").text
    answer = at.get("/api/v1/edges/0/frame.json")
    assert (answer.status_code, answer.json()) == (504, {"error": "no frame: the run has ended"})
