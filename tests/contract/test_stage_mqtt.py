"""The mqtt stage with a real mosquitto, read by a subscriber of its own."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from tests.support.processes import wait_for

pytest.importorskip("paho.mqtt")

from ovpipe.stages.mqtt import Mqtt
from tests.support.brokers import Mosquitto, Subscriber, free_port, self_signed

FOUND = Detections.of([[1, 2, 3, 4], [5, 6, 7, 8]], [0.93, 0.4], [0, 1], {0: "person", 1: "cat"})


@pytest.fixture
def mosquitto(tmp_path: Path):
    started = []

    def make(**options: Any) -> Mosquitto:
        started.append(Mosquitto(tmp_path / f"broker-{len(started)}", **options))
        return started[-1]

    yield make
    for server in started:
        server.close()


@pytest.fixture
def subscriber():
    started = []

    def make(*arguments: Any, **options: Any) -> Subscriber:
        started.append(Subscriber(*arguments, **options))
        return started[-1]

    yield make
    for reader in started:
        reader.close()


def known(broker: Mosquitto, subscriber: Any, *arguments: Any, **options: Any) -> Subscriber:
    """A reader that the broker keeps messages for; the broker is not there now."""
    broker.start()
    reader: Subscriber = subscriber(broker.port, *arguments, **options)
    broker.stop()
    return reader


def opened(port: int, **options: Any) -> Mqtt:
    options.setdefault("flush_timeout", 20.0)
    stage = Mqtt(url=f"mqtt://127.0.0.1:{port}", **options)
    stage.bind(LocalContext("events"))
    stage.open()
    return stage


def frame(seq: int, stream: str = "cam/gate", **parts: Any) -> Frame:
    return Frame(stream=stream, seq=seq, pts_ns=seq * 40_000_000, captured_ns=1, **parts)


def test_a_message_a_frame_in_order_under_its_stream(mosquitto, subscriber) -> None:
    broker = mosquitto().start()
    reader = subscriber(broker.port, "site/#")
    stage = opened(broker.port, topic="site/{stream}/events")
    for seq in range(300):
        stage.consume(frame(seq, detections=FOUND))
        stage.consume(frame(seq, "b"))
    stage.close()
    wait_for(lambda: len(reader.messages) == 600, "all messages")
    first = reader.documents[0]
    assert first.pop("time").endswith("Z")
    assert first == {
        "v": 1, "id": f"{stage.context.run}/cam/gate/0", "stream": "cam/gate", "seq": 0,
        "pts": 0.0, "width": None, "height": None, "detections": [
            {"label": "person", "class_id": 0, "score": 0.93, "box": [1.0, 2.0, 3.0, 4.0]},
            {"label": "cat", "class_id": 1, "score": 0.4, "box": [5.0, 6.0, 7.0, 8.0]},
        ],
    }  # fmt: skip
    for stream in ("cam/gate", "b"):
        of_it = [d for d in reader.documents if d["stream"] == stream]
        assert [d["seq"] for d in of_it] == list(range(300))
    assert {m.topic for m in reader.messages} == {"site/cam/gate/events", "site/b/events"}
    assert {m.qos for m in reader.messages} == {1}


def test_only_what_is_wanted(mosquitto, subscriber) -> None:
    broker = mosquitto().start()
    reader = subscriber(broker.port)
    stage = opened(broker.port, found=True, labels=["person"], score=0.5)
    for seq, found in enumerate([FOUND, None, FOUND[[False, True]], FOUND]):
        stage.consume(frame(seq, detections=found))
    stage.close()
    wait_for(lambda: len(reader.messages) == 2, "two messages")
    assert [d["seq"] for d in reader.documents] == [0, 3]
    assert [[f["label"] for f in d["detections"]] for d in reader.documents] == [["person"]] * 2


@pytest.mark.parametrize(("version", "end"), [("5", "kill"), ("3.1.1", "stop")])
def test_a_broker_that_goes_and_comes_back_gets_all(
    mosquitto, subscriber, tmp_path, version, end, caplog
) -> None:
    broker = mosquitto()
    reader = known(broker, subscriber)
    spool = {"path": str(tmp_path / "spool.db")} if end == "kill" else {}
    stage = opened(broker.port, version=version, spool=spool)  # it is not there at the start
    stage.consume(frame(0))
    wait_for(lambda: "away" in caplog.text, "the news that it is away")
    broker.start()
    wait_for(lambda: len(reader.messages) == 1, "the message of before")
    getattr(broker, end)()
    wait_for(lambda: caplog.text.count("broker away") >= 2, "the news that it has gone")
    for seq in range(1, 50):
        stage.consume(frame(seq))
    broker.start()
    wait_for(lambda: {d["seq"] for d in reader.documents} == set(range(50)), "all messages")
    stage.close()
    ids = [d["id"] for d in reader.documents]
    assert list(dict.fromkeys(ids)) == [f"{stage.context.run}/cam/gate/{n}" for n in range(50)]
    assert caplog.text.count("connected to") == 2


def test_a_broker_that_hangs_is_given_up_and_gets_all(mosquitto, subscriber, caplog) -> None:
    broker = mosquitto().start()
    reader = subscriber(broker.port)
    stage = opened(broker.port, timeout=0.3)
    stage.consume(frame(0))
    wait_for(lambda: len(reader.messages) == 1, "the first message")
    broker.process.send_signal(signal.SIGSTOP)
    for seq in range(1, 20):
        stage.consume(frame(seq))
    wait_for(lambda: "it confirmed nothing within" in caplog.text, "the news")
    broker.process.send_signal(signal.SIGCONT)
    stage.close()
    wait_for(lambda: {d["seq"] for d in reader.documents} == set(range(20)), "all messages")
    assert " lost " not in caplog.text


def test_a_wrong_password_is_told_apart_and_not_shown(mosquitto, subscriber, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    broker = mosquitto(users={"camera": "right horse", "reader": "r"}).start()
    stage = opened(broker.port, username="camera", password="wrong horse", flush_timeout=0.0)
    stage.consume(frame(0))
    wait_for(lambda: "denied" in caplog.text, "the news")
    stage.close()
    assert "1 lost" in caplog.text
    assert "horse" not in caplog.text
    reader = subscriber(broker.port, username="reader", password="r")
    stage = opened(broker.port, username="camera", password="right horse")
    stage.consume(frame(1))
    stage.close()
    wait_for(lambda: [d["seq"] for d in reader.documents] == [1], "the message")


def test_a_spool_of_before_is_sent_first(mosquitto, subscriber, tmp_path) -> None:
    broker = mosquitto()
    reader = known(broker, subscriber)
    spool = {"path": str(tmp_path / "spool.db")}
    first = opened(broker.port, spool=spool, flush_timeout=0.0)
    for seq in range(20):
        first.consume(frame(seq))
    first.close()
    broker.start()
    second = opened(broker.port, spool=spool)
    second.consume(frame(99))
    second.close()
    wait_for(lambda: len(reader.messages) == 21, "all messages")
    runs = [first.context.run] * 20 + [second.context.run]
    assert [d["id"].partition("/")[0] for d in reader.documents] == runs


@pytest.mark.parametrize(
    ("when_full", "failed", "dropped"),
    [("drop_oldest", [], 15), ("drop_newest", list(range(5, 20)), 0)],
)
def test_a_full_spool(when_full, failed, dropped, mosquitto, subscriber, caplog) -> None:
    broker = mosquitto()
    reader = known(broker, subscriber)
    stage = opened(broker.port, spool={"max_messages": 5}, when_full=when_full)
    lost = []
    for seq in range(20):
        try:
            stage.consume(frame(seq))
        except FrameError as error:
            assert error.reason == "link_lost"
            lost.append(seq)
    assert lost == failed
    broker.start()
    wait_for(lambda: len(reader.messages) == 5, "what was kept")
    stage.close()
    kept = range(15, 20) if dropped else range(5)
    assert [d["seq"] for d in reader.documents] == list(kept)
    assert (f"{dropped} dropped" in caplog.text) or not dropped


def test_block_waits_for_the_broker_and_not_longer_than_the_drain(mosquitto, caplog) -> None:
    broker = mosquitto()
    stage = opened(broker.port, spool={"max_messages": 2}, when_full="block", flush_timeout=0.2)
    stage.consume(frame(0))
    stage.consume(frame(1))
    stage.context.stopping = True
    for seq in (2, 3):
        with pytest.raises(FrameError) as caught:
            stage.consume(frame(seq))
        assert caught.value.reason == "link_lost"
    stage.close()
    assert "2 lost" in caplog.text


def test_what_is_larger_than_the_spool_waits_for_nothing() -> None:
    stage = opened(
        free_port(), spool={"max_mb": 0.001}, when_full="block", meta=True, flush_timeout=0.0
    )
    with pytest.raises(FrameError) as caught:
        stage.consume(frame(0, meta={"long": "x" * 2000}))
    assert caught.value.reason == "link_lost"
    stage.close()


def test_tls(tmp_path, mosquitto, subscriber, caplog) -> None:
    key, certificate = self_signed(tmp_path)
    broker = mosquitto(tls=(key, certificate)).start()
    url = f"mqtts://localhost:{broker.tls_port}"
    stage = Mqtt(url=url, flush_timeout=0.0)
    stage.bind(LocalContext("events"))
    stage.open()
    stage.consume(frame(0))
    wait_for(lambda: "certificate verify failed" in caplog.text, "the news")
    stage.close()
    reader = subscriber(broker.port)
    stage = Mqtt(url=url, ca_file=str(certificate), flush_timeout=20.0)
    stage.bind(LocalContext("events"))
    stage.open()
    stage.consume(frame(1))
    stage.close()
    wait_for(lambda: reader.messages, "the message")
    assert [d["seq"] for d in reader.documents] == [1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "127.0.0.1:1883"}, "begin it with one of mqtt://, mqtts://"),
        ({"url": "http://x"}, "no such kind of server"),
        ({"url": "mqtt://x:port"}, "no valid address"),
        ({"url": "mqtt://u:hush/@x"}, "no valid address"),
        ({"url": "mqtt://u:1/hush@x"}, "ends behind host and port"),
        ({"url": "mqtt://"}, "names no host"),
        ({"url": "mqtt://x/y"}, "ends behind host and port"),
        ({"url": "mqtt://u:hush@x", "username": "u"}, "leave those in the url out"),
        ({"url": "mqtt://x", "password": "hush"}, "password without username"),
        ({"url": "mqtt://x", "topic": "a/#"}, "topic 'a/#'"),
        ({"url": "mqtt://x", "ca_file": "/x"}, "mqtts:// only"),
        ({"url": "mqtts://x", "ca_file": "/none"}, "ca_file '/none'"),
        ({"url": f"mqtt://127.0.0.1:{free_port()}", "spool": {"path": "/dev/null/x"}}, "cannot"),
    ],
)
def test_what_cannot_be_right_ends_the_run_before_it_begins(options, says) -> None:
    with pytest.raises(PreflightError) as caught:
        Mqtt(**options).open()
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
