"""run --max-frames and --log-format: exact counts, and nothing but JSON for collectors."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest
from click.testing import CliRunner

from ovpipe.cli import group
from ovpipe.cli.talk import level_of
from tests.cli.test_commands import ovpipe
from tests.support.processes import wait_for

__all__ = ["ovpipe"]
HEAD = "version: 1\nname: yard\nstages:\n"
SINK = "  sink: {kind: 'ovpipe.testing:ScriptedSink'}\n"


def script(items, more=""):
    return HEAD + f"  cam: {{kind: 'ovpipe.testing:Script', items: {items}{more}}}\n" + SINK


@pytest.mark.parametrize(
    ("items", "more", "failed"),
    [
        ("[{frame: 500}]", "", {}),
        ("[frame, {drop: 2}]", ", repeat: true", {"decode_error": 4}),
        ("[{frame: 6}, {drop: 500}, frame]", "", {"decode_error": 1}),
        ("[{frame: 4}, {exit: 3}, {frame: 500}]", "", None),  # plays again after a restart
        ("[{frame: 3}]", ", run: {restart: always, max_restarts: 1000}", {}),
    ],
    ids=["as many", "lost ones count", "no more than that", "restarted", "restarted always"],
)
def test_each_stream_ends_after_so_many_frames(ovpipe, items, more, failed):
    source = script(items, more)
    ended = ovpipe("run", "c.yaml", "--json", "--max-frames", "7", config=source)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(ended.stdout)["ledger"]
    assert (row["claimed"], row["in_flight"]) == (7, 0)
    assert failed is None or row["failed"] == failed


def test_streams_are_counted_one_by_one_and_edges_agree(ovpipe):
    source = (
        HEAD + "  cam: {kind: synthetic, size: 32x32, for_each: {a: {}, b: {fps: 200}}}\n"
        "  one: {kind: 'ovpipe.testing:ScriptedSink', inputs: cam}\n"
        "  two: {kind: 'ovpipe.testing:ScriptedSink', inputs: cam}\n"
    )
    ended = ovpipe("run", "c.yaml", "--json", "--max-frames", "30", config=source)
    rows = json.loads(ended.stdout)["ledger"]
    assert len(rows) == 4
    assert {row["claimed"] for row in rows} == {30}


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_wrong_number_is_a_wrong_usage(count):
    ended = CliRunner().invoke(group, ["run", "c.yaml", "--max-frames", count])
    assert ended.exit_code == 2
    assert "--max-frames" in ended.stderr


def test_all_that_is_said_is_json(ovpipe):
    ended = ovpipe(
        "run", "c.yaml", "--log-format", "json", config=script("[{frame: 5}, {drop: 2}]")
    )
    assert ended.returncode == 0
    assert ended.stdout == ""
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in said)
    assert {line["level"] for line in said} == {"info"}
    assert said[0]["phase"] == "starting"
    (row,) = (line for line in said if "claimed" in line)
    assert (row["stage"], row["claimed"], row["failed"]) == ("ovpipe", 7, {"decode_error": 2})
    assert row["message"].startswith("edge 'cam -> sink', stream 'cam': 7 claimed, 5 delivered")


def test_a_stage_that_fails_is_told_with_its_traceback(ovpipe):
    source = script("[frame, crash]", ", run: {restart: never}")
    ended = ovpipe("run", "c.yaml", "--log-format", "json", config=source)
    assert ended.returncode == 4
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert said[-1]["level"] == "error"
    assert "stage 'cam' failed" in said[-1]["message"]
    assert "Traceback" in said[-1]["traceback"]


def test_so_is_all_that_is_wrong_before(ovpipe):
    wrong = ("--set", "stages.cam.fps=x", "--set", "stages.cam.sizes=1")
    ended = ovpipe("run", "c.yaml", "--log-format", "json", *wrong, config=script("[frame]"))
    assert ended.returncode == 2
    assert [json.loads(line)["level"] for line in ended.stderr.splitlines()] == ["error"] * 2


def test_a_signal_is_told_in_a_line_of_its_own(tmp_path):
    (tmp_path / "c.yaml").write_text(script("[frame]", ", repeat: true, fps: 50"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ovpipe", "run", "c.yaml", "--log-format", "json"],
            cwd=tmp_path, stderr=log,
        )  # fmt: skip
    try:
        wait_for(lambda: '"running"' in (tmp_path / "log").read_text(), "frames", 60)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(line["message"].startswith("draining") for line in said)


@pytest.mark.parametrize(
    ("worker", "line", "level"),
    [
        ("ovpipe", "stage 'a' died (SIGKILL) while working; restart 1/5 in 0.1 s", "warning"),
        ("ovpipe", "stage 'a' is back after 1.3 s", "info"),
        ("cam", "WARNING: no signal", "warning"),
        ("cam", "[error] no signal", "error"),
        ("cam", "Traceback (most recent call last):", "error"),
        ("cam", "errors are rare", "info"),
    ],
)
def test_levels(worker, line, level):
    assert level_of(worker, line) == level
