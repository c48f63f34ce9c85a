"""bench: the real thing, for a moment."""

import json
import re
import xml.etree.ElementTree as ET

from tests.cli.test_commands import ovpipe
from tests.support.models import echo

__all__ = ["ovpipe"]
SHORT = ("--seconds", "1s", "--warm", "200ms", "--rounds", "1")


def test_a_graph_is_measured_beside_benchmark_app(ovpipe, tmp_path):
    model = echo(tmp_path)
    (tmp_path / "out.jsonl").write_text("mine\n")
    config = (
        "version: 1\nname: yard\nstages:\n  cam: {kind: video, url: 'rtsp://me:hunter2@10.0.0.1/x'}\n"
        f"  detect: {{kind: infer, model: {model}}}\n  out: {{kind: jsonl, path: out.jsonl}}\n"
    )
    before = {p.name for p in tmp_path.iterdir()} | {"c.yaml", "p.svg"}
    ended = ovpipe(
        "bench", "c.yaml", *SHORT, "--size", "64x48", "--json", "--plot", "p.svg", config=config
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["at"] == "detect"
    assert told["frames_per_s"] > 1
    assert told["benchmark_app"]["detect"]["per_s"] > 1
    share = told["frames_per_s"] / told["benchmark_app"]["detect"]["per_s"]
    assert abs(told["share_of_benchmark_app"] - share) < 0.05 * share + 0.05
    assert [s["name"] for s in told["rounds"][0]["stages"]] == ["cam", "detect", "out"]
    assert sum(s["cores"] for s in told["rounds"][0]["stages"]) > 0
    assert told["rounds"][0]["lost_per_s"] == 0
    assert any("'cam' is live" in text for text in told["changed"])
    assert "hunter2" not in ended.stdout + ended.stderr
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"
    assert {p.name for p in tmp_path.iterdir()} == before
    ET.fromstring((tmp_path / "p.svg").read_text())


def test_streams_and_text(ovpipe):
    config = (
        "version: 1\nname: yard\nstages:\n  a: {kind: synthetic, size: 32x32}\n  b: {kind: log}\n"
    )
    ended = ovpipe(
        "bench",
        "c.yaml",
        *SHORT,
        "--fps",
        "20",
        "--p99",
        "5s",
        "--most",
        "2",
        "--plot",
        "p.svg",
        config=config,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^yard: [\d.]+ frames/s at 'b'$", ended.stdout, re.M)
    assert "where each frame's processor time goes" in ended.stdout
    assert re.search(r"^[012] streams of 20 frames/s, p99 below 5000 ms", ended.stdout, re.M)


def test_what_cannot_be_measured_is_one_error(ovpipe):
    config = "version: 1\nstages:\n  a: {kind: video, url: none.mp4}\n  b: {kind: log}\n"
    ended = ovpipe("bench", "c.yaml", *SHORT, config=config)
    assert ended.returncode == 3
    assert "none.mp4" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = ovpipe("bench", "c.yaml", "--plot", "no/p.svg", config=config)
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
