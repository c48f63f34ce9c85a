"""peek, logs, restart, and what top and ps show: the commands, as processes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from ovpipe.supervisor.bulletin import runs
from tests.process.test_running import call
from tests.support.processes import wait_for, worker_of

S = "tests.support.stages:"
YARD = {
    "cam": {"kind": "synthetic", "size": "64x48", "fps": 50, "for_each": {"gate": {}, "dock": {}}},
    "found": {"kind": S + "Finds", "inputs": "cam"},
    "away": {"kind": "pipe", "size": "8x8", "format": "gray", "command": ["false", "secret"]},
    "log": {"kind": "log", "inputs": ["found", "away"], "every": 100000},
}


@pytest.fixture
def yard(ovpipe_run):
    process = ovpipe_run.start(YARD)
    wait_for(
        lambda: any(sum(a.delivered for a in run.reading.accounts) for run in runs()), "frames"
    )
    yield process
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err


def test_peek_tells_what_a_frame_holds_and_draws_it(yard, tmp_path):
    told = call("peek", "found -> log", "--stream", "cam/gate")
    assert told.returncode == 0, told.stderr
    first, *rest = told.stdout.splitlines()
    assert first.startswith("stream cam/gate, frame ")
    assert first.endswith("of found")
    assert rest == [
        "image bgr 64x48", "array keypoints (1, 17, 3) float32", "detections 1",
        "  person 0.90 [5.0, 6.0, 30.0, 40.0] #7", "meta fps 50.0", "meta odd \"?[2J\"".replace("?", "\\u001b"),
    ]  # fmt: skip
    cv2 = pytest.importorskip("cv2")
    png = tmp_path / "a.png"
    said = json.loads(call("peek", "found", "--json", "--png", str(png)).stdout)
    assert said["detections"][0]["box"] == [5.0, 6.0, 30.0, 40.0]
    assert said["arrays"] == {"keypoints": {"shape": [1, 17, 3], "dtype": "float32"}}
    assert (said["image"]["width"], said["image"]["height"]) == (64, 48)
    picture = cv2.imread(str(png))
    assert picture.shape == (48, 64, 3)
    colour = picture[40, 20]  # the lower edge of the box has one colour
    assert (picture[40, 10:28] == colour).all()
    raw = subprocess.run(
        [sys.executable, "-m", "ovpipe", "peek", "cam", "--png", "-"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert raw.stdout.startswith(b"\x89PNG")


def test_wrong_names_say_what_was_meant(yard):
    wrong = call("peek", "cam -> fuond")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean 'cam -> found'?" in wrong.stderr
    assert "did you mean 'cam/gate'?" in call("peek", "cam", "--stream", "cam/gat").stderr
    assert "did you mean 'found'?" in call("restart", "fond").stderr
    late = call("peek", "away", "--timeout", "0.1")
    assert "no frame came along 'away -> log' within 0.1 s" in late.stderr
    assert "no pipeline 'x' runs" in call("peek", "cam", "--run", "x").stderr


def test_restart_waits_until_the_stage_is_back_and_logs_tell_of_it(yard):
    pid = worker_of(yard.pid, "cam/gate").pid
    back = call("restart", "cam/gate", "--run", str(yard.pid))
    assert back.returncode == 0, back.stderr
    assert back.stderr == "cam/gate: back\n"
    assert worker_of(yard.pid, "cam/gate").pid != pid
    said = call("logs").stdout
    assert "[ovpipe] stage 'cam/gate' is to be restarted, as asked for" in said
    assert "[away] away: camera connecting: " in said
    assert "secret" not in said
    rows = [json.loads(line) for line in call("logs", "--json").stdout.splitlines()]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    first = subprocess.run(
        f"{sys.executable} -m ovpipe logs --times | head -1",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "[away]" in first.stdout
    assert first.stderr == ""


def test_top_and_ps_show_cameras_edges_and_ages(yard):
    assert "1 connecting" in call("ps").stdout
    shown = call("top", "--once")
    lines = shown.stdout.splitlines()
    (away,) = (line for line in lines if line.startswith("away ") and "->" not in line)
    assert "connecting " in away
    assert "the command ended with exit code 1" in away or "at the start" in away
    (edge,) = (line for line in lines if line.startswith("cam -> found  cam/gate"))
    _, _, _, _, came, went, p50, p95, p99, full, lost = edge.split()
    assert float(came) > 0
    assert float(went) > 0
    assert 0 < float(p50) <= float(p95) <= float(p99)
    assert 0 <= float(full) <= 100
    assert lost == "-"
    assert "secret" not in shown.stdout
    terminal = subprocess.run(
        ["script", "-qec", f"timeout -s INT 3 {sys.executable} -m ovpipe top", "/dev/null"],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "cam/gate" in terminal.stdout
    assert "Traceback" not in terminal.stdout


def test_the_programs_of_the_manual_do_what_it_says(ovpipe_run, capsys):
    """docs/observe.md."""
    text = Path("docs/observe.md").read_text()
    look, rates, stage = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(f"import ovpipe\n{stage}", "docs/observe.md", "exec"), names := {"__name__": "d"})
    gate = names["Gate"]()
    gate.bind(LocalContext("gate"))
    gate.process(Frame(seq=3))
    assert gate.context.facts == {"open": True, "since": 3}
    cam = {"kind": "synthetic", "size": "64x48", "fps": 50}
    detect = {"kind": S + "Finds"}
    process = ovpipe_run.start({"cam": cam, "detect": detect, "log": {"kind": "log"}})
    wait_for(lambda: any(run.phase == "running" for run in runs()), "the run")
    exec(compile(f"{look}\n{rates}", "docs/observe.md", "exec"), names := {"__name__": "docs"})
    assert names["frame"].image is not None
    assert [(edge.source, edge.target) for edge in names["between"].edges] == [
        ("cam", "detect"), ("detect", "log"),
    ]  # fmt: skip
    assert "config-0" in capsys.readouterr().out
    assert call("stop").returncode == 0
    assert ovpipe_run.finish(process).balanced().code == 0
