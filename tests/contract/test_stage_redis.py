"""The redis stage with a real redis-server, read by a client of its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ovpipe.detections import Detections
from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from tests.support.processes import wait_for

pytest.importorskip("redis")

import redis

from ovpipe.stages.redis import Redis
from tests.support.brokers import RedisServer, free_port, self_signed

FOUND = Detections.of([[1, 2, 3, 4]], [0.93], [0], {0: "ж \ud800"})


@pytest.fixture
def server(tmp_path: Path):
    started = []

    def make(*arguments: str) -> RedisServer:
        started.append(RedisServer(tmp_path / f"redis-{len(started)}", *arguments))
        return started[-1]

    yield make
    for one in started:
        one.close()


def opened(port: int, path: str = "", **options: Any) -> Redis:
    options.setdefault("flush_timeout", 20.0)
    stage = Redis(url=f"redis://127.0.0.1:{port}{path}", **options)
    stage.bind(LocalContext("events"))
    stage.open()
    return stage


def frame(seq: int, stream: str = "cam", **parts: Any) -> Frame:
    return Frame(stream=stream, seq=seq, captured_ns=1, **parts)


def entries(port: int, key: str, db: int = 0, **options: Any) -> list[dict[str, Any]]:
    with redis.Redis(port=port, db=db, decode_responses=True, **options) as reader:
        return [fields for _, fields in reader.xrange(key)]


def test_an_entry_a_frame_in_order(server) -> None:
    broker = server().start()
    stage = opened(broker.port, "/3", key="found:{stream}")
    for seq in range(250):
        stage.consume(frame(seq, detections=FOUND))
    stage.consume(frame(0, "b/c"))
    stage.close()
    got = entries(broker.port, "found:cam", 3)
    assert [int(fields["seq"]) for fields in got] == list(range(250))
    document = json.loads(got[7]["json"])
    assert got[7]["id"] == document["id"] == f"{stage.context.run}/cam/7"
    assert document["detections"][0]["label"] == "ж \ud800"
    assert [fields["stream"] for fields in entries(broker.port, "found:b/c", 3)] == ["b/c"]


@pytest.mark.parametrize("limit", [{"max_entries": 100}, {"max_age": 1000.0}])
def test_a_stream_keeps_about_so_many(server, limit) -> None:
    broker = server("--stream-node-max-entries", "10").start()
    old = 1000  # ms since 1970
    with redis.Redis(port=broker.port) as writer:
        writer.xadd("ovpipe:cam", {"a": 1}, id=f"{old}-1")
        for _ in range(30):
            writer.xadd("ovpipe:cam", {"a": 1}, id=f"{old}-*")
    stage = opened(broker.port, **limit)
    for seq in range(300 if "max_entries" in limit else 20):
        stage.consume(frame(seq))
    stage.close()
    got = entries(broker.port, "ovpipe:cam")
    left = [int(fields["seq"]) for fields in got if "seq" in fields]
    if "max_entries" in limit:
        assert 100 <= len(got) < 120
        assert left == list(range(300))[-len(left) :]
    else:
        assert left == list(range(20))
        assert len(got) - len(left) < 10


def test_a_server_that_goes_and_comes_back_gets_all(server, caplog) -> None:
    broker = server("--appendonly", "yes", "--appendfsync", "always")
    stage = opened(broker.port)
    stage.consume(frame(0))
    wait_for(lambda: "away" in caplog.text, "the news that it is away")
    broker.start()
    wait_for(lambda: len(entries(broker.port, "ovpipe:cam")) == 1, "the message of before")
    broker.kill()
    for seq in range(1, 50):
        stage.consume(frame(seq))
    wait_for(lambda: caplog.text.count("broker away") >= 2, "the news that it has gone")
    broker.start()
    stage.close()
    ids = [fields["id"] for fields in entries(broker.port, "ovpipe:cam")]
    assert list(dict.fromkeys(ids)) == [f"{stage.context.run}/cam/{n}" for n in range(50)]


def test_what_is_wrong_with_an_entry_refuses_it_alone(server, caplog) -> None:
    broker = server().start()
    with redis.Redis(port=broker.port) as writer:
        writer.set("ovpipe:bad", "no stream")
    stage = opened(broker.port)
    for seq in range(3):
        stage.consume(frame(seq, "bad"))
        stage.consume(frame(seq, "good"))
    stage.close()
    assert len(entries(broker.port, "ovpipe:good")) == 3
    assert "3 messages confirmed, 3 refused" in caplog.text
    assert "WRONGTYPE" in caplog.text


def test_a_full_server_is_waited_for(server, caplog) -> None:
    broker = server("--maxmemory", "1", "--maxmemory-policy", "noeviction").start()
    stage = opened(broker.port)
    stage.consume(frame(0))
    wait_for(lambda: "maxmemory" in caplog.text, "the news")
    with redis.Redis(port=broker.port) as writer:
        writer.config_set("maxmemory", 0)
    stage.close()
    assert len(entries(broker.port, "ovpipe:cam")) == 1


def test_tls(server, tmp_path, caplog) -> None:
    key, certificate = self_signed(tmp_path)
    port = free_port()
    broker = server(
        "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no",
    ).start()  # fmt: skip
    for options in ({"flush_timeout": 0.0}, {"ca_file": str(certificate), "flush_timeout": 20.0}):
        stage = Redis(url=f"rediss://localhost:{port}", **options)
        stage.bind(LocalContext("events"))
        stage.open()
        stage.consume(frame(len(options)))
        if len(options) == 1:
            wait_for(lambda: "certificate verify failed" in caplog.text, "the news")
        stage.close()
    assert [fields["seq"] for fields in entries(broker.port, "ovpipe:cam")] == ["2"]


def test_a_wrong_password_is_told_apart_and_not_shown(server, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    broker = server("--requirepass", "right-horse").start()
    for password in ("wrong-horse", ""):
        stage = opened(broker.port, password=password, flush_timeout=0.0)
        stage.consume(frame(0))
        wait_for(lambda: "denied" in caplog.text, "the news")
        stage.close()
        assert "1 lost" in caplog.text
        assert "horse" not in caplog.text
        caplog.clear()
    stage = opened(broker.port, password="right-horse")
    stage.consume(frame(1))
    stage.close()
    assert [f["seq"] for f in entries(broker.port, "ovpipe:cam", password="right-horse")] == ["1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "redis://x/one"}, "a number, or nothing"),
        ({"url": "redis://x/0?a=hush"}, "options in the url"),
        ({"url": "redis://x", "key": ""}, "key is empty"),
        ({"url": "redis://x", "max_age": 1.0, "max_entries": 1}, "not both"),
        ({"url": "redis://x", "ca_file": "/x"}, "rediss:// only"),
        ({"url": "rediss://x", "ca_file": "/none"}, "ca_file '/none'"),
    ],
)
def test_what_cannot_be_right_ends_the_run_before_it_begins(options, says) -> None:
    with pytest.raises(PreflightError) as caught:
        Redis(**options).open()
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
