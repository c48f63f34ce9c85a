"""zmq-in and zmq-out with foreign peers: frames, rubbish, silence, keys, strangers."""

from __future__ import annotations

import os
import socket
import stat
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.zmq_in import ZmqIn
from ovpipe.stages.zmq_out import ZmqOut
from ovpipe.stages.zmq_socket import Link, Socket
from ovpipe.stages.zmq_wire import MAX_PARTS
from ovpipe.testing import run_stage
from tests.support.processes import wait_for


@pytest.fixture
def peer() -> Iterator[Any]:
    """Makes sockets of a foreign process, which are closed at the end."""
    context: zmq.Context[Any] = zmq.Context()

    def make(kind: int, **options: Any) -> Any:
        made = context.socket(kind)
        for name, value in {"linger": 0, **options}.items():
            setattr(made, name, value)
        return made

    yield make
    context.destroy(linger=0)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def message(seq: int, stream: str = "hall") -> list[Any]:
    header = {"kind": "frame", "seq": seq, "pts_ns": seq * 1000,
              "image": {"format": "gray", "shape": [4, 6]}}  # fmt: skip
    return [f"ovpipe1/{stream}".encode(), msgpack.packb(header), np.full((4, 6), seq, np.uint8)]


END = [b"ovpipe1/hall", msgpack.packb({"kind": "end"})]


def levels(frames: list[Frame]) -> list[int]:
    return [int(frame.image.data[0, 0]) for frame in frames if frame.image]


@pytest.mark.parametrize("where", ["tcp", "ipc"])
def test_J01_frames_to_the_end_and_rubbish_is_counted(
    tmp_path: Path, peer: Any, where: str
) -> None:
    address = free_address() if where == "tcp" else f"ipc://{tmp_path}/frames"
    push = peer(zmq.PUSH)
    push.connect(address)
    rubbish: list[list[bytes]] = [
        [b"GET / HTTP/1.1"],
        [b"ovpipe1/hall", b"\xc1"],
        [b""] * 20,
        [b""] * 3000,
    ]
    for parts in (message(0), *rubbish, message(1, "other"), message(2), END):
        push.send_multipart(parts)
    stage = ZmqIn(address=address, live=False)
    frames = run_stage(stage).outputs
    assert levels(frames) == [0, 1, 2]
    assert [f.pts_ns for f in frames] == [0, 1000, 2000]
    assert [f.meta["remote_stream"] for f in frames] == ["hall", "other", "hall"]
    assert isinstance(stage.context, LocalContext)
    assert stage.context.failed == {"malformed": 4}


def test_of_too_many_parts_only_a_few_are_held(peer: Any) -> None:
    address = free_address()
    push = peer(zmq.PUSH)
    push.connect(address)
    stage = Socket(Link(address, "pull", bind=True), "")
    try:
        for count in (MAX_PARTS, MAX_PARTS + 1, 300, 1):
            push.send_multipart([bytes(100_000)] * count)
        assert len(stage.receive(10) or ()) == MAX_PARTS
        assert len(stage.receive(10) or ()) == MAX_PARTS + 1
        tracemalloc.start()
        try:
            assert len(stage.receive(10) or ()) == MAX_PARTS + 1
            assert tracemalloc.get_traced_memory()[1] < 2_000_000  # of 30 MB
        finally:
            tracemalloc.stop()
        assert len(stage.receive(10) or ()) == 1
    finally:
        stage.close()


def test_one_name_of_several(peer: Any) -> None:
    address = free_address()
    push = peer(zmq.PUSH)
    push.connect(address)
    for parts in (message(0, "hall2"), message(1), message(2, "yard"), END):
        push.send_multipart(parts)
    assert levels(run_stage(ZmqIn(address=address, live=False, stream="hall")).outputs) == [1]


def test_a_live_one_outlives_the_end_and_silence_of_its_peer(peer: Any, caplog: Any) -> None:
    address = free_address()
    stage = ZmqIn(address=address, timeout=0.3)
    assert stage.live is True

    def send() -> None:
        for seq in (0, 1):
            push = peer(zmq.PUSH)
            push.connect(address)
            push.send_multipart(message(seq))
            wait_for(lambda seq=seq: caplog.text.count("stalled: no frame for 0.3 s") > seq, "it")
        for parts in (END, message(2)):
            push.send_multipart(parts)

    sender = threading.Thread(target=send)
    sender.start()
    frames = run_stage(stage, limit=3).outputs
    sender.join()
    assert levels(frames) == [0, 1, 2]
    times = [frame.pts_ns or 0 for frame in frames]
    assert times == sorted(set(times))
    assert "camera streaming: frames come" in caplog.text
    assert "reconnecting: the peer ended the stream" in caplog.text


def test_sub_and_pub(peer: Any) -> None:
    address = free_address()
    publisher = peer(zmq.PUB)
    publisher.bind(address)
    over = threading.Event()

    def publish() -> None:
        while not over.wait(0.01):
            for parts in (message(7, "yard"), message(8), END):
                publisher.send_multipart(parts)

    sender = threading.Thread(target=publish)
    sender.start()
    try:
        frames = run_stage(ZmqIn(address=address, mode="sub", live=False, stream="hall")).outputs
    finally:
        over.set()
        sender.join()
    assert levels(frames) in ([8], [])  # who comes late may see the end first


# -- out --------------------------------------------------------------------------------------


def frames(count: int) -> list[Frame]:
    return [
        Frame(image=Image(np.full((4, 6), i, np.uint8), "gray"), stream="cam", seq=i, captured_ns=0)
        for i in range(count)
    ]


def test_push_reaches_who_pulls(peer: Any) -> None:
    pull = peer(zmq.PULL)
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    run_stage(ZmqOut(address=f"tcp://127.0.0.1:{port}"), frames(5))
    came = []
    while pull.poll(5000):
        topic, packed, *buffers = pull.recv_multipart()
        assert topic == b"ovpipe1/cam"
        header = msgpack.unpackb(packed)
        if header["kind"] == "end":
            break
        came.append((header["seq"], buffers[0][0]))
    assert came == [(i, i) for i in range(5)]


def test_where_nobody_pulls_each_frame_fails_and_nothing_waits_for_ever() -> None:
    done = run_stage(ZmqOut(address=free_address(), timeout=0.05), frames(3))
    assert [e.reason for e in done.errors if isinstance(e, FrameError)] == ["link_lost"] * 3


def test_a_long_wait_for_somebody_is_no_hang() -> None:
    class SaysSo(Exception):
        pass

    class Told(LocalContext):
        def waiting(self) -> None:
            raise SaysSo

    stage = ZmqOut(address=free_address(), timeout=3600.0)
    stage.bind(Told("out"))
    stage.open()
    with pytest.raises(SaysSo):
        stage.consume(frames(1)[0])
    stage.close()


def test_pub_waits_for_nobody(tmp_path: Path) -> None:
    done = run_stage(ZmqOut(address=f"ipc://{tmp_path}/out", mode="pub"), frames(50))
    assert done.errors == []


def test_an_ipc_socket_is_its_owners_alone(tmp_path: Path) -> None:
    stage = ZmqIn(address=f"ipc://{tmp_path}/frames")
    stage.open()
    try:
        assert stat.S_IMODE(os.stat(tmp_path / "frames").st_mode) & 0o077 == 0
    finally:
        stage.close()


# -- who may come -----------------------------------------------------------------------------


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def test_J02_only_keys_on_the_list_get_in(peer: Any) -> None:
    address = free_address()
    (server, secret), mine, stranger = keys(), keys(), keys()

    def push(pair: tuple[str, str] | None) -> Any:
        curve = {} if pair is None else {
            "curve_publickey": pair[0].encode(), "curve_secretkey": pair[1].encode(),
            "curve_serverkey": server.encode(),
        }  # fmt: skip
        made = peer(zmq.PUSH, **curve)
        made.connect(address)
        return made

    stage = ZmqIn(address=address, live=False, secret_key=secret, allow=[mine[0]])
    # A stranger with a key of its own, one without any, and one that speaks no ZeroMQ at all.
    for intruder in (push(stranger), push(None)):
        for _ in range(3):
            intruder.send_multipart(message(99))
    stage.open()
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4096))
        stage.close()
        friend = push(mine)
        for parts in (message(1), message(2), END):
            friend.send_multipart(parts)
        came = run_stage(stage).outputs
    assert levels(came) == [1, 2]
    assert isinstance(stage.context, LocalContext)
    assert stage.context.failed == {}


def test_both_ends_of_ours_with_keys() -> None:
    address = free_address()
    (server, secret), (mine, own) = keys(), keys()
    out = ZmqOut(address=address, secret_key=own, server_key=server, timeout=10.0)
    sender = threading.Thread(target=lambda: run_stage(out, frames(4)))
    sender.start()
    came = run_stage(ZmqIn(address=address, live=False, secret_key=secret, allow=[mine])).outputs
    sender.join()
    assert levels(came) == [0, 1, 2, 3]


K = "x" * 40


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"address": "udp://127.0.0.1:5"}, "write tcp://127.0.0.1:5555 or ipc:"),
        ({"address": "tcp://127.0.0.1:0"}, "a port is 1 to 65535"),
        ({"address": "tcp://127.0.0.1:99999"}, "a port is 1 to 65535"),
        ({"address": "ipc://" + "/a" * 80}, "longer than 100 bytes"),
        ({"address": "tcp://0.0.0.0:5555"}, "is reached from other machines"),
        ({"address": "tcp://*:5555"}, "is reached from other machines"),
        ({"address": "tcp://[::]:5555"}, "is reached from other machines"),
        ({"address": "tcp://192.168.1.1:5555"}, "is reached from other machines"),
        ({"address": "tcp://127.0.0.1.example.com:5555"}, "is reached from other machines"),
        ({"address": "tcp://127.0.0.1:5555", "secret_key": K}, "every stranger could"),
        ({"address": "tcp://127.0.0.1:5555", "allow": [K]}, "both"),
        ({"address": "tcp://127.0.0.1:5555", "secret_key": "s3cret", "allow": [K]}, "40 charac"),
        ({"address": "tcp://10.0.0.1:5555", "mode": "sub", "secret_key": K}, "needs both"),
        ({"address": "ipc:///nowhere/at/all"}, "cannot bind"),
    ],
)
def test_what_cannot_be_or_is_not_safe(options: Any, says: str) -> None:
    stage = ZmqIn(**options)
    with pytest.raises(PreflightError) as caught:
        stage.open()
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert K not in str(caught.value)


def test_a_port_that_is_taken_is_told_before_the_run(peer: Any) -> None:
    port = peer(zmq.PULL).bind_to_random_port("tcp://127.0.0.1")
    taken = peer(zmq.PULL)
    address = free_address()
    taken.bind(address)
    with pytest.raises(PreflightError, match=r"cannot bind .*Address already in use"):
        ZmqIn(address=address).open()
    assert port
