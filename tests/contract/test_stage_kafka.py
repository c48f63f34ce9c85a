"""The kafka stage with librdkafka's mock cluster, read by a consumer of its own."""

from __future__ import annotations

import json
import logging
import signal
from typing import Any

import pytest

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from tests.support.processes import wait_for

pytest.importorskip("confluent_kafka")

from ovpipe.stages.kafka import Kafka
from tests.support.brokers import KafkaCluster, free_port


@pytest.fixture(scope="module")
def cluster():
    made = KafkaCluster()
    yield made
    made.close()


def opened(servers: str, **options: Any) -> Kafka:
    options.setdefault("flush_timeout", 20.0)
    stage = Kafka(servers=servers, **options)
    stage.bind(LocalContext("events"))
    stage.open()
    return stage


def frame(seq: int, stream: str = "cam/gate") -> Frame:
    return Frame(stream=stream, seq=seq, captured_ns=1)


def test_a_record_a_frame_in_order_with_the_stream_as_key(cluster) -> None:
    stage = opened(cluster.servers, topic="found")
    for seq in range(600):
        stage.consume(frame(seq))
        stage.consume(frame(seq, "b"))
    stage.close()
    records = cluster.read("found", 1200)
    for stream in ("cam/gate", "b"):
        of_it = [r for r in records if r.key() == stream.encode()]
        assert [json.loads(r.value())["seq"] for r in of_it] == list(range(600))
        assert len({r.partition() for r in of_it}) == 1
    first = records[0]
    document = json.loads(first.value())
    assert dict(first.headers())["id"].decode() == document["id"]
    assert document["id"].startswith(stage.context.run + "/")


def test_a_topic_a_stream(cluster) -> None:
    stage = opened(cluster.servers, topic="of-{stream}", options={"compression.type": "gzip"})
    stage.consume(frame(5))
    stage.close()
    (record,) = cluster.read("of-cam.gate", 1)
    assert json.loads(record.value())["seq"] == 5


def test_a_cluster_that_is_away(caplog) -> None:
    stage = opened(f"127.0.0.1:{free_port()}", flush_timeout=0.2)
    stage.consume(frame(0))
    wait_for(lambda: "broker away" in caplog.text, "the news")
    stage.close()
    assert "1 lost" in caplog.text


def test_a_cluster_that_hangs_is_given_up_and_gets_all(cluster, caplog) -> None:
    stage = opened(cluster.servers, topic="hung", timeout=1.0)
    stage.consume(frame(0))
    assert len(cluster.read("hung", 1)) == 1
    cluster.process.send_signal(signal.SIGSTOP)
    for seq in range(1, 50):
        stage.consume(frame(seq))
    wait_for(lambda: "broker away" in caplog.text, "the news")
    cluster.process.send_signal(signal.SIGCONT)
    stage.close()
    got = cluster.read("hung", 50)
    ids = dict.fromkeys(json.loads(record.value())["id"] for record in got)
    assert list(ids) == [f"{stage.context.run}/cam/gate/{n}" for n in range(50)]
    assert " lost " not in caplog.text


def test_a_spool_of_before_is_sent_first(cluster, tmp_path) -> None:
    spool = {"path": str(tmp_path / "spool.db")}
    stage = opened(f"127.0.0.1:{free_port()}", topic="later", spool=spool, flush_timeout=0.0)
    for seq in range(5):
        stage.consume(frame(seq))
    stage.close()
    stage = opened(cluster.servers, topic="later", spool=spool)
    stage.consume(frame(99))
    stage.close()
    got = [json.loads(r.value())["seq"] for r in cluster.read("later", 6)]
    assert got == [0, 1, 2, 3, 4, 99]


def test_a_record_that_is_too_large_is_refused_alone(cluster, caplog) -> None:
    stage = opened(cluster.servers, topic="sizes", options={"message.max.bytes": 2000}, meta=True)
    for seq in range(3):
        meta = {"x": "x" * 5000} if seq == 1 else {}
        stage.consume(Frame(stream="cam", seq=seq, captured_ns=1, meta=meta))
    stage.close()
    assert [json.loads(r.value())["seq"] for r in cluster.read("sizes", 2)] == [0, 2]
    assert "2 messages confirmed, 1 refused" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"servers": "x"}, "write host:port"),
        ({"servers": "x:9092,"}, "write host:port"),
        ({"servers": "x:0"}, "write host:port"),
        ({"servers": "x:1", "topic": "a/b"}, "topic 'a/b'"),
        ({"servers": "x:1", "username": "u"}, "belong together"),
        ({"servers": "x:1", "options": {"acks": 0}}, "'acks' cannot be changed"),
        ({"servers": "x:1", "options": {"linger.msec": 3}}, "linger.msec"),
        (
            {
                "servers": "x:1",
                "options": {"ssl.key.password": "hush", "security.protocol": "hush"},
            },
            "options: ",
        ),
    ],
)
def test_what_cannot_be_right_ends_the_run_before_it_begins(options, says, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PreflightError) as caught:
        Kafka(**options).open()
    assert says in str(caught.value)
    assert "hush" not in str(caught.value) + caplog.text
