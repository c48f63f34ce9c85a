"""A contact with a run that answers nonsense: one clear error, and no descriptor is kept."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ovpipe.errors import ConfigError, OvpipeError, PipelineClosed, WireError
from ovpipe.supervisor.contact import Contact
from ovpipe.supervisor.desk import SOCKET
from tests.support.processes import open_fds


class Liar:
    """Takes one visitor and answers with what it was given, and so many descriptors."""

    def __init__(self, folder: Path, answer: bytes, fds: int = 0) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(folder / SOCKET))
        self._listener.listen()
        self.heard: Any = None
        self._thread = threading.Thread(target=self._serve, args=(answer, fds))
        self._thread.start()

    def _serve(self, answer: bytes, fds: int) -> None:
        channel, _ = self._listener.accept()
        with channel, open(os.devnull) as null:
            self.heard = json.loads(channel.recv(9999))
            if answer:
                socket.send_fds(channel, [answer], [null.fileno()] * fds)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def liar(tmp_path: Path):
    before = len(open_fds())
    started: list[Liar] = []

    def start(answer: bytes, fds: int = 0) -> Contact:
        started.append(Liar(tmp_path, answer, fds))
        return Contact(tmp_path)

    yield start
    for each in started:
        each.close()
    assert len(open_fds()) == before


@pytest.mark.parametrize(
    ("answer", "fds", "error"),
    [
        (b"", 0, PipelineClosed),
        (b"nonsense", 0, WireError),
        (b"[]", 2, WireError),
        (b"{}", 0, WireError),
        (b"{}", 3, WireError),
        (b'{"stream":1,"source":"cam"}', 1, WireError),
        (b'{"stream":"cam","source":"cam"}', 1, WireError),
        (b'{"stream":"cam","source":"cam","length":1,"slots":1,"slot_bytes":4096}', 2, WireError),
        (b'{"error":"no edge","kind":"wrong"}', 1, ConfigError),
        (b'{"error":"too late","kind":"none"}', 0, TimeoutError),
    ],
)
def test_a_look(liar: Any, answer: bytes, fds: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        liar(answer, fds).peek("cam -> detect", "cam")


@pytest.mark.parametrize(
    "answer",
    [b"{}", b'{"lines":1,"more":true}', b'{"lines":[[1,2,3]],"more":false}',
     b'{"lines":[[1,2,3,4]],"more":false}', b'{"lines":[["x",2,"3","4"]],"more":true}'],
)  # fmt: skip
def test_lines(liar: Any, answer: bytes) -> None:
    with pytest.raises(WireError):
        list(liar(answer, 2).logs())


def test_orders(liar: Any, tmp_path: Path) -> None:
    with pytest.raises(OvpipeError, match="not now"):
        liar(b'{"error":"not now","kind":"none"}', 1).restart("cam")


def test_there_is_no_run(tmp_path: Path) -> None:
    contact = Contact(tmp_path / "nowhere")
    for call in (contact.drain, contact.kill, contact.status, lambda: contact.peek("cam"),
                 lambda: list(contact.logs(follow=True))):  # fmt: skip
        with pytest.raises(PipelineClosed):
            call()
