"""The page of a run in a process of its own: what it says, and that the run does not feel it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import psutil
import pytest

import ovpipe
from tests.process.conftest import S, said
from tests.support.page import TOKEN
from tests.support.processes import family, wait_for

ENDLESS = {"src": {"kind": S + "Endless"}, "sink": {"kind": S + "Check"}}
PASSWORD = "hunter2-of-the-gate"


def page_of(pid):
    """The process of the page below `pid`, or None."""
    for process in family(pid):
        try:
            if "ovpipe.web" in process.cmdline():
                return process
        except psutil.Error:
            continue
    return None


class Page:
    """Asks the page of a run."""

    def __init__(self, runs, process, **options):
        self.process = process
        runs.until(process, "page: http://")
        self.url = re.search(r"page: (http://\S+)", said(process))[1]
        self.options = options

    def get(self, path, **more):
        return httpx.get(self.url + path, timeout=10, **{**self.options, **more})

    def status(self):
        """Its status, once it is of a run that runs; or None."""
        try:
            told = self.get("api/v1/status").json()
        except httpx.TransportError:
            return None
        return told if told.get("phase") == "running" else None

    def flows(self):
        """A status with frames in it."""

        def flowing():
            told = self.status()
            return told if told and told["edges"][0]["per_s"] > 0 else None

        return wait_for(flowing, "a page with frames")


def requests_that_no_client_sends(page):
    port = int(page.url.rpartition(":")[2].strip("/"))
    for request in (
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(400) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as talk:
            talk.sendall(request)
            talk.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := talk.recv(65536):
                    answer += piece
            except ConnectionError:
                pass
        assert not answer or answer.split(b" ")[1][:1] == b"4", (request[:60], answer[:200])
        assert b"root:" not in answer


def drained(runs, process):
    process.send_signal(signal.SIGINT)
    return runs.finish(process)


def test_the_page_shows_a_run(ovpipe_run):
    process = ovpipe_run.start(ENDLESS, "--http", "127.0.0.1:0")
    page = Page(ovpipe_run, process)
    told = page.flows()
    assert (told["name"], told["pid"], told["why"]) == ("config-0", process.pid, "")
    assert [stage["state"] for stage in told["stages"]]
    assert told["edges"][0]["streams"][0]["latency_s"]["p95"] > 0
    graph = page.get("api/v1/graph").json()
    assert [stage["name"] for stage in graph["stages"]] == ["src", "sink"]
    wait_for(lambda: len(page.get("api/v1/history").json()["ago_s"]) > 1, "history")
    assert page.get("healthz").json() == page.get("readyz").json() == {"ok": True, "why": ""}
    assert 'ovpipe_frames_claimed_total{edge="src->sink",stream="src"}' in page.get("metrics").text
    assert page.get("page.js").headers["content-type"].startswith("text/javascript")
    assert page_of(process.pid).nice() >= 10
    requests_that_no_client_sends(page)
    assert page.status()["why"] == ""
    ended = drained(ovpipe_run, process).balanced()
    assert ended.code == 0
    with pytest.raises(httpx.TransportError):
        page.get("healthz")


def test_neither_its_death_nor_its_standing_still_is_felt(ovpipe_run):
    process = ovpipe_run.start(ENDLESS, "--http", "127.0.0.1:0")
    page = Page(ovpipe_run, process)
    before = page.flows()
    dead = page_of(process.pid)
    dead.kill()
    wait_for(lambda: (p := page_of(process.pid)) and p.pid != dead.pid, "another process")
    again = page.flows()  # at the same address
    assert again["edges"][0]["streams"][0]["claimed"] > before["edges"][0]["streams"][0]["claimed"]
    assert [worker["restarts"] for stage in again["stages"] for worker in stage["workers"]] == [
        0,
        0,
    ]
    assert said(process).count("page: its process ended (-9); the run goes on") == 1
    page_of(process.pid).suspend()
    count = rows(process.pid)[0]["delivered"]
    wait_for(lambda: rows(process.pid)[0]["delivered"] > count + 100, "frames meanwhile")
    ended = drained(ovpipe_run, process).balanced()  # and the leak check sees that it is gone
    assert (ended.code, ended.ledger["src", "sink"]["failed"]) == (0, {})


def rows(pid):
    ended = subprocess.run(
        [sys.executable, "-m", "ovpipe", "ps", "--json"], capture_output=True, text=True, timeout=60
    )
    return next(r["ledger"] for r in map(json.loads, ended.stdout.splitlines()) if r["pid"] == pid)


def test_it_dies_with_its_supervisor(ovpipe_run):
    process = ovpipe_run.start(ENDLESS, "--http", "127.0.0.1:0")
    Page(ovpipe_run, process).flows()
    page = page_of(process.pid)
    process.kill()
    wait_for(lambda: not page.is_running() or page.status() == psutil.STATUS_ZOMBIE, "its death")
    ovpipe_run({"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}})  # sweeps its folder


def test_an_address_in_use_is_told_before_anything_starts(ovpipe_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = ovpipe_run(ENDLESS, "--http", f"127.0.0.1:{port}")
    assert ended.code == 3
    assert f"error: the page cannot listen on 127.0.0.1:{port}: Address already in use" in ended.err
    assert "[src]" not in ended.err


@pytest.mark.parametrize(
    ("address", "says"),
    [("0.0.0.0:0", "reaches beyond this machine without a token"), ("here", "must be HOST:PORT")],
)
def test_a_wrong_address_is_a_wrong_configuration(address, says, ovpipe_run):
    ended = ovpipe_run(ENDLESS, "--http", address)
    assert ended.code == 2
    assert says in ended.err


def test_I09_a_token_and_a_password_are_nowhere(ovpipe_run, monkeypatch):
    """I09, for the camera's password and for the page's own token."""
    stages = {
        "cam": {
            "kind": "video",
            "url": "rtsp://127.0.0.1:1/sub",
            "username": "viewer",
            "password": "${CAMERA_PASSWORD}",
        },
        "sink": {"kind": S + "Check"},
    }
    monkeypatch.setenv("CAMERA_PASSWORD", PASSWORD)
    monkeypatch.setenv("PAGE_TOKEN", TOKEN)
    process = ovpipe_run.start(
        stages, "--http", "127.0.0.1:0", "--set", 'http.token="${PAGE_TOKEN}"'
    )
    page = Page(ovpipe_run, process, auth=("me", TOKEN))
    assert page.get("", auth=None).status_code in (401, 503)
    camera = wait_for(
        lambda: (t := page.status()) and t["streams"][0]["facts"].get("camera") and t, "a camera"
    )
    assert camera["streams"][0]["facts"]["camera"] in ("connecting", "reconnecting")
    told = [" ".join(p.cmdline()) for p in (psutil.Process(process.pid), *family(process.pid))]
    paths = ("", "page.js", "page.css", "healthz", "readyz", "metrics", "nothing", "api/v1/graph",
             "api/v1/status", "api/v1/history", "api/v1/edges/7/frame.json")  # fmt: skip
    for path in paths:
        answer = page.get(path)
        told += [answer.text, str(answer.headers), page.get(path, auth=None).text]
    page_of(process.pid).send_signal(signal.SIGABRT)  # a crash
    ovpipe_run.until(process, "page: its process ended (-6)")
    ended = drained(ovpipe_run, process)
    told += [ended.out, ended.err]
    assert not [text for text in told if PASSWORD in text]
    assert not [text for text in told[1:] if TOKEN in text]


def test_a_pipeline_in_an_application_has_it_too(tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "c.yaml").write_text(
        f"version: 1\nhttp: {{listen: '127.0.0.1:{port}'}}\n"
        f"stages:\n  src: {{kind: '{S}Endless'}}\n  sink: {{kind: '{S}Check'}}\n"
    )
    with ovpipe.Pipeline.from_yaml(tmp_path / "c.yaml") as pipeline:
        pipeline.start()

        def shown():
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(shown, "the page")
        second = ovpipe.Pipeline.from_yaml(tmp_path / "c.yaml")
        with second, pytest.raises(ovpipe.PreflightError, match="cannot listen"):
            second.run()
        pipeline.drain()
        assert pipeline.wait(60)
    assert pipeline.ledger[0]["in_flight"] == 0
