"""The webhook stage against a server that does what a script says."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.base import LocalContext
from ovpipe.stages.webhook import Webhook
from tests.support.brokers import free_port, self_signed
from tests.support.processes import wait_for


class Hook(ThreadingHTTPServer):
    """Answers as `script` says, in this order: a status (with headers), `hang` or `close`; then 200."""

    daemon_threads = True

    def __init__(self, script: list[Any], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.script = list(script)
        self.requests: list[tuple[dict[str, str], bytes, Any]] = []
        self.released = threading.Event()
        self.connections = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=hush-hush"

    @property
    def accepted(self) -> list[Any]:
        """The documents of requests that were answered with 200."""
        return [json.loads(body) for _, body, answer in self.requests if answer == 200]

    def handle_error(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    server: Hook

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.script.pop(0) if self.server.script else 200
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        self.server.requests.append(({**self.headers, "path": self.path}, body, status))
        if status == "hang":
            self.server.released.wait(30)
            self.close_connection = True
            return
        if status == "close":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        if headers.get("X-Then") == "close":
            self.close_connection = True  # without having said so

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook():
    started: list[Hook] = []

    def make(*script: Any, **options: Any) -> Hook:
        started.append(Hook(list(script), **options))
        return started[-1]

    yield make
    for server in started:
        server.close()


def opened(url: str, **options: Any) -> Webhook:
    options.setdefault("flush_timeout", 20.0)
    stage = Webhook(url=url, **options)
    stage.bind(LocalContext("events"))
    stage.open()
    return stage


def push(stage: Webhook, *seqs: int) -> None:
    for seq in seqs:
        stage.consume(Frame(stream="cam", seq=seq, captured_ns=1))


def test_a_request_a_message_signed_and_in_order(hook) -> None:
    server = hook()
    stage = opened(server.url, secret="k", headers={"Authorization": "Bearer abc"})
    push(stage, *range(20))
    stage.close()
    assert [d["seq"] for d in server.accepted] == list(range(20))
    headers, body, _ = server.requests[3]
    signature = hmac.new(b"k", body, hashlib.sha256).hexdigest()
    assert headers["X-Ovpipe-Signature"] == f"sha256={signature}"
    assert headers["Idempotency-Key"] == json.loads(body)["id"] == f"{stage.context.run}/cam/3"
    assert headers["Authorization"] == "Bearer abc"
    assert headers["Content-Type"] == "application/json"
    assert headers["path"] == "/hook?token=hush-hush"
    assert server.connections == 1


def test_lists(hook) -> None:
    server = hook((503, {"Retry-After": "0"}))
    stage = opened(server.url, batch=10)
    push(stage, *range(35))
    stage.close()
    assert all(1 <= len(listed) <= 10 for listed in server.accepted)
    assert [d["seq"] for listed in server.accepted for d in listed] == list(range(35))


@pytest.mark.parametrize(
    "trouble",
    [500, 503, 429, (429, {"Retry-After": "1"}), 408, "close", "hang", (200, {"X-Then": "close"})],
    ids=str,
)
def test_what_fails_is_sent_again_with_the_same_key(hook, trouble, caplog) -> None:
    server = hook(trouble)
    stage = opened(server.url, timeout=0.3)
    push(stage, 0)
    wait_for(lambda: server.requests, "the first request")
    push(stage, 1)
    stage.close()
    seqs = [json.loads(body)["seq"] for _, body, _ in server.requests]
    keys = [headers["Idempotency-Key"] for headers, _, _ in server.requests]
    then_closed = isinstance(trouble, tuple) and trouble[0] == 200
    assert seqs == ([0, 1] if then_closed else [0, 0, 1])
    assert then_closed or keys[0] == keys[1]
    assert ("broker away" in caplog.text) != then_closed
    assert "hush" not in caplog.text


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_is_refused_is_counted_and_not_sent_again(hook, status, caplog) -> None:
    server = hook(status)
    stage = opened(server.url)
    push(stage, 0, 1, 2)
    stage.close()
    assert [json.loads(body)["seq"] for _, body, _ in server.requests] == [0, 1, 2]
    assert "2 messages confirmed, 1 refused" in caplog.text
    assert str(status) in caplog.text


def test_of_a_refused_list_only_the_bad_one_is_lost(hook, caplog) -> None:
    server = hook(500, 400, 200, 400)
    stage = opened(server.url, batch=3)
    push(stage, 0, 1, 2)
    stage.close()
    last = [json.loads(body) for _, body, _ in server.requests][-3:]
    assert [[d["seq"] for d in listed] for listed in last] == [[0], [1], [2]]
    assert "2 messages confirmed, 1 refused" in caplog.text


@pytest.mark.parametrize("answer", [401, 403, (302, {"Location": "http://127.0.0.1:1/elsewhere"})])
def test_who_is_not_let_in_keeps_its_messages_and_waits(hook, answer, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    server = hook(answer)
    options = {"spool": {"path": str(tmp_path / "spool")}, "flush_timeout": 0.0}
    stage = opened(server.url, headers={"X-Key": "hush-hush"}, **options)
    push(stage, 0)
    wait_for(lambda: "broker denied" in caplog.text, "the news")
    stage.close()
    assert len(server.requests) == 1
    assert "1 left in" in caplog.text
    assert "hush" not in caplog.text
    stage = opened(server.url, spool=options["spool"])
    stage.close()
    assert [d["seq"] for d in server.accepted] == [0]


def test_certificates_are_checked(hook, tmp_path, caplog) -> None:
    key, certificate = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = hook(tls=tls)
    url = f"https://localhost:{server.server_port}/"
    stage = opened(url, flush_timeout=0.0)
    push(stage, 0)
    wait_for(lambda: "certificate verify failed" in caplog.text, "the news")
    stage.close()
    assert not server.requests
    stage = opened(url, ca_file=str(certificate))
    push(stage, 1)
    stage.close()
    assert [d["seq"] for d in server.accepted] == [1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://x/"}, "no such kind of server"),
        ({"url": "http://x/ hush"}, "a space or control character"),
        ({"url": "http://x/é"}, "percent-encode"),
        ({"url": "http://x/", "headers": {"a b": "c"}}, "'a b' is no name of a header"),
        ({"url": "http://x/", "headers": {"Host": "c"}}, "'Host' is set by the stage"),
        ({"url": "http://x/", "headers": {"A": "hush\r\nB: c"}}, "'A' has a value that is not"),
        ({"url": "http://x/", "ca_file": "/x"}, "https:// only"),
        ({"url": f"http://127.0.0.1:{free_port()}/", "spool": {"path": "/proc/x"}}, "cannot write"),
    ],
)
def test_what_cannot_be_right_ends_the_run_before_it_begins(options, says) -> None:
    with pytest.raises(PreflightError) as caught:
        Webhook(**options).open()
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
