"""Every example runs and prints what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.brokers import Mosquitto, Subscriber
from tests.support.processes import wait_for

EXAMPLES = Path("examples").absolute()
CONFIG = "version: 1\nstages:\n  clip: {kind: synthetic, count: 3}\n"

CASES = {
    "hello.py": (["c.yaml", "clip"], "clip 0: nothing\nclip 1: nothing\nclip 2: nothing\n"),
    "own_stage.py": ([], "4: "),
    "queue_alone.py": ([], "7 7.0\n"),
    "queue_asyncio.py": ([], "many: [0.0, 1.0, 2.0, 3.0, 4.0]\n6 inferences\n"),
    "test_a_stage.py": ([], "2 passed"),
    "many_cameras.py": ([], "12 cameras, fewest / most: "),
    "snapshots.py": ([], "shots: 5 pictures\ncrops: 5 pictures\n"),
    "push_and_read.py": ([], "0 0.0\n1 10.0\n2 20.0\n3 30.0\n4 40.0\n5 200.0\n"),
    "submit.py": ([], "0 mean 0.0\n1 infer_error\n2 mean 2.0\n3 infer_error\n"),
    "asyncio_reader.py": ([], "answered: [0, 1, 2]\n"),
    "callbacks.py": ([], "20 called, 20 = 20 delivered + 0\n"),
    "embed.py": ([], "10 frames of ['cam/dock', 'cam/gate']\n"),
    "infer_alone.py": ([], "thing 0.9 (160.0, 120.0, 480.0, 240.0)\n0 1\n1 1\n"),
}


def test_no_example_is_left_out():
    others = {"mqtt_events.py", "zmq_peer.py"}
    assert {p.name for p in EXAMPLES.glob("*.py")} == {*CASES, *others}


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    arguments, says = CASES[name]
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert says in ended.stdout


def test_mqtt_events(tmp_path):
    pytest.importorskip("paho.mqtt")
    broker = Mosquitto(tmp_path / "broker")
    try:
        subscriber = Subscriber(broker.start().port, "site/#")
        ended = subprocess.run(
            [sys.executable, str(EXAMPLES / "mqtt_events.py"), f"mqtt://127.0.0.1:{broker.port}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        wait_for(lambda: len(subscriber.messages) == 10, "ten messages")
        assert [d["seq"] for d in subscriber.documents] == list(range(0, 100, 10))
        assert {m.topic for m in subscriber.messages} == {"site/cam/spots"}
        subscriber.close()
    finally:
        broker.close()


def test_a_foreign_process_on_both_sides(tmp_path):
    """Frames go in over ZeroMQ, through a stage, and out again."""
    config = f"""\
version: 1
stages:
  hall: {{kind: zmq-in, address: "ipc://{tmp_path}/in", live: false}}
  out: {{kind: zmq-out, address: "ipc://{tmp_path}/out", timeout: 20s}}
"""
    (tmp_path / "c.yaml").write_text(config)
    command = [sys.executable, "-m", "ovpipe", "run", "c.yaml", "--json"]
    pipeline = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    places = [f"ipc://{tmp_path}/in", f"ipc://{tmp_path}/out", "5"]
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / "zmq_peer.py"), *places],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said, told = pipeline.communicate(timeout=60)
    assert pipeline.returncode == 0, told
    assert ended.stdout.splitlines() == [f"ovpipe1/hall {i} (48, 64, 3) {i}" for i in range(5)]
    (row,) = json.loads(said)["ledger"]
    assert (row["claimed"], row["delivered"]) == (5, 5)
