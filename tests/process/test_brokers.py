"""Runs whose broker or whose sink goes away and comes back: what was delivered arrives.

Read by a subscriber of its own. What may come twice has the same id; nothing else comes twice.
"""

import signal
import socket
import sqlite3
from collections import Counter

import psutil
import pytest

from tests.process.conftest import said
from tests.support.processes import family, wait_for, worker_of

pytest.importorskip("paho.mqtt")

from tests.support.brokers import Mosquitto, Subscriber

COUNT = 400
SOURCE = {"kind": "synthetic", "count": COUNT, "fps": 100, "size": "32x32"}


@pytest.fixture
def broker(tmp_path):
    server = Mosquitto(tmp_path / "broker", users={"camera": "right horse", "reader": "r"})
    yield server
    server.close()


@pytest.fixture
def reader(broker):
    """Starts the broker; its session outlives the broker's absence."""
    started = []

    def start():
        broker.start()
        started.append(Subscriber(broker.port, username="reader", password="r"))
        return started[-1]

    yield start
    for one in started:
        one.close()


def sink(broker, **options):
    options = {"flush_timeout": "60s", **options}
    return {
        "kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}", "username": "camera",
        "password": "${MQTT_PASSWORD}", "topic": "events/{stream}", **options,
    }  # fmt: skip


def ids(subscriber):
    return [document["id"].split("/", 1) for document in subscriber.documents]


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("MQTT_PASSWORD", "right horse")


def command_lines(process):
    found = []
    for each in [psutil.Process(process.pid), *family(process.pid)]:
        try:
            found.append(" ".join(each.cmdline()))
        except psutil.Error:
            pass
    return "\n".join(found)


@pytest.mark.parametrize("spool", ["memory", "disk"])
def test_a_broker_that_is_stopped_and_started_gets_every_frame(
    ovpipe_run, broker, reader, tmp_path, spool
):
    options = {"spool": {"path": str(tmp_path / "spool.db")}} if spool == "disk" else {}
    subscriber = reader()
    broker.stop()
    process = ovpipe_run.start({"cam": SOURCE, "events": sink(broker, **options)})
    ovpipe_run.until(process, "events: broker away")  # it is not there at the start: no failure
    broker.start()
    for more in (1, 60):
        wait_for(lambda n=more: len(subscriber.messages) >= n, "messages")
    broker.stop()
    wait_for(lambda: said(process).count("events: broker away") > 1, "that it is missed again")
    assert "horse" not in command_lines(process)
    broker.start()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["cam", "events"]["delivered"] == COUNT
    wait_for(lambda: len({n for _, n in ids(subscriber)}) == COUNT, "every frame")
    # In order but for what came again, of one run, under its own topic.
    got = list(dict.fromkeys(map(tuple, ids(subscriber))))
    assert [n for _, n in got] == [f"cam/{n}" for n in range(COUNT)]
    assert len({run for run, _ in got}) == 1
    assert {message.topic for message in subscriber.messages} == {"events/cam"}
    assert "horse" not in ended.err
    assert "Traceback" not in ended.err
    assert " lost " not in ended.err


def test_A03_sigkill_of_the_sink_loses_nothing_that_was_delivered(
    ovpipe_run, broker, reader, tmp_path
):
    """A03. With a spool on disk, and the broker away while it happens."""
    many = 700  # so that it lasts beyond all that is done to it
    spool = {"path": str(tmp_path / "spool.db")}
    subscriber = reader()
    process = ovpipe_run.start(
        {"cam": {**SOURCE, "count": many}, "events": {**sink(broker, spool=spool), "inputs": "cam"}}
    )
    wait_for(lambda: len(subscriber.messages) >= 50, "messages")
    worker_of(process.pid, "events").kill()
    ovpipe_run.until(process, "stage 'events' is back after")
    broker.stop()
    ovpipe_run.until(process, "events: broker away")
    worker_of(process.pid, "events").kill()
    ovpipe_run.until(process, "messages of before wait in the spool")
    broker.start()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["cam", "events"]
    crashed = row["failed"].get("stage_crash", 0)
    assert row["delivered"] + crashed == many
    assert set(row["failed"]) <= {"stage_crash"}
    assert crashed <= 2
    wait_for(lambda: len({n for _, n in ids(subscriber)}) >= row["delivered"], "every frame")
    got = Counter(map(tuple, ids(subscriber)))
    assert len({run for run, _ in got}) == 1  # its successors speak of the same run
    assert row["delivered"] <= len(got) <= many


def test_a_drain_while_the_broker_is_away_leaves_the_rest_in_the_spool(
    ovpipe_run, broker, reader, tmp_path
):
    path = tmp_path / "spool.db"
    stages = {
        "cam": {**SOURCE, "count": 0},
        "events": sink(broker, spool={"path": str(path)}, flush_timeout="200ms"),
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "events: broker away")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    delivered = ended.ledger["cam", "events"]["delivered"]
    assert f"{delivered} left in '{path}'" in ended.err
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM messages").fetchone() == (delivered,)
    database.close()
    subscriber = reader()
    sent = sink(broker, spool={"path": str(path)})
    again = ovpipe_run({"cam": {**SOURCE, "count": 1}, "events": sent})
    assert again.code == 0, again.err
    wait_for(lambda: len(subscriber.messages) >= delivered + 1, "what was left, and one more")
    assert len({tuple(x) for x in ids(subscriber)}) == delivered + 1


def test_blocking_paces_the_source_and_is_no_hang(ovpipe_run, broker):
    """The stage waits for the broker for longer than a stage may be silent."""
    stages = {
        "cam": {**SOURCE, "count": 60, "fps": 0},
        "events": {
            **sink(broker, spool={"max_messages": 5}, when_full="block"),
            "run": {"stall_timeout": "1s"},
        },
    }
    process = ovpipe_run.start(stages)
    with socket.create_server(("127.0.0.1", broker.port)) as listener:
        listener.settimeout(60)
        for _ in range(3):  # the third attempt comes later than the stage may be silent
            listener.accept()[0].close()
    broker.start()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "died" not in ended.err
    assert ended.ledger["cam", "events"]["delivered"] == 60


def test_what_cannot_be_right_ends_the_run_before_its_first_frame(ovpipe_run):
    ended = ovpipe_run({"cam": SOURCE, "events": {"kind": "mqtt", "url": "localhost"}})
    assert ended.code == 3
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "events" in error
    assert "begin it with one of mqtt://, mqtts://" in error
