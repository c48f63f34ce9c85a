"""The metrics are what Prometheus reads, with names as its conventions have them."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ovpipe import __version__
from ovpipe.supervisor.bulletin import Run
from ovpipe.web.metrics import CONTENT_TYPE, exposition
from tests.support.page import reading

EVIL = 'a"b\\c\nd<img src=x>'


def families(*, of=None, phase="running", name="yard", up=True):
    run = Run(name, 7, phase, 1.5e9, None, of or reading(100, 40, dropped=7))
    text = exposition(run, up)
    assert text.endswith("\n")
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, family.name
        found[family.name] = family
    return found


def values(family, suffix=""):
    return {
        tuple(sorted(s.labels.items())): s.value
        for s in family.samples
        if s.name == family.name + suffix
    }


def test_names_types_and_words_are_as_the_conventions_have_them():
    for name, family in families().items():
        assert re.fullmatch(r"ovpipe_[a-z]+(_[a-z]+)*", name)
        assert family.documentation
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert not {"le", "quantile"} & sample.labels.keys() or family.type == "histogram"
        labels = [(*tuple(sorted(s.labels.items())), s.name) for s in family.samples]
        assert len(labels) == len(set(labels)), name
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_the_ledger_adds_up_in_one_scrape():
    found = families()
    total = {
        part: values(found[f"ovpipe_frames_{part}"], "_total") for part in ("claimed", "delivered")
    }
    flight = values(found["ovpipe_frames_in_flight"])
    lost = {}
    for sample in found["ovpipe_frames_dropped"].samples:
        labels = {k: v for k, v in sample.labels.items() if k != "reason"}
        key = tuple(sorted(labels.items()))
        lost[key] = lost.get(key, 0) + sample.value
    assert len(total["claimed"]) == 4
    for key, claimed in total["claimed"].items():
        assert claimed == total["delivered"][key] + flight[key] + lost.get(key, 0)
    first = (("edge", "cam->detect"), ("stream", "cam/a"))
    assert total["claimed"][first] == 48
    assert lost[first] == 7
    assert "ovpipe_frames_failed" not in found  # nothing failed


def test_ages_are_a_proper_histogram():
    family = families()["ovpipe_frame_age_seconds"]
    assert family.type == "histogram"
    rows = {}
    for sample in family.samples:
        key = (sample.labels["edge"], sample.labels["stream"])
        rows.setdefault(key, {}).setdefault(sample.name.rpartition("_")[2], []).append(sample)
    assert len(rows) == 4
    for row in rows.values():
        bounds = [float(s.labels["le"]) for s in row["bucket"]]
        counts = [s.value for s in row["bucket"]]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == float("inf")
        assert counts == sorted(counts)
        assert counts[-1] == row["count"][0].value == 40
        below = dict(zip(bounds, counts, strict=True))
        assert {c for b, c in below.items() if b < 0.017} == {0}
        assert {c for b, c in below.items() if b > 0.03} == {40}
        assert row["sum"][0].value == pytest.approx(40 * 0.020, rel=0.15)


def test_states_are_sets_of_which_one_holds():
    found = families(of=reading(100, 1, camera="reconnecting"))
    cameras = {}
    for sample in found["ovpipe_camera_state"].samples:
        cameras.setdefault(sample.labels["worker"], {})[sample.labels["state"]] = sample.value
    assert cameras.keys() == {"cam/a", "cam/b"}
    for states in cameras.values():
        assert [s for s, v in states.items() if v == 1] == ["reconnecting"]
        assert len(states) == 6
    for name in ("ovpipe_worker_state", "ovpipe_run_phase"):
        assert sum(s.value for s in found[name].samples) == (4 if "worker" in name else 1)


def test_times_are_seconds():
    found = families(of=reading(100, 1))
    busy = values(found["ovpipe_worker_busy_seconds"], "_total")
    assert busy[("stage", "detect"), ("worker", "detect")] == 90.0
    assert values(found["ovpipe_run_start_time_seconds"]) == {(): 1.5e9}
    assert values(found["ovpipe_build_info"]) == {(("version", __version__),): 1}
    assert values(found["ovpipe_up"]) == {(): 1}


def test_no_name_breaks_out_of_its_label():
    found = families(of=reading(100, 1, name=EVIL), name=EVIL)
    assert found["ovpipe_run_info"].samples[0].labels == {"name": EVIL}
    streams = {s.labels["stream"] for s in found["ovpipe_frames_claimed"].samples}
    assert streams == {f"{EVIL}/a", f"{EVIL}/b"}


def test_without_a_reading_it_is_down():
    text = exposition(None, False)
    assert [f.name for f in text_string_to_metric_families(text)] == [
        "ovpipe_up",
        "ovpipe_build_info",
    ]
    assert "ovpipe_up 0\n" in text
