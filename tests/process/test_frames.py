"""Frames through real processes: all of them, in order, unchanged, and accounted for."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.conftest import S, T, both, everywhere
from tests.support.processes import wait_for

COUNT = {"kind": S + "Count", "count": 300}


def graph(*middle, sink=None):
    stages = {"src": COUNT}
    for i, stage in enumerate(middle):
        stages[f"mid{i}"] = stage if isinstance(stage, dict) else {"kind": stage}
    stages["sink"] = {"kind": S + "Check", **(sink or {})}
    return stages


@everywhere
@pytest.mark.parametrize(
    "middle",
    [
        [],
        [S + "tag"],
        [S + "tag", {"kind": S + "tag", "text": "again"}, S + "tag"],
        [S + "Keep"],
        [S + "Fresh"],
        [S + "Fresh", S + "Keep", S + "tag"],
    ],
    ids=lambda middle: "-".join(str(m).rpartition(":")[2] for m in middle) or "direct",
)
def test_all_frames_arrive_in_order_and_unchanged(ovpipe_run, middle, tmp_path):
    seen = tmp_path / "seen"
    ended = ovpipe_run(graph(*middle, sink={"path": str(seen)})).balanced()
    assert ended.code == 0, ended.err
    assert seen.read_text() == "src 300 299\n"
    assert all(row["delivered"] == row["claimed"] == 300 for row in ended.ledger.values())


@everywhere
def test_fan_out_gives_every_receiver_every_frame(ovpipe_run, tmp_path):
    stages = graph(S + "Keep")
    stages["mid0"]["inputs"] = "src"
    stages["sink"]["inputs"] = "mid0"
    for i in range(3):
        stages[f"other{i}"] = {
            "kind": S + "Check",
            "inputs": ["src", "mid0"][i % 2],
            "path": str(tmp_path / f"o{i}"),
        }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert len(ended.ledger) == 5
    assert all(row["delivered"] == 300 for row in ended.ledger.values())
    assert [(tmp_path / f"o{i}").read_text() for i in range(3)] == ["src 300 299\n"] * 3


@everywhere
def test_a_frame_that_ends_in_a_transform_was_delivered_to_it(ovpipe_run):
    ended = ovpipe_run(graph(S + "even")).balanced()
    assert ended.ledger["src", "mid0"]["delivered"] == 300
    assert ended.ledger["mid0", "sink"]["claimed"] == 150


@everywhere
def test_a_failing_frame_is_counted_and_the_rest_goes_on(ovpipe_run):
    ended = ovpipe_run(
        graph({"kind": T + "ScriptedTransform", "how": "frame_error", "every": 3})
    ).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "mid0"]["failed"] == {"infer_error": 100}
    assert ended.ledger["mid0", "sink"]["delivered"] == 200


def test_a_live_source_drops_the_oldest_and_counts_it(ovpipe_run):
    stages = {
        "src": {"kind": S + "LiveCount", "count": 3000},
        "sink": {"kind": S + "Check", "pause_s": 0.002},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "sink"]
    assert row["claimed"] == 3000
    assert row["dropped"]["queue_full"] > 0
    assert row["delivered"] + row["dropped"]["queue_full"] == 3000


def test_frames_older_than_max_age_are_dropped_as_stale(ovpipe_run):
    stages = {
        "src": {"kind": S + "LiveCount", "count": 300},
        "sink": {
            "kind": S + "Check",
            "pause_s": 0.02,
            "inputs": {"from": "src", "depth": 8, "max_age": "1ms"},
        },
    }
    row = ovpipe_run(stages).balanced().ledger["src", "sink"]
    assert row["dropped"]["stale"] > 0


@everywhere
def test_each_stream_ends_for_itself(ovpipe_run, tmp_path):
    seen = tmp_path / "seen"
    stages = {
        "src": {"kind": S + "Count", "for_each": {"a": {"count": 5}, "b": {"count": 9}}},
        "mid": {"kind": S + "tag"},
        "sink": {"kind": S + "Check", "path": str(seen)},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    streams = {(r["source"], r["stream"]): r["delivered"] for r in ended.summary["ledger"]}
    assert streams == {
        ("src", "src/a"): 5,
        ("src", "src/b"): 9,
        ("mid", "src/a"): 5,
        ("mid", "src/b"): 9,
    }
    assert sorted(seen.read_text().splitlines()) == ["src/a 5 4", "src/b 9 8"]


@both
def test_a_stage_that_forwards_needs_no_shared_memory_of_its_own(ovpipe_run):
    stages = {
        "src": {"kind": S + "Endless"},
        "mid": {"kind": S + "tag"},
        "fresh": {"kind": S + "Fresh", "inputs": "mid"},
        "sink": {"kind": S + "Check", "inputs": "fresh"},
        "other": {"kind": S + "Check", "inputs": "mid"},
    }
    stages["mid"]["inputs"] = "src"
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")

    def pools():
        links = [os.readlink(f) for f in Path(f"/proc/{process.pid}/fd").iterdir()]
        return {x.split(":")[1].split(" ")[0] for x in links if x.startswith("/memfd:")}

    wait_for(lambda: "ovpipe-fresh" in pools(), "the pool of the stage that copies")
    assert pools() == {"ovpipe-ledger", "ovpipe-src", "ovpipe-fresh"}
    process.send_signal(signal.SIGINT)
    assert ovpipe_run.finish(process).balanced().code == 0
