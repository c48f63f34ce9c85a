"""bench: searching, transforming, reckoning, drawing, without running anything."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.bench import app, plot, variant
from ovpipe.bench.app import Alone
from ovpipe.bench.measure import Measured, StageFigures, _Moment, between
from ovpipe.bench.meter import Meter, Null, percentile
from ovpipe.bench.report import Report, headline, stage_rows
from ovpipe.bench.streams import StreamSearch
from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.graph import resolve
from ovpipe.loader import loads
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.testing import run_stage

YARD = """\
version: 1
stages:
  cam:
    kind: video
    for_each: {gate: {url: "rtsp://10.0.0.1/a", size: 320x240}, roof: {url: /dev/video0, size: 320x240}}
  film: {kind: video, url: clip.mp4}
  noise: {kind: synthetic, fps: 5, count: 10, live: true}
  detect: {kind: infer, model: m.xml, inputs: [{from: cam, when_full: drop_newest, max_age: 1s}, film]}
  both: {kind: annotate, inputs: [detect, noise]}
  rows: {kind: csv, path: "/data/../x/{stream}.csv", inputs: both}
  out: {kind: jsonl, path: "-", inputs: detect}
  say: {kind: log, inputs: detect}
"""


def spec(text=YARD):
    return loads(text, folder=Path(), environ={})


@pytest.mark.parametrize(("least", "most"), [(1, 64), (3, 20), (1, 1), (5, 5)])
def test_the_most_streams_are_found_and_none_is_tried_twice(least, most):
    for limit in range(most + 3):
        search, tried = StreamSearch(least, most), []
        while (count := search.next()) is not None:
            assert count not in tried
            assert least <= count <= most
            tried.append(count)
            search.tell(count, count <= limit)
        assert search.best == (min(limit, most) if limit >= least else 0)
        assert len(tried) <= 2 * math.ceil(math.log2(most + 1)) + 1


def test_a_search_with_contradictions_ends():
    search = StreamSearch(1, 64)
    for fits in [True, True, False, True, False, True] * 5:
        count = search.next()
        if count is None:
            break
        search.tell(count, fits)
    assert search.next() is None


def test_at_full_speed_nothing_waits_drops_writes_or_sends(tmp_path):
    made = variant.at_full_speed(spec(), tmp_path)
    by_name = {s.name: s for s in made.graph.stages}
    assert by_name["cam"].kind == "synthetic"
    assert [w.stream for w in by_name["cam"].workers] == ["cam/gate", "cam/roof"]
    options = by_name["cam"].workers[0].options
    assert (options["size"], options["format"], options["fps"]) == ([320, 240], "i420", 0.0)
    assert by_name["film"].workers[0].options["loop"] is True
    assert by_name["noise"].workers[0].options["count"] == 0
    assert not any(s.live for s in made.graph.stages)
    assert {e.when_full for e in made.graph.edges} == {"block"}
    assert {e.max_age_s for e in made.graph.edges} == {None}
    assert by_name["detect"] == resolve(spec()).stage("detect")
    rows = Path(by_name["rows"].workers[0].options["path"])
    assert rows.is_relative_to(tmp_path)
    assert ".." not in rows.parts
    assert Path(by_name["out"].workers[0].options["path"]).is_relative_to(tmp_path)
    said = "\n".join(made.told)
    for word in ("'cam' is live", "320x240", "'film'", "'rows'", "'out'", "'detect' waits"):
        assert word in said


def test_what_publishes_or_takes_packets_is_replaced(tmp_path):
    text = (
        "version: 1\nstages:\n  a: {kind: video, url: x.mp4, pace: true}\n"
        "  b: {kind: video-writer, inputs: a, path: 'rtsp://me:pw@10.0.0.1/x'}\n"
        "  c: {kind: video-writer, inputs: a, path: 'c.mp4', record: original}\n"
        "  d: {kind: mqtt, inputs: a, url: 'mqtt://10.0.0.1', topic: t}\n"
    )
    made = variant.at_full_speed(spec(text), tmp_path)
    assert [s.kind for s in made.graph.stages] == ["video", *["ovpipe.bench.meter:Null"] * 3]
    assert made.graph.stages[0].workers[0].options["pace"] is False
    assert sum("in its place" in text for text in made.told) == 3


def test_what_cannot_live_inline_with_several_streams_has_a_process(tmp_path):
    text = "version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: annotate, run: {placement: inline}}\n"
    for streams, placed in ((1, "inline"), (2, "process")):
        made = variant.paced(spec(text), tmp_path, tmp_path / "r", streams=streams, fps=5, warm_s=0)
        assert made.graph.stage("b").run.placement == placed
        assert any("'b' has a process" in t for t in made.told) == (streams == 2)


def test_what_sends_is_replaced_and_what_is_ones_own_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(variant.BUILT_IN, "sends", "ovpipe.bench.meter:Null")
    (tmp_path / "mine.py").write_text(
        "import ovpipe\nclass Sink(ovpipe.Consumer):\n    def consume(self, frame): pass\n"
    )
    text = "version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: sends, inputs: a}\n  c: {kind: 'mine:Sink', inputs: a}\n"
    made = variant.at_full_speed(loads(text, folder=tmp_path, environ={}), tmp_path)
    assert [s.kind for s in made.graph.stages] == [
        "synthetic",
        "ovpipe.bench.meter:Null",
        "mine:Sink",
    ]
    assert any("'b' sends nothing" in text for text in made.told)
    assert any("'c' is of your own" in text for text in made.told)


@pytest.mark.parametrize(("size", "shown"), [(None, "1280x720"), ((64, 48), "64x48")])
def test_a_size_that_is_not_written(tmp_path, size, shown):
    text = "version: 1\nstages:\n  a: {kind: video, url: /dev/video0}\n  b: {kind: log}\n"
    made = variant.at_full_speed(spec(text), tmp_path, size)
    assert shown in made.told[0]
    assert ("--size" in made.told[0]) == (size is None)


@pytest.mark.parametrize(("streams", "each"), [(None, [2, 1, 1]), (3, [1, 1, 1]), (8, [3, 3, 2])])
def test_paced_streams_are_dealt_out(tmp_path, streams, each):
    made = variant.paced(spec(), tmp_path, tmp_path / "r", streams=streams, fps=25, warm_s=1)
    by_name = {s.name: s for s in made.graph.stages}
    assert [len(by_name[n].workers) for n in ("cam", "film", "noise")] == each
    assert all(
        w.options["fps"] == 25 and w.options["live"]
        for n in ("cam", "film")
        for w in by_name[n].workers
    )
    into = {(e.source, e.target): e for e in made.graph.edges}
    assert into["cam", "detect"].when_full == "drop_newest"  # as written
    assert into["film", "detect"].when_full == "drop_oldest"
    ends = [e.source for e in made.graph.edges if e.target == variant.METER]
    assert ends == ["both"]  # detect's frames go on to both
    assert set(into["both", variant.METER].streams) == set(made.graph.streams)


def test_inputs_that_are_not_written_stay_what_they_are(tmp_path):
    text = "version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: annotate}\n  c: {kind: log}\n"
    made = variant.paced(spec(text), tmp_path, tmp_path / "r", streams=2, fps=5, warm_s=0)
    assert {(e.source, e.target) for e in made.graph.edges} == {
        ("a", "b"),
        ("b", "c"),
        ("b", variant.METER),
    }


def test_the_meter(tmp_path, monkeypatch):
    now = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr("ovpipe.bench.meter.time.monotonic_ns", lambda: next(now) + 10**9)
    frames = [Frame(captured_ns=i * 10**9 + 10**9 - 5_000_000 * i) for i in range(11)]
    run_stage(Meter(report=str(tmp_path / "r"), warm=1.0), frames)
    said = json.loads((tmp_path / "r").read_text())
    assert said == {
        "frames": 10,
        "seconds": 9.0,
        "p50_ms": 25.0,
        "p90_ms": 45.0,
        "p99_ms": 50.0,
        "max_ms": 50.0,
    }
    run_stage(Meter(report=str(tmp_path / "e")), [])
    assert '"frames": 0' in (tmp_path / "e").read_text()
    run_stage(Null(), frames)


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values_and_enough_are_below(values, percent):
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in ordered
    assert sum(v <= found for v in ordered) >= len(ordered) * percent / 100 - 1e-6


def worker(stage, frames, busy, blocked, idle, name=None, at=0):
    return WorkerReading(
        name or stage, stage, "working", frames, frames, busy, blocked, idle, 0, 0, 0, at
    )


def moment(at_s, delivered, frames, cpu_s, dropped=0):
    at = int(at_s * 1e9)
    accounts = (
        Account("a", "detect", "a", delivered, delivered, {}, {}, 0),
        Account("detect", "b", "a", delivered, delivered // 2, {"queue_full": dropped}, {}, 0),
    )
    workers = (
        worker("a", frames, frames, frames * 3, 0, at=at),
        worker("detect", frames, frames * 4, 0, 0, at=at),
        worker("b", frames // 2, 0, 0, frames * 4, at=at),
    )
    return _Moment(
        Reading(at, accounts, workers),
        {"a": cpu_s, "detect": 3 * cpu_s, "b": 0.0},
        (int(at_s), 2 * int(at_s)),
    )


def graph():
    text = "version: 1\nstages:\n  a: {kind: synthetic}\n  detect: {kind: infer, model: m}\n  b: {kind: log}\n"
    return resolve(loads(text, folder=Path(), environ={}))


def test_figures_are_of_the_time_between():
    measured = between(graph(), moment(10, 100, 200, 1.0), moment(14, 500, 600, 2.0, dropped=40))
    assert (measured.seconds, measured.at, measured.frames_per_s) == (4.0, "detect", 100.0)
    a, detect, b = measured.stages
    assert (a.per_s, a.cpu_ms, a.cores) == (100.0, 2.5, 0.25)
    assert (detect.cpu_ms, detect.cores, detect.busy) == (7.5, 0.75, 1.0)
    assert (a.busy, a.blocked, b.idle) == (0.25, 0.75, 1.0)
    assert measured.cores_used == 1.0
    assert measured.lost_per_s == 10.0
    assert "detect is saturated" in measured.verdict[0]


def test_stages_in_one_process_share_its_time():
    first, last = moment(10, 100, 200, 1.0), moment(14, 500, 600, 2.0)
    first.cpu_s = {"a+b": 1.0, "detect": 0.0}
    last.cpu_s = {"a+b": 3.0, "detect": 4.0}
    measured = between(graph(), first, last)
    assert [(s.name, s.home, s.cores) for s in measured.stages] == [
        ("a", "", 0.5), ("detect", "", 1.0), ("b", "a", 0.0),
    ]  # fmt: skip
    r = Report("yard", 2, (measured,), {}, ())
    assert [p.what for p in r.parts] == ["detect", "a with b", "not used, or by other programs"]
    assert "in a" in stage_rows(measured)[1][2]


def report(alone):
    stages = (
        StageFigures("a", 100, 2.5, 0.25, 0.2, 0.8, 0),
        StageFigures("detect", 100, 7.5, 0.75, 1, 0, 0),
    )
    measured = Measured(4, 100, "detect", stages, 1.0, 0.0)
    return Report("yard", 2, (measured, measured), alone, ())


def test_where_a_frames_time_goes_adds_up():
    r = report({"detect": Alone(125.0, 6.0)})
    assert r.share == 0.8
    assert {p.what: p.cpu_ms for p in r.parts} == {
        "detect: the model, as it needs alone": 6.0, "detect: beside the model": 1.5, "a": 2.5,
        "not used, or by other programs": 10.0,
    }  # fmt: skip
    assert sum(p.share for p in r.parts) == pytest.approx(1)
    assert "share of benchmark_app's throughput: 80.0%" in headline(r)
    assert report({}).share is None
    assert r.to_json()["share_of_benchmark_app"] == 0.8


def test_two_models_share_a_device():
    r = report({"detect": Alone(200.0, 6.0), "a": Alone(400.0, 1.0)})
    assert r.share == 100 / 200 + 100 / 400


def test_the_command_line_of_benchmark_app():
    options = {
        "model": "m.xml", "device": "GPU", "hint": "latency", "jobs": 3, "batch": {"size": 4},
        "config": {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 1, "OTHER": 5},
    }  # fmt: skip
    words = " ".join(app.arguments(options, 2.6))
    assert words == "-m m.xml -d GPU -t 3 -hint latency -nireq 3 -b 4 -nstreams 2 -nthreads 1"
    assert " ".join(app.arguments({"model": "m"}, 0.2)) == "-m m -d CPU -t 1 -hint throughput"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('all bad')", "all bad"),
        ("import os; os._exit(3)", "nothing"),
        ("print('Throughput: x FPS')", "Throughput: x"),
    ],
)
def test_a_benchmark_app_that_does_not_say(monkeypatch, code, says):
    monkeypatch.setattr(app, "_CODE", code)
    with pytest.raises(PreflightError, match=says):
        app.alone({"model": "m"}, 1)


def test_what_it_says_is_read(monkeypatch):
    monkeypatch.setattr(app, "_CODE", "print('[ INFO ] Throughput:   7236.83 FPS')")
    assert app.alone({"model": "m"}, 1).per_s == 7236.83


def test_processor_time_is_that_of_the_end():
    samples = [(t / 10, 5.0 if t < 20 else 5.0 + (t - 20) * 0.2) for t in range(61)]
    assert app.slope(samples, 4.0) == pytest.approx(2.0)
    assert app.slope([], 1.0) == app.slope([(0.0, 1.0)], 1.0) == 0.0


def svg(text):
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    numbers = [float(n) for n in re.findall(r'[ "](-?\d+\.?\d*)(?=[", ])', text)]
    assert all(math.isfinite(n) for n in numbers)
    return root


def test_pictures_are_well_formed_and_nothing_in_a_name_is_markup():
    name = '<img onerror="x">&'
    root = svg(
        plot.bars(name, [plot.Bar(name, ((name, 3.0), ("b", 1.0))), plot.Bar("x", ())], name)
    )
    assert not root.findall(".//{*}img")
    line = plot.Line(name, ((1, 5.0), (2, math.inf), (4, 90.0)), (True, False, True))
    root = svg(plot.lines(name, [line, plot.Line("b", ())], name, name, limit=50.0))
    assert len(root.findall(".//{*}circle")) == 2
    svg(plot.lines("none", [], "x", "y"))
    svg(plot.bars("none", [], "ms"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_round_and_around(low, span):
    ticks = plot._ticks(low, low + span)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + 1e-6 * max(1, abs(low))
    assert ticks[-1] >= low + span - 1e-6 * max(1, abs(low + span))
